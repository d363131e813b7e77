"""Names that Java and Kotlin take: of packages and classes as they are given, of parameters and constants made of any text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from odp_taskbuilder import errors

# Java Language Specification 17, section 3.9, with the literals; Kotlin's hard keywords (kotlinlang.org/docs/keyword-reference.html).
_JAVA = frozenset(
    """abstract assert boolean break byte case catch char class const continue default do double else enum extends final finally float
    for goto if implements import instanceof int interface long native new package private protected public return short static strictfp
    super switch synchronized this throw throws transient try void volatile while true false null _""".split()
)
_KOTLIN = frozenset(
    """as break class continue do else false for fun if in interface is null object package return super this throw true try typealias
    typeof val var when while""".split()
)
KEYWORDS = _JAVA | _KOTLIN
# What the generated sources call by its simple name, and what every Java file has without an import.
_TAKEN_CLASSES = frozenset(
    """IsolatedService IsolatedWorker IsolatedServiceException RequestToken ExecuteInput ExecuteOutput DownloadCompletedInput
    DownloadCompletedOutput TrainingExamplesInput TrainingExamplesOutput TrainingExampleRecord TrainingExampleInput TrainingExampleOutput
    FederatedComputeScheduler FederatedComputeInput TrainingInterval KeyValueStore OutcomeReceiver PersistableBundle Consumer Duration
    Log Object String Override IllegalArgumentException RuntimeException List ArrayList Arrays Iterable Math System Long Integer Float Byte Thread
    ByteBuffer ByteOrder ByteArrayOutputStream StandardCharsets Executor Executors ExecutorService Collections TreeSet Set Class Exception
    Any Unit Array Char Short Double Boolean Int Number Enum Throwable Charsets FloatArray LongArray ByteArray""".split()
)
# Java's contextual keywords, which name no type; "var" is among Kotlin's.
_NO_TYPES = frozenset("permits record sealed yield".split())
# The classes that are made for a service S are called S, SExamples, ...
_MADE_CLASSES = ("", "Examples", "Data", "Worker")
# Methods of the encoder and of every object.
_TAKEN_METHODS = frozenset(
    """floats integers strings entry example utf8 field varint concatenated wait notify notifyAll getClass hashCode equals toString clone
    finalize""".split()
)
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def check_package(name: str) -> str:
    """Returns the name of a package.

    Raises:
      UsageError: Java or Android refuses it.
    """
    parts = name.split(".")
    problem = None
    if len(parts) < 2:
        problem = "Android takes packages of two parts and more"
    for part in parts:
        if not _IDENTIFIER.fullmatch(part):
            problem = problem or f"{part!r} is not made of letters of ASCII, digits and _, beginning with a letter"
        elif part in KEYWORDS:
            problem = problem or f"{part!r} is a keyword"
    if problem:
        raise errors.UsageError(
            f"The package {name!r} is refused: {problem}.", next_step="For example: --package com.example.digits"
        )
    return name


def check_class(name: str) -> str:
    """Returns the name of a service's class.

    Raises:
      UsageError: Java refuses it, or the generated sources need it for something else.
    """
    problem = None
    if not _IDENTIFIER.fullmatch(name):
        problem = "it is not made of letters of ASCII, digits and _, beginning with a letter"
    elif name in KEYWORDS or name in _NO_TYPES:
        problem = "it is a keyword"
    else:
        taken = [f"{name}{suffix}" for suffix in _MADE_CLASSES if f"{name}{suffix}" in _TAKEN_CLASSES]
        if taken:
            problem = f"a class that the service needs is called {taken[0]}"
    if problem:
        raise errors.UsageError(
            f"The service {name!r} is refused: {problem}.", next_step="For example: --service DigitsService"
        )
    return name


def check_resource(name: str) -> str:
    """Returns the name of an XML resource, without its suffix.

    Raises:
      UsageError: Android refuses it.
    """
    if not _RESOURCE.fullmatch(name) or name in KEYWORDS:
        raise errors.UsageError(
            f"The settings cannot be called {name!r}: resources are named by letters, digits and _.",
            next_step="For example: --settings_name odp_settings",
        )
    return name


def parameter_names(texts: Iterable[str]) -> dict[str, str]:
    """Text -> the name of a parameter, all different: the text itself where Java and Kotlin take it."""
    names: dict[str, str] = {}
    for position, text in enumerate(texts, 1):
        name = re.sub(r"[^A-Za-z0-9_]+", "_", text)
        if not re.search("[A-Za-z]", name) or name.strip("_") == "":
            name = f"feature{position}"
        elif name[0].isdigit():
            name = f"feature_{name}"
        while name in KEYWORDS or name in _TAKEN_METHODS or name in names.values():
            name += "_"
        names[text] = name
    return names


def method_names(texts: Iterable[str]) -> dict[str, str]:
    """Text -> the name of a method in camel case, all different."""
    names: dict[str, str] = {}
    for position, text in enumerate(texts, 1):
        words = re.findall("[A-Za-z0-9]+", text)
        name = (
            "".join([words[0][:1].lower() + words[0][1:], *(word[:1].upper() + word[1:] for word in words[1:])])
            if words
            else ""
        )
        if not re.search("[A-Za-z]", name):
            name = f"population{position}"
        elif name[0].isdigit():
            name = f"population{name}"
        while name in KEYWORDS or name in _TAKEN_METHODS or name.lower() in (taken.lower() for taken in names.values()):
            name += "_"
        names[text] = name
    return names


def constant_name(method: str) -> str:
    """POPULATION_NAME for populationName; methods that differ have constants that differ."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", method).upper()
