"""Any text inside source code: literals and comments that are ASCII, and that nothing in the text can end."""

from __future__ import annotations


def java_string(text: str) -> str:
    """A string literal of Java. Unicode escapes are read before anything else in a file: of ASCII characters none is written so."""
    return '"' + "".join(_java_character(character) for character in text) + '"'


def kotlin_string(text: str) -> str:
    """A string literal of Kotlin."""
    escapes = {'"': '\\"', "\\": "\\\\", "$": "\\$"}
    return '"' + "".join(escapes.get(each, each) if " " <= each <= "~" else _utf16_escapes(each) for each in text) + '"'


def comment(text: str) -> str:
    """Text inside a comment of Java or Kotlin, on one line."""
    plain = "".join(each if " " <= each <= "~" else f"U+{ord(each):04X}" for each in text)
    # A backslash before u is an escape everywhere in a Java file, comments included, unless an odd number of them stands before it.
    plain = plain.replace("\\", "\\\\")
    return plain.replace("*/", "*&#47;").replace("/*", "/&#42;").replace("@", "&#64;").replace("<", "&lt;")


def _java_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    return f"\\{ord(character):03o}" if ord(character) < 0x80 else _utf16_escapes(character)


def _utf16_escapes(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[position]:02x}{units[position + 1]:02x}" for position in range(0, len(units), 2))
