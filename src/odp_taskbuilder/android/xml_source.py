"""XML with the place of every tag and attribute."""

from __future__ import annotations

import dataclasses
import re
from typing import Optional
from xml.parsers import expat

from odp_taskbuilder.android.problems import Places

_ATTRIBUTE = re.compile(r"""\s+([^\s=>/]+)\s*=\s*("[^"]*"|'[^']*')""")
_TAG_NAME = re.compile(r"<\s*[^\s/>]+")
_MAX_DEPTH = 200


@dataclasses.dataclass
class Element:
    """An element.

    Attributes:
      tag: as it stands, with its prefix.
      attributes: name, with its prefix -> value.
      offset: of its tag.
      attribute_offsets: name -> offset.
      text_offset: of the first text in it that is no space; None where there is none.
    """

    tag: str
    attributes: dict[str, str]
    offset: int
    attribute_offsets: dict[str, int]
    parent: Optional[Element]
    children: list[Element] = dataclasses.field(default_factory=list)
    text_offset: Optional[int] = None

    def place_of(self, attribute: str) -> int:
        return self.attribute_offsets.get(attribute, self.offset)


def parse(places: Places) -> Optional[Element]:
    """The root of a document; None where it is no XML, which is among the problems then."""
    parser = expat.ParserCreate()
    parser.ordered_attributes = True
    stack: list[Element] = []
    roots: list[Element] = []

    def offset() -> int:
        # Expat counts columns in bytes of UTF-8.
        line_start = places.offset(parser.CurrentLineNumber, 1)
        line = places.text[line_start:].partition("\n")[0]
        return line_start + len(line.encode()[: parser.CurrentColumnNumber].decode(errors="ignore"))

    def start(tag: str, attributes: list[str]) -> None:
        if len(stack) >= _MAX_DEPTH:
            raise _Refused("elements are nested too deeply")
        at = offset()
        element = Element(
            tag,
            dict(zip(attributes[::2], attributes[1::2])),
            at,
            _attribute_offsets(places.text, at),
            stack[-1] if stack else None,
        )
        (stack[-1].children if stack else roots).append(element)
        stack.append(element)

    def text(data: str) -> None:
        if data.strip() and stack and stack[-1].text_offset is None:
            stack[-1].text_offset = offset()

    def doctype(*_: object) -> None:
        raise _Refused("a document type is declared, and no such file has one")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: stack.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        # What the declaration says of the encoding is about the bytes, which were decoded before.
        parser.Parse(re.sub(r"^(<\?xml[^>]*?)\s+encoding\s*=\s*(\"[^\"]*\"|'[^']*')", _blank, places.text).encode(), True)
    except expat.ExpatError as error:
        places.add(places.offset(error.lineno, 1) + error.offset, f"not XML: {expat.ErrorString(error.code)}", "Mend it.")
        return None
    except _Refused as error:
        places.add(offset(), str(error), "Remove it.")
        return None
    return roots[0]


class _Refused(Exception):
    """Well-formed, but nothing that is read further."""


def _blank(match: re.Match) -> str:
    """The beginning of a match, and spaces for the rest: what stands behind keeps its place."""
    return match[1] + " " * (len(match[0]) - len(match[1]))


def _attribute_offsets(text: str, offset: int) -> dict[str, int]:
    name = _TAG_NAME.match(text, offset)
    position = name.end() if name else offset
    found: dict[str, int] = {}
    while match := _ATTRIBUTE.match(text, position):
        found[match[1]] = match.start(1)
        position = match.end()
    return found
