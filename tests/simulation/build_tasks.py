"""Builds the tasks that simulations are tested with: `python build_tasks.py DIRECTORY`.

A process of its own, so that the tests stay free of TensorFlow; it loads it once for all tasks.
"""

import pathlib
import shutil
import sys

from odp_taskbuilder import build
from odp_taskbuilder.artifacts import artifact_set, manifest
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.spec import ResolveOptions

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "digits"
MODEL = CONFIGS / "saved_model"


def main(directory: pathlib.Path) -> None:
    config = (CONFIGS / "try_out.pbtxt").read_text()
    # Noise is calibrated in configs/; here it is configured, which takes no time.
    noisy = config.replace("clip_norm: 0.5", "clip_norm: 0.5 noise_multiplier: 0.5")
    # An evaluation round of two clients after every training round.
    small = noisy.replace("report_goal: 40", "report_goal: 2").replace("evaluation_traffic: 0.5", "evaluation_traffic: 0.167")
    for name, text, skip_dp_aggregator in (
        ("plain", small, True),
        ("plain_daf", f"{small}use_daf: true\n", True),
        ("private", noisy, False),
    ):
        path = directory / f"{name}.pbtxt"
        path.write_text(text)
        options = build.BuildOptions(resolve=ResolveOptions(skip_dp_aggregator=skip_dp_aggregator))
        build.build(MODEL, path, directory / name, options)
    # Of two of the four weights travel codes.
    compressed = Compression(update_bits=8, model_bits=7, above=100)
    options = build.BuildOptions(resolve=ResolveOptions(skip_dp_aggregator=True), compression=compressed)
    build.build(MODEL, directory / "plain.pbtxt", directory / "compressed", options)
    build.build(MODEL, directory / "plain_daf.pbtxt", directory / "compressed_daf", options)
    save_convolutional_model(directory / "convolutional_model")
    (directory / "convolutional.pbtxt").write_text(small)
    options = build.BuildOptions(resolve=ResolveOptions(skip_dp_aggregator=True))
    build.build(directory / "convolutional_model", directory / "convolutional.pbtxt", directory / "convolutional", options)
    # What only the Task says needs no other plan.
    vary(directory, "unconditional", "min_example_count: 1", "")
    vary(directory, "long", "total_iteration: 100", "total_iteration: 200")


def save_convolutional_model(path: pathlib.Path) -> None:
    """A model as people bring them: its gradients need TensorFlow ops that phones lack."""
    import tensorflow as tf
    import tensorflow_federated as tff

    tf.keras.utils.set_random_seed(8)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Reshape([8, 8, 1], input_shape=[64]),
            layers.Conv2D(8, 3, activation="elu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    spec = (tf.TensorSpec([None, 64], tf.float32), tf.TensorSpec([None, 1], tf.int64))
    functional = tff.learning.models.functional_model_from_keras(model, loss, input_spec=spec)
    tff.learning.models.save_functional_model(functional, str(path))


def vary(directory: pathlib.Path, name: str, old: str, new: str) -> None:
    """Copies `plain` with another Task."""
    shutil.copytree(directory / "plain", directory / name)
    task = directory / name / "digits" / "task.pbtxt"
    assert old in task.read_text()
    task.write_text(task.read_text().replace(old, new))
    former = manifest.read_manifest(task.parent)
    made = manifest.make_manifest(task.parent, form=former.form, inputs=former.inputs)
    (task.parent / artifact_set.MANIFEST).write_text(made.to_json())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
