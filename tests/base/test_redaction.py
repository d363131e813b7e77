import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odp_taskbuilder.base import redaction

_PASSWORD = "hun/t?e#r:2 @'\"\\ü"


@pytest.fixture(autouse=True)
def no_known_secrets(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", {})


@pytest.mark.parametrize(
    "url, shown",
    [
        ("http://user:hunter2@host:80/x", "http://[redacted]@host:80/x"),
        (f"https://user:{_PASSWORD}@host", "https://[redacted]@host"),
        ("HTTP://:hunter2@host", "HTTP://[redacted]@host"),
        ("https://hunter2@host", "https://[redacted]@host"),
        ("http:/user:hunter2@host", "http:/[redacted]@host"),
        ("user:hunter2@host:8080", "[redacted]@host:8080"),
        ("gs://user:hun/ter2@bucket/x", "gs://[redacted]@bucket/x"),
        ("https://host/x?a=hunter2&b=hunter2#hunter2", "https://host/x?a=[redacted]&b=[redacted]#[redacted]"),
        ("https://host?hunter2", "https://host?[redacted]"),
        ("gs://bucket/x?token=hunter2&part=1", "gs://bucket/x?token=[redacted]&part=1"),
    ],
)
def test_what_is_secret_in_a_url_is_masked(url, shown):
    assert redaction.redact_url(url) == shown
    assert redaction.redact_url(shown) == shown


@pytest.mark.parametrize(
    "url", ["http://localhost:8082", "gs://bucket/a@b:c/d", "file:///home/me@work/x", "models/me@work", "C:\\models", "data.csv?client=user&x:float32=a,b", ""]
)
def test_what_holds_no_secret_stays_as_it_is(url):
    assert redaction.redact_url(url) == url
    assert redaction.redact(f"There is no {url!r}.") == f"There is no {url!r}."


@given(st.text(min_size=1).filter(lambda text: "[redacted]" not in text))
def test_no_character_of_a_password_is_shown(password):
    assert redaction.redact_url(f"https://user:{password}@host/path") == "https://[redacted]@host/path"


@given(st.text(min_size=8))
def test_a_password_of_the_command_line_is_masked_wherever_and_however_it_is_written(password):
    url = f"https://user:{password}@host/path"
    redaction.protect_urls(["build", f"--task_builder_server={url}"])
    for text in (url, json.dumps(url), json.dumps(url, ensure_ascii=False), repr(url), f"cut off: //user:{password}@ho"):
        written = re.escape(password), re.escape(json.dumps(password)[1:-1]), re.escape(repr(password)[1:-1])
        assert not re.search("|".join(written), redaction.redact(text))


@pytest.mark.parametrize(
    "text, shown",
    [
        ("see 'https://u:p w@host', not b@c", "see 'https://[redacted]@host', not b@c"),
        ("(https://u:p/w@host), and so on.", "(https://[redacted]@host), and so on."),
        ("gs://bucket/a@b, https://u:p@host", "gs://bucket/a@b, https://[redacted]@host"),
        ("gs://bucket/a@b,https://u:p@host", "gs://bucket/a@b,https://[redacted]@host"),
        ("POST https://host/upload?upload_id=abc", "POST https://host/upload?upload_id=[redacted]"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("a" * 50 + "http://u:p@host", "a" * 50 + "http://[redacted]@host"),
        ("robot@project.iam says: no", "robot@project.iam says: no"),
    ],
)
def test_urls_are_found_in_sentences(text, shown):
    assert redaction.redact(text) == shown
    assert redaction.redact(shown) == shown


def test_documents_keep_their_structure():
    document = {"a": ["http://u:p@h", 1, None], "key": {"http://u:p@h": 'x "http://u:p@h"'}}
    masked = "http://[redacted]@h"
    assert redaction.redact_document(document) == {"a": [masked, 1, None], "key": {masked: f'x "{masked}"'}}

