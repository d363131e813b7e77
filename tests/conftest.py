"""Shared fixtures. Tests under tests/ mirror src/odp_taskbuilder/."""

import pathlib
import signal

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Real artifacts and numbers, read in place; present where the project is developed, absent in a plain clone.
GOLDEN = ROOT.parent / "shared" / "golden"


# A shell that starts the tests in the background leaves SIGINT ignored, which commands under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path_factory, monkeypatch):
    """What a test builds, no other test gets from a cache; nor does it leave anything in the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True, scope="session")
def fresh_session_cache(tmp_path_factory):
    """The same for fixtures that live longer."""
    keep = pytest.MonkeyPatch()
    keep.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    keep.undo()


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="also run the long forms of promises (thousands of cases)")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        skip = pytest.mark.skip(reason="long form; run with --full")
        for item in items:
            if "full" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of published artifacts."""
    if not GOLDEN.is_dir():
        pytest.skip("the golden artifacts are not beside this checkout")
    return GOLDEN
