import pytest
import untrusted_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return untrusted_corpus.build(tmp_path_factory.getbasetemp() / "untrusted-corpus")
