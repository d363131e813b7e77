"""Text proto, and JSON, into a tree of fields that keeps positions.

protobuf's own parsers stop at their first error and know no positions in JSON. This one goes on after an error, so that a person sees
all of them at once. It decides nothing about values, which protobuf reads one by one (scalars.py).

The grammar covers both languages: JSON is text proto with quoted names and more commas.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

from odp_taskbuilder.config.source_text import SourceText

# The schema is five blocks deep.
_MAX_DEPTH = 32

_TOKEN = re.compile(
    r"""
    (?P<skip> \s+ | \#[^\n]* )
  | (?P<string> "[^"\\\n]*(?:\\.[^"\\\n]*)*(?:"|\\?$) | '[^'\\\n]*(?:\\.[^'\\\n]*)*(?:'|\\?$) )
  | (?P<word> [^\W\d][\w+-]* )
  | (?P<number> [0-9+-][\w.+-]* | \.[0-9][\w.+-]* )
  | (?P<other> . )
    """,
    re.VERBOSE | re.MULTILINE,
)
_CLOSED_STRING = re.compile(r""" "[^"\\]*(?:\\.[^"\\]*)*" | '[^'\\]*(?:\\.[^'\\]*)*' """, re.VERBOSE)
_UNCLOSED_QUOTES = "The quotes of this text are not closed in its line."
_CLOSERS = {"{": "}", "<": ">", "[": "]"}


class Token(NamedTuple):
    """A token and its character offset; `kind` is string, word, number, other or, behind the last one, end."""

    kind: str
    text: str
    offset: int


@dataclasses.dataclass(frozen=True)
class Scalar:
    """One value; strings may come in several adjacent pieces."""

    tokens: tuple[Token, ...]

    @property
    def offset(self) -> int:
        return self.tokens[0].offset

    @property
    def is_string(self) -> bool:
        return self.tokens[0].kind == "string"

    @property
    def text(self) -> str:
        """The value as it is written."""
        return " ".join(token.text for token in self.tokens)

    @property
    def content(self) -> str:
        """The value without its quotes; escapes stay."""
        return "".join(token.text[1:-1] if token.kind == "string" else token.text for token in self.tokens)


@dataclasses.dataclass(frozen=True)
class Block:
    """Fields in braces; `offset` is that of the opening one."""

    fields: tuple[Field, ...]
    offset: int


@dataclasses.dataclass(frozen=True)
class List:
    """Values in square brackets; `offset` is that of the opening one."""

    items: tuple[Value, ...]
    offset: int


Value = Union[Scalar, Block, List]


@dataclasses.dataclass(frozen=True)
class Field:
    """A name with its value; None after a syntax error.

    Attributes:
      name_token: where the name stands; with its quotes, if it has any.
      is_json: the name is quoted, so that its value follows the rules of JSON.
    """

    name: str
    name_token: Token
    is_json: bool
    value: Optional[Value]


def tokenize(text: str) -> list[Token]:
    """The tokens of a text, without blanks and comments, and behind them one of kind `end`."""
    tokens = [
        Token(match.lastgroup or "", match[0], match.start()) for match in _TOKEN.finditer(text) if match.lastgroup != "skip"
    ]
    return [*tokens, Token("end", "", len(text))]


def partner_of_first_brace(tokens: Sequence[Token]) -> Optional[int]:
    """Index of the brace that closes the one at index 0, or None if there is none."""
    depth = 0
    for index, token in enumerate(tokens):
        if token.text == "{":
            depth += 1
        elif token.text == "}":
            depth -= 1
            if depth == 0:
                return index
    return None


def without_outer_braces(tokens: list[Token]) -> list[Token]:
    """The tokens without the first, an opening brace, and its partner, if it has one."""
    partner = partner_of_first_brace(tokens)
    return tokens[1:] if partner is None else [*tokens[1:partner], *tokens[partner + 1 :]]


def parse(tokens: list[Token], source: SourceText, *, is_json: bool) -> Block:
    """The fields of a config. Syntax errors go to `source` as problems; the tree then holds what could be made out."""
    return _Parser(tokens, source, is_json).parse_config()


class _Parser:
    """Recursive descent with recovery: after an error in a field the rest of its line is skipped."""

    def __init__(self, tokens: list[Token], source: SourceText, is_json: bool):
        self._tokens = tokens
        self._next = 0
        self._source = source
        self._is_json = is_json
        self._path: list[str] = []
        self._depth = 0
        self._told_about_quotes = is_json

    def parse_config(self) -> Block:
        fields: list[Field] = []
        while True:
            fields += self._fields()
            if self._token.kind == "end":
                return Block(tuple(fields), 0)
            self._add_problem(
                self._advance(),
                "This closing brace has no opening one.",
                "Remove it, or look for the block that was to stay open.",
            )

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _advance(self) -> Token:
        token = self._token
        if token.kind != "end":
            self._next += 1
        return token

    def _add_problem(self, token: Token, message: str, suggestion: Optional[str] = None) -> None:
        if self._is_json:  # The JSON parser has told about the syntax.
            return
        self._source.add_problem(token.offset, message, suggestion, ".".join(self._path))

    def _fields(self) -> list[Field]:
        """Fields up to a closing brace or the end, neither of which is consumed."""
        fields = []
        while self._token.kind != "end" and self._token.text not in ("}", ">"):
            field = self._field()
            if field is not None:
                fields.append(field)
            if self._token.text in (",", ";"):
                self._advance()
        return fields

    def _field(self) -> Optional[Field]:
        token = self._token
        if token.kind in ("other", "number"):
            self._unexpected(token)
            return None
        name_token = self._advance()
        is_json = name_token.kind == "string"
        if is_json and not _CLOSED_STRING.fullmatch(name_token.text):
            self._add_problem(name_token, _UNCLOSED_QUOTES)
            return None
        name = name_token.text[1:-1] if is_json else name_token.text
        if is_json and not self._told_about_quotes:
            self._told_about_quotes = True
            self._add_problem(
                name_token,
                "This looks like JSON without its braces.",
                "Put the whole config into { }, or remove the quotes of names.",
            )
        self._path.append(name)
        value = self._value_of_field(name_token)
        self._path.pop()
        return Field(name, name_token, is_json, value)

    def _value_of_field(self, name: Token) -> Optional[Value]:
        separator = self._token
        if separator.text in (":", "="):
            self._advance()
            if separator.text == "=":
                self._add_problem(
                    separator,
                    "A name and its value are separated by a colon, not by '='.",
                    f"Write {name.text}: {self._token.text}",
                )
        elif separator.text not in _CLOSERS:
            self._add_problem(
                separator, f"Expected a colon or a block after '{name.text}'.", f"Write {name.text}: and its value."
            )
            self._skip_line(name)
            return None
        return self._value()

    def _value(self) -> Optional[Value]:
        token = self._token
        following = self._tokens[self._next + 1].text if token.kind != "end" else ""
        if token.text in ("{", "<"):
            return self._block()
        if token.text == "[":
            return self._list()
        if token.kind == "other" and token.text not in ("}", ">", "]", ",", ";"):
            self._add_problem(self._advance(), f"Expected a value for '{self._path[-1]}', found {token.text!r}.")
            return None
        # A word that has a value of its own is the next field: this one has none.
        if token.kind in ("other", "end") or (token.kind == "word" and following in (":", "=", "{")):
            self._add_problem(token, f"'{self._path[-1]}' has no value.")
            return None
        pieces = [self._advance()]
        while pieces[0].kind == "string" and self._token.kind == "string" and not self._is_json:
            pieces.append(self._advance())
        for piece in pieces:
            if piece.kind == "string" and not _CLOSED_STRING.fullmatch(piece.text):
                self._add_problem(piece, _UNCLOSED_QUOTES)
                return None
        return Scalar(tuple(pieces))

    def _block(self) -> Block:
        opening = self._advance()
        self._open(opening)
        fields = self._fields()
        self._close(opening)
        return Block(tuple(fields), opening.offset)

    def _list(self) -> List:
        opening = self._advance()
        self._open(opening)
        items = []
        while self._token.kind != "end" and self._token.text not in ("]", "}", ">"):
            before = self._next
            item = self._value()
            if item is not None:
                items.append(item)
            comma = self._token
            if comma.text == "," or self._next == before:
                self._advance()
            elif comma.text != "]":
                self._add_problem(comma, "Expected a comma or a ] in this list.")
            if comma.text == "," and self._token.text == "]":
                self._add_problem(comma, "This list has a comma behind its last item.", "Remove the comma.")
        self._close(opening)
        return List(tuple(items), opening.offset)

    def _open(self, opening: Token) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._source.add_problem(opening.offset, f"Blocks are nested more than {_MAX_DEPTH} deep.")
            self._source.refuse("Reading stops there.")

    def _close(self, opening: Token) -> None:
        self._depth -= 1
        name = self._path[-1]
        if self._token.kind == "end":
            self._add_problem(
                opening,
                f"The block '{name}' that starts in line {self._line(opening)} is not closed.",
                f"Add a {_CLOSERS[opening.text]} behind its last field.",
            )
            return
        closing = self._advance()
        if closing.text != _CLOSERS[opening.text]:
            expected = _CLOSERS[opening.text]
            self._add_problem(
                closing, f"Expected '{expected}' to close '{name}' of line {self._line(opening)}, found '{closing.text}'."
            )

    def _unexpected(self, token: Token) -> None:
        """Notes a token that starts no field, and skips the line's rest."""
        following = self._tokens[self._next + 1]
        if token.text == "/" and following.text in ("/", "*") and following.offset == token.offset + 1:
            self._add_problem(token, "Comments start with '#'.", f"Write # in place of /{following.text}")
            self._skip_line(token, braces_too=True)
            return
        previous = self._tokens[self._next - 1].text if self._next else ""
        advice = "Decimals are written with a point." if token.kind == "number" and previous == "," else None
        self._add_problem(token, f"Expected the name of a field, found {token.text!r}.", advice)
        self._advance()
        self._skip_line(token)

    def _skip_line(self, start: Token, *, braces_too: bool = False) -> None:
        line = self._line(start)
        while self._token.kind != "end" and self._line(self._token) == line:
            if self._token.text in ("{", "}", "<", ">") and not braces_too:
                return
            self._advance()

    def _line(self, token: Token) -> int:
        return self._source.line_of(token.offset)
