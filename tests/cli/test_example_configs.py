"""Examples in configs/ whose model is made by a program."""

import pathlib
import re
import subprocess
import sys

from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")


def test_the_emnist_cnn_of_the_published_guides_builds_without_options_for_the_oldest_module(tmp_path):
    example = ROOT / "configs" / "emnist_cnn"
    subprocess.run([sys.executable, example / "make_model.py", tmp_path / "model"], check=True, stderr=subprocess.DEVNULL)
    command = [ODP_TASK, "build", "--saved_model", tmp_path / "model", "--task_config", example / "train.pbtxt"]
    built = subprocess.run([*command, "--output", tmp_path], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for prefix in ("", "eval_"):
        task = (tmp_path / "emnist_cnn" / f"{prefix}task.pbtxt").read_text()
        assert re.search('min_client_version: "(.*)"', task).group(1) == "341812000"
    with open_checkpoint(tmp_path / "emnist_cnn" / "initial_state.server.ckp") as checkpoint:
        sizes = {tensor.name: tensor.size for tensor in checkpoint.tensors if "trainable" in tensor.name}
    assert sum(sizes.values()) == 1_663_370, sizes
