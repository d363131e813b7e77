import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odp_taskbuilder.base.plain_text import escaped, escaped_json

# C0, DEL, C1, the two separators, all bidirectional controls, other format characters, surrogates, a character that is none.
STEERING = "\x00\x07\x08\x1b\x7f\x80\x85\x9b\x9f\u2028\u2029\u061c\u200e\u200f\u202a\u202e\u2066\u2069\u200b\ufeff\U000e0041\ud800\uffff"


@pytest.mark.parametrize("character", STEERING)
def test_what_steers_a_terminal_is_an_escape(character):
    assert escaped(f"a{character}b") == f"a{ascii(character)[1:-1]}b"
    document = json.dumps({f"a{character}b": character}, ensure_ascii=False)
    assert character not in escaped_json(document)
    assert json.loads(escaped_json(document)) == {f"a{character}b": character}


@pytest.mark.parametrize("text", ["", "loss/train 0.5", "Größe 大きさ ขนาด", "non\u00a0breaking", "ideographic\u3000space", "🙂"])
def test_names_in_any_script_stay_as_they_are(text):
    assert escaped(text) == text
    assert escaped_json(text) == text


def test_lines_are_kept_where_they_are_wanted():
    assert escaped("a\tb\nc") == "a\\tb\\nc"
    assert escaped("a\tb\nc", keep="\n\t") == "a\tb\nc"


@given(st.text(st.characters(), max_size=50))
def test_no_text_gets_through_with_a_control_in_it(text):
    assert not [c for c in escaped(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert json.loads(escaped_json(json.dumps(text, ensure_ascii=False))) == text
