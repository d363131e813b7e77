"""The EMNIST CNN of configs/emnist_cnn learns real digits from its emitted plans: those of scikit-learn, enlarged to 28 x 28 pixels."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from odp_taskbuilder import ResolveOptions, build
from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.data import examples, tfrecord
from odp_taskbuilder.model.load import load_model
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.simulate import SimulationOptions, simulate

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIENTS, CLIENTS_PER_ROUND, ROUNDS, TRAINING_EXAMPLES = 20, 5, 15, 1500

CONFIG = """
mode: TRAINING_ONLY
population_name: "digits"
policies {{
  dataset_policy {{ batch_size: 5 }}
  model_release_policy {{ num_max_training_rounds: {rounds} }}
  min_separation_policy {{ minimum_separation: 1 }}
  data_availability_policy {{ min_example_count: 1 }}
}}
federated_learning {{ learning_process {{ client_learning_rate: 0.15 runtime_config {{ report_goal: {clients} }} }} }}
differential_privacy {{ clip_norm: 1 }}
"""


def images_and_labels():
    digits = load_digits()
    images = np.pad(digits.images.repeat(3, 1).repeat(3, 2), [(0, 0), (2, 2), (2, 2)])[..., None] / 16
    return images.astype(np.float32), digits.target


@pytest.mark.full
def test_the_emnist_cnn_recognizes_nine_of_ten_digits_after_fifteen_rounds(tmp_path):
    images, labels = images_and_labels()
    (tmp_path / "clients").mkdir()
    for client in range(CLIENTS):
        rows = range(client, TRAINING_EXAMPLES, CLIENTS)
        features = [examples.encode({"x": images[row], "y": labels[row : row + 1]}) for row in rows]
        tfrecord.write_records(tmp_path / "clients" / f"client_{client}.tfrecord", features)
    make_model = ROOT / "configs" / "emnist_cnn" / "make_model.py"
    subprocess.run([sys.executable, make_model, tmp_path / "model"], check=True, stderr=subprocess.DEVNULL)
    config = tmp_path / "config.pbtxt"
    config.write_text(CONFIG.format(rounds=ROUNDS, clients=CLIENTS_PER_ROUND))
    options = BuildOptions(resolve=ResolveOptions(skip_dp_aggregator=True, skip_dp_check=True))
    build(tmp_path / "model", config, tmp_path / "artifacts", options)
    options = SimulationOptions(
        data=str(tmp_path / "clients"),
        rounds=RoundOptions(rounds=ROUNDS, clients_per_round=CLIENTS_PER_ROUND),
        run_directory=tmp_path / "run",
    )
    simulate(tmp_path / "artifacts" / "digits", options)
    accuracy = _accuracy(tmp_path, images[TRAINING_EXAMPLES:], labels[TRAINING_EXAMPLES:])
    assert accuracy >= 0.9


def _accuracy(directory: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> float:
    """On digits that no client has, with the weights of the last checkpoint."""
    model = load_model(directory / "model")
    with open_checkpoint(directory / f"run/digits/1/{ROUNDS}/s/0/checkpoint") as opened:
        prefix = "server/global_model_weights/trainable/"
        weights = tuple(opened.read(f"{prefix}{index}") for index in range(len(model.trainable)))
    outputs = model.forward.inference(model_weights=(tuple(map(tf.constant, weights)), ()), x=tf.constant(images), training=False)
    return float(np.mean(np.argmax(tf.nest.flatten(outputs)[0].numpy(), -1) == labels))
