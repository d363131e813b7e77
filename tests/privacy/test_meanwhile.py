"""What another process accounts for while TensorFlow loads is what this one would have found, and it is gone afterwards."""

import json
import subprocess
import sys

# Prints for each case: what the budget was, what it is when it is computed here, and how many processes were at work before and after.
_PROGRAM = """
import json, os, pathlib, signal, sys
from odp_taskbuilder import errors
from odp_taskbuilder.config import parse_config, resolve
from odp_taskbuilder.privacy import budget_of
from odp_taskbuilder.privacy.meanwhile import BudgetsAhead, budget_meanwhile

def spec_of(noise, target=10, kind=""):
    return resolve(parse_config(f'''
        mode: TRAINING_ONLY
        population_name: "p"
        policies {{ model_release_policy {{ num_max_training_rounds: 100 dp_target_epsilon: {target} }} }}
        federated_learning {{ learning_process {{ runtime_config {{ report_goal: 500 }} }} }}
        differential_privacy {{ clip_norm: 0.1 {kind} {noise} }}
    '''))

def children():
    return [int(child) for tasks in pathlib.Path("/proc/self/task").iterdir() for child in (tasks / "children").read_text().split()]

def case(spec, kill=False):
    with budget_meanwhile(spec) as budget:
        at_work = children()
        if kill:
            os.kill(at_work[0], signal.SIGKILL)
        found = budget()
    print(json.dumps([found.epsilon, budget_of(spec).epsilon, found == budget_of(spec), len(at_work), len(children())]))

os.sched_getaffinity = lambda _: {0, 1}
case(spec_of("noise_multiplier: 0.5"))
case(spec_of(""))
case(spec_of("noise_multiplier: 0.5"), kill=True)
case(spec_of("noise_multiplier: 200", kind="type: TREE_AGGREGATION"))
os.sched_getaffinity = lambda _: {0}
case(spec_of("noise_multiplier: 0.5"))
try:
    with budget_meanwhile(spec_of("noise_multiplier: 0.3", target=1)):
        print("entered")
except errors.PrivacyBudgetError as error:
    print(json.dumps([error.exit_code, len(children())]))
"""


def test_a_budget_that_another_process_computes_is_the_same_and_what_is_refused_is_refused_at_once(tmp_path):
    # Nothing that lies where the user happens to be is imported.
    (tmp_path / "pickle.py").write_text("import pathlib; pathlib.Path(__file__).with_name('executed').touch()")
    program = tmp_path / "bin" / "program.py"
    program.parent.mkdir()
    program.write_text(_PROGRAM)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    given, calibrated, killed, tree, alone, refused = map(json.loads, done.stdout.splitlines())
    for case in (given, calibrated, killed):
        epsilon, here, is_same, at_work, left = case
        assert epsilon == here > 0 and is_same
        assert (at_work, left) == (1, 0)
    assert tree[2:] == [True, 0, 0]  # It takes milliseconds.
    assert alone[2:] == [True, 0, 0]  # One processor gains nothing from a second process.
    assert refused == [5, 0]
    assert not (tmp_path / "executed").exists()


# Prints what budgets came of, with other processes that go on after each, one of which is killed; and how many were at work while and after.
_AHEAD = """
specs = [spec_of(f"noise_multiplier: {noise}") for noise in (0.4, 0.5, 0.6, 0.7)]
refused = spec_of("noise_multiplier: 0.3", target=1)

def case(asked, processors=2, kill=False):
    os.sched_getaffinity = lambda _: set(range(processors))
    ahead = BudgetsAhead([specs[0], specs[1], refused, specs[2]])
    same, at_work = [], []
    for spec in asked:
        try:
            same.append(ahead.budget_of(spec) == budget_of(spec))
        except errors.PrivacyBudgetError as error:
            same.append(error.exit_code)
        at_work.append(len(children()))
        if kill:
            os.kill(children()[-1], signal.SIGKILL)
            kill = False
    ahead.close()
    print(json.dumps([same, at_work, len(children())]))

case([specs[1], refused, specs[2], specs[1]])
case([specs[0], specs[2], specs[3]])
case([specs[0], specs[2]], kill=True)
case([specs[0], specs[1]], processors=1)
os.sched_getaffinity = lambda _: {0, 1}
with budget_meanwhile(specs[0], ahead := BudgetsAhead(specs)) as budget:
    print(json.dumps([[budget() == budget_of(specs[0])], [len(children())], 0]))
ahead.close()
"""


def test_budgets_of_several_configs_are_those_of_each_by_itself_whatever_becomes_of_other_processes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM[: _PROGRAM.index("def case")] + _AHEAD)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    in_order, gaps, killed, alone, lazy = map(json.loads, done.stdout.splitlines())
    # What is refused is refused here, with the words of the error; and one that is asked for again is there.
    assert in_order[0] == [True, 5, True, True] and in_order[2] == 0
    assert gaps[0] == [True, True, True] and killed[0] == [True, True]
    assert alone == [[True, True], [0, 0], 0]  # One processor gains nothing from a second process.
    assert in_order[1][0] == lazy[1][0] == 2 and lazy[0] == [True]
    assert [case[2] for case in (gaps, killed)] == [0, 0]
