"""The checked-in protobuf code is what the schemas say, and reads what the reference writes."""

import pathlib
import subprocess
import sys

from google.protobuf import text_format

from odp_taskbuilder.proto import plan_pb2, task_builder_pb2

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_generated_code_is_current(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts" / "generate-protos", tmp_path], check=True)
    generated = tmp_path / "odp_taskbuilder" / "proto"
    checked_in = ROOT / "src" / "odp_taskbuilder" / "proto"
    names = sorted(path.name for path in generated.iterdir())
    assert names == sorted(path.name for path in checked_in.glob("*_pb2.py*"))
    for name in names:
        assert (generated / name).read_text() == (checked_in / name).read_text(), f"{name}: run scripts/generate-protos"


def test_plan_protos_load_without_tensorflow():
    program = "import sys; from odp_taskbuilder.proto import plan_pb2; print('tensorflow' in sys.modules, plan_pb2.Plan(version=1).version)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split() == ["False", "1"]


def test_published_plans_have_no_unknown_fields(golden):
    for path in sorted(golden.glob("keras_dense/expected_*/*plan.pb")):
        kind = plan_pb2.ClientOnlyPlan if "client_only" in path.name else plan_pb2.Plan
        content = path.read_bytes()
        message = kind.FromString(content)
        known = kind()
        known.CopyFrom(message)
        known.DiscardUnknownFields()
        assert known == message, path
        assert len(known.SerializeToString()) == len(content), path


def test_published_configs_parse(golden):
    for path in sorted(golden.glob("keras_dense/*.pbtxt")):
        config = text_format.Parse(path.read_text(), task_builder_pb2.TaskConfig())
        assert config.population_name == "keras_example_int64_task_builder"
