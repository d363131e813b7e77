"""Fixtures of the tests that train for real."""

import pytest
from real_trainings import Place


@pytest.fixture
def place(tmp_path):
    """An empty directory in which commands run that need the digits."""
    pytest.importorskip("sklearn")
    return Place(tmp_path)
