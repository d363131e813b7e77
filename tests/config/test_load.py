"""What is read at all: files, limits, encodings, and what a terminal gets to see of them."""

import pytest

from odp_taskbuilder import config, errors
from odp_taskbuilder.config import source_text


def refusal(data, source="job.pbtxt"):
    with pytest.raises(errors.ConfigError) as caught:
        loaded = config.parse_config(data, source)
        raise errors.ConfigError(loaded.problems, source=source)
    return caught.value


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(errors.ConfigError) as caught:
            config.load_config(path)
        assert str(caught.value) == f"{path}: Cannot read the task config: {reason}."
    with pytest.raises(errors.ConfigError):
        config.load_config("a\0b")


def test_a_huge_file_is_read_no_further_than_its_limit(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(errors.ConfigError, match="larger than 262,144 bytes"):
        config.load_config(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"mode: TRAINING_ONLY\nlabel_name: '\xff'", "The task config is not UTF-8 text: byte 0xff in line 2."),
        ("mode: TRAINING_ONLY".encode("utf-16"), "The task config is not UTF-8 text: byte 0xff in line 1."),
        (b"\x08\x01\x12\x00\x1a", "The task config is not text: it holds a NUL byte."),
        ("label_name: '\ud800'", "The task config is not UTF-8 text: byte 0xed in line 1."),
    ],
)
def test_what_is_no_text_is_refused_in_words(data, message):
    (problem,) = refusal(data).problems
    assert problem.message == message
    assert problem.suggestion


@pytest.mark.parametrize(
    ("data", "place", "suggestion"),
    [
        ('{ // note\n "mode": 1}', (1, 3), "JSON has no comments."),
        ('{"mode": 1,\n}', (2, 1), "JSON has no comma behind the last field of an object or the last item of a list."),
        ("{'mode': 'TRAINING_ONLY',\n'label_name': 'a'}", (1, 2), "JSON has double quotes only."),
    ],
)
def test_json_that_other_tools_accept_is_refused_with_what_is_wrong_with_it(data, place, suggestion):
    problem = refusal(data).problems[0]
    assert ((problem.line, problem.column), problem.suggestion) == (place, suggestion)


@pytest.mark.parametrize("data", ["mode: X".encode("utf-16"), "mode: X".encode("utf-16-le")])
def test_utf16_is_told_with_and_without_its_mark(data):
    assert refusal(data).problems[0].suggestion == "It looks like UTF-16. Save it as UTF-8."


def test_line_ends_of_old_macintoshes_are_line_ends():
    loaded = config.parse_config("# first\rmode: TRAINING_ONLY\rlabel_name: 'a'\r")
    assert (loaded.config.label_name, loaded.positions["label_name"].line) == ("a", 3)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a{" * 20_000, id="blocks"),
        pytest.param("policies:[" * 5_000, id="lists"),
        pytest.param('{"a":' * 20_000, id="JSON objects"),
        pytest.param('{"a":' + "[" * 50_000, id="JSON lists"),
    ],
)
def test_deep_nesting_is_refused(text):
    messages = [problem.message for problem in refusal(text).problems]
    assert any("nested more than 32 deep" in message or "maximum recursion depth" in message for message in messages)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("@\n" * 20_000, id="marks"),
        pytest.param("}" * 20_000, id="braces"),
        pytest.param("a: 1 " * 10_000, id="unknown fields"),
        pytest.param("mode: TRAINING_ONLY\n" * 5_000, id="one field again and again"),
    ],
)
def test_a_text_that_is_no_config_brings_a_hundred_problems_and_no_more(text):
    error = refusal(text)
    assert len(error.problems) == source_text.MAX_PROBLEMS + 1
    assert error.problems[-1].message == "Reading stops after 100 problems."
    assert len(str(error)) < 100_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('"' * 50_000, id="quotes"),
        pytest.param("'\\" * 25_000, id="escaped quotes"),
        pytest.param('"' + "\\a" * 25_000, id="open text"),
        pytest.param("use_daf: " + "9" * 50_000, id="number"),
        pytest.param("x" * 50_000, id="name"),
        pytest.param("-" * 50_000, id="signs"),
        pytest.param("a:[" * 10_000, id="open lists"),
    ],
)
def test_long_tokens_are_refused_and_not_repeated_at_length(text):
    assert len(str(refusal(text))) < 30_000


def test_a_large_config_is_read():
    metrics = "".join(f'metrics {{ name: "m{index}" }}\n' for index in range(5000))
    loaded = config.parse_config(f"federated_learning {{ learning_process {{ {metrics} }} }}")
    assert len(loaded.config.federated_learning.learning_process.metrics) == 5000
    assert loaded.positions["federated_learning.learning_process.metrics[4999].name"].line == 5000


def test_characters_that_steer_a_terminal_are_shown_as_marks():
    error = refusal('mode: TRAINING_ONLY # \x1b[31m \u202e\nlabel: "\x1b]0;title\x07"')
    assert "\x1b" not in str(error)
    assert error.problems[0].source_line == 'label: "\ufffd]0;title\ufffd"'
    with pytest.raises(errors.ConfigError) as caught:
        config.resolve(config.parse_config('population_name: "a\\033[31m\\342\\200\\256"'))
    assert caught.value.problems[0].message.startswith("[Invalid task config]: key `mode`")
    assert not any(char in str(caught.value) for char in "\x1b\u202e")


def test_the_caret_stands_below_its_character_in_a_line_of_any_length():
    text = '{"population_name": "' + "x" * 500 + '", "mode": "TREE", "label_name": "' + "y" * 500 + '"}'
    message, shown, caret, *_ = str(refusal(text)).splitlines()
    assert message == f"job.pbtxt:1:{text.index('TREE')}: mode has no value 'TREE'."
    assert len(shown) == 124
    assert shown[caret.index("^") :].startswith('"TREE"')
