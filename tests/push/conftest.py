import pytest
from pushing import running_cloud, save_artifacts


@pytest.fixture
def cloud(monkeypatch):
    with running_cloud(monkeypatch) as cloud:
        yield cloud


@pytest.fixture
def artifacts(tmp_path):
    return save_artifacts(tmp_path / "digits")
