"""A model that the scan refuses is loaded by no command, however it is asked for. The service's side: server/test_serve_real_build.py."""

import pytest
import refused_models
from test_build import EXAMPLE, run

_COMMANDS = {
    "scan": lambda model: ("scan", model),
    "build": lambda model: ("build", "--saved_model", model, "--task_config", EXAMPLE / "train.pbtxt"),
    "build in a sandbox": lambda model: ("build", "--sandbox", "--saved_model", model, "--task_config", EXAMPLE / "train.pbtxt"),
    "artifact-only build": lambda model: (
        *("build", "--build_artifact_only=true", "--skip_flex_ops_check=True", "--saved_model", model),
        *("--task_config", EXAMPLE / "train.pbtxt"),
    ),
    "ops": lambda model: ("ops", "--saved_model", model, "--task_config", EXAMPLE / "train.pbtxt"),
}


@pytest.mark.parametrize("command", _COMMANDS)
@pytest.mark.parametrize("op", refused_models.ADDITIONS)
def test_a_refused_model_is_refused_by_every_command(tmp_path, command, op):
    model = refused_models.save(tmp_path / "model", op, tmp_path / "canary")
    process = run(*_COMMANDS[command](model), cwd=tmp_path)
    assert process.returncode == 4, process.stderr
    assert op in process.stdout + process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
