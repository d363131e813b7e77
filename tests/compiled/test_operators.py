"""Every operator of the table does what TFLite's interpreter does: over shapes, dtypes and edge values, known while tracing or not."""

import hypothesis
import pytest
from hypothesis import strategies as st

pytest.importorskip("jax")
from one_operator import OneOperator, assert_same, translated  # noqa: E402
from operator_cases import CASES, OPTIONS  # noqa: E402

from odp_taskbuilder.compiled import translation  # noqa: E402

# Uses of an operator in one program.
_USES = 8


def test_every_operator_of_the_table_has_a_case():
    assert CASES.keys() == translation.TABLE.keys()


@pytest.mark.parametrize("op", sorted(CASES))
def test_an_operator_is_the_interpreters(op, request):
    @hypothesis.settings(
        # The first one is the simplest there is.
        max_examples=25 if request.config.getoption("--full") else 2,
        phases=[hypothesis.Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.data())
    def check(data):
        cases = [CASES[op](data.draw) for _ in range(_USES)]
        operators = [OneOperator(op, case, OPTIONS.get(op)) for case in cases]
        wanted = [operator.interpreted() for operator in operators]
        for folded in {False, translation.TABLE[op].folds}:
            chosen = [position for position, case in enumerate(cases) if case.folds or not folded]
            results = translated([operators[position] for position in chosen], folded=folded)
            for position, (found, holds) in zip(chosen, results):
                # Where the interpreter fails the client goes to it.
                if wanted[position] is None:
                    assert not holds
                elif not (cases[position].gives_back and not holds):
                    assert holds
                    assert_same(found, wanted[position], cases[position])

    check()
