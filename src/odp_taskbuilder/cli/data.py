"""`odp-task data`: client data made from a dataset, and described."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Optional

import click

from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES
from odp_taskbuilder.cli import options, output
from odp_taskbuilder.data.describe import DataDescription, describe
from odp_taskbuilder.data.open import open_client_data
from odp_taskbuilder.data.partitioned_dataset import STRATEGIES, partition_dataset


@click.group()
def command() -> None:
    """Make and describe the data of simulated clients.

    Commands that read client data take PATH[?OPTION=VALUE&...]. PATH is a directory of TFRecord files, one a client; a
    SQLite database (also .lzma) or HDF5 file of TFF; or a .csv, .tsv or Parquet table. Features are mapped by NAME[:KIND]=COLUMN[,COLUMN...].

    \b
      clients/train
      'emnist_all.sqlite.lzma?split=digits_only_train&x=pixels&y=label'
      'users.csv?client=user&x:float32=pixel_*&y=label'
      'synthetic?clients=100&examples=10&classes=10&seed=0'     what fits the plan (simulate)
    """


@command.command("partition")
@click.argument("source")
@click.option(
    "--output",
    "output_dir",
    required=True,
    type=click.Path(path_type=pathlib.Path),
    help="Directory to make.",
)
@click.option(
    "--strategy", type=click.Choice(STRATEGIES), default="iid", show_default=True, help="How examples are dealt to clients."
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

    SOURCE is `digits` (ships with scikit-learn: x float32[64], y int64[1]), a .csv, .tsv or Parquet table, a TFRecord file
    or a directory of them. Behind a question mark features may be mapped: NAME[:KIND]=COLUMN[,COLUMN...], joined by &.

    \b
      odp-task data partition digits --output clients --clients 50 --strategy dirichlet --test_fraction 0.2
      odp-task data partition 'users.csv?x:float32=pixel_*&y=label' --output clients --strategy column --column user
    """
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
    )
    if json_mode:
        output.print_json([dataclasses.asdict(description) for description in parts.values()])
        return
    output.show("\n\n".join(_text(description) for description in parts.values()))


@command.command("describe")
@click.argument("data")
@click.option("--label", default="y", show_default=True, help="Feature that is the label.")
@options.json_option
def describe_command(data: str, label: str, json_mode: bool) -> None:
    """Count clients and examples, list the features, and measure how far the clients' label distributions are apart.

    DATA is a directory of TFRecord files, a SQLite database (also .lzma) or HDF5 file of TFF, or a table with ?client=COLUMN.

    \b
      odp-task data describe clients/train
      odp-task data describe 'emnist_all.sqlite.lzma?split=digits_only_train' --label label
    """
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
