"""`odp-task new`."""

from __future__ import annotations

import pathlib
import shlex

import click

from odp_taskbuilder.cli import commands, output
from odp_taskbuilder.installation.examples import EXAMPLES, write_example

# Client data for the digits are dealt from scikit-learn's; the images of EMNIST do not come along.
_NEXT = {
    "digits": """\
odp-task build --saved_model {model} --task_config {directory}/try_out.pbtxt --output {directory}/odp_artifacts
odp-task data partition digits --output {directory}/clients --clients 50 --strategy dirichlet --alpha 10 --test_fraction 0.2
odp-task simulate {directory}/odp_artifacts/digits --data {directory}/clients/train --evaluation_data {directory}/clients/test \
--rounds 30 --clients_per_round 10 --run_dir {directory}/run
odp-task metrics {directory}/run --plot {directory}/metrics.png""",
    "emnist_cnn": """\
odp-task build --saved_model {model} --task_config {directory}/train.pbtxt --output {directory}/odp_artifacts
odp-task ops {directory}/odp_artifacts/emnist_cnn
odp-task verify {directory}/odp_artifacts/emnist_cnn --run""",
}


@commands.command()
@click.argument("example", type=click.Choice(EXAMPLES))
@click.argument("directory", type=click.Path(path_type=pathlib.Path))
def command(example: str, directory: pathlib.Path) -> None:
    """Write an example that builds as it stands into DIRECTORY: a model, its task config, the program that made the model.

    \b
      odp-task new digits first_task
      odp-task new emnist_cnn second_task

    digits is a small network on 8 x 8 pixels, with client data to simulate on. emnist_cnn is the convolutional network that guides
    on federated learning use; its model is made by its program, which takes TensorFlow's half minute. Prints the next commands.
    """
    written = write_example(example, directory, stage=output.every_stage)
    output.note(f"Wrote {', '.join(map(str, written))} to {directory}. Next:")
    place = shlex.quote(str(directory))
    output.show(_NEXT[example].format(directory=place, model=shlex.quote(str(directory / "saved_model"))))
