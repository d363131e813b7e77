"""The class that makes examples from typed values: one method for each population."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from odp_taskbuilder import errors
from odp_taskbuilder.android import names, source_text
from odp_taskbuilder.artifacts.example_format import ExampleFeature, ExampleFormat

# A method of the JVM takes so many words, of which a long is two.
_MAX_PARAMETER_WORDS = 255
_JAVA_TYPES = {"float32": "float", "int64": "long", "string": "byte[]"}
_KOTLIN_TYPES = {
    "float32": ("Float", "FloatArray"),
    "int64": ("Long", "LongArray"),
    "string": ("ByteArray", "Array<ByteArray>"),
}
_FUNCTIONS = {"float32": "floats", "int64": "integers", "string": "strings"}


def constants(populations: Sequence[ExampleFormat], kotlin: bool) -> str:
    """The names of the populations."""
    return "\n".join(
        f"    const val {constant} = {source_text.kotlin_string(population)}"
        if kotlin
        else f"    public static final String {constant} = {source_text.java_string(population)};"
        for population, constant in population_constants(populations).items()
    )


def population_constants(populations: Sequence[ExampleFormat]) -> dict[str, str]:
    """Name of a population -> the constant that holds it."""
    methods = names.method_names(each.population_name for each in populations)
    return {population: f"{names.constant_name(method)}_POPULATION" for population, method in methods.items()}


def methods(populations: Sequence[ExampleFormat], kotlin: bool) -> str:
    """One method a population.

    Raises:
      UsageError: a task has more features than a method has parameters.
    """
    made = names.method_names(each.population_name for each in populations)
    method = _kotlin_method if kotlin else _java_method
    return "\n\n".join(method(made[each.population_name], each) for each in populations)


def signature(example_format: ExampleFormat) -> dict[ExampleFeature, str]:
    """Feature -> the name of its parameter.

    Raises:
      UsageError: the task has more features than a method has parameters.
    """
    words = sum(2 if _is_scalar(feature) and feature.kind == "int64" else 1 for feature in example_format.features)
    if words > _MAX_PARAMETER_WORDS:
        raise errors.UsageError(
            f"{example_format.source} has {len(example_format.features)} features; a method of Java takes {_MAX_PARAMETER_WORDS} words of "
            "parameters, of which a long is two.",
            next_step="Join features of one kind to one with a dimension in the model's input_spec.",
        )
    parameters = names.parameter_names(feature.name for feature in example_format.features)
    return {feature: parameters[feature.name] for feature in example_format.features}


def _is_scalar(feature: ExampleFeature) -> bool:
    return feature.size == 1


def _in_wire_order(parameters: dict[ExampleFeature, str]) -> list[ExampleFeature]:
    """The order of tf.train.Example's deterministic serialization in Python: names by their bytes, but a name behind all that begin with it.
    Phones take any order; this one makes bytes comparable with those of `odp-task data encode`."""
    # The last byte is none of UTF-8, and sorts behind all that are.
    return sorted(parameters, key=lambda feature: feature.name.encode() + b"\xff")


def _description(feature: ExampleFeature) -> str:
    count = "" if _is_scalar(feature) else f"{feature.size} values: "
    return f"{count}feature {source_text.comment(str(feature))}"


def _comment(example_format: ExampleFormat, parameters: dict[ExampleFeature, str]) -> Iterator[str]:
    yield "    /**"
    yield f"     * An example of the population {source_text.comment(example_format.population_name)}."
    yield "     *"
    for feature, name in parameters.items():
        yield f"     * @param {name} {_description(feature)}"
    yield "     * @throws IllegalArgumentException an array has another length, or the example is larger than phones take"
    yield "     */"


def _java_method(method: str, example_format: ExampleFormat) -> str:
    parameters = signature(example_format)
    lines = [
        *_comment(example_format, parameters),
        f"    public static byte[] {method}(",
        ",\n".join(
            f"            {_JAVA_TYPES[feature.kind]}{'' if _is_scalar(feature) else '[]'} {name}"
            for feature, name in parameters.items()
        )
        + ") {",
        "        return example(",
        ",\n".join(f"                {_java_entry(feature, parameters[feature])}" for feature in _in_wire_order(parameters))
        + ");",
        "    }",
    ]
    return "\n".join(lines)


def _java_entry(feature: ExampleFeature, parameter: str) -> str:
    name = source_text.java_string(feature.name)
    return f"entry({name}, {_FUNCTIONS[feature.kind]}({name}, {feature.size}, {parameter}))"


def _kotlin_method(method: str, example_format: ExampleFormat) -> str:
    parameters = signature(example_format)
    # No comma behind the last: Kotlin takes one only since 1.4.
    lines = [
        *_comment(example_format, parameters),
        f"    fun {method}(",
        ",\n".join(
            f"        {name}: {_KOTLIN_TYPES[feature.kind][0 if _is_scalar(feature) else 1]}"
            for feature, name in parameters.items()
        ),
        "    ): ByteArray =",
        "        example(",
        ",\n".join(f"            {_kotlin_entry(feature, parameters[feature])}" for feature in _in_wire_order(parameters)),
        "        )",
    ]
    return "\n".join(lines)


def _kotlin_entry(feature: ExampleFeature, parameter: str) -> str:
    name = source_text.kotlin_string(feature.name)
    spread = "" if _is_scalar(feature) else "*"
    return f"entry({name}, {_FUNCTIONS[feature.kind]}({name}, {feature.size}, {spread}{parameter}))"
