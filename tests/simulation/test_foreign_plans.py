"""Plans of strangers run with the rights of a sandbox: whatever they hold, nothing is written, read or sent outside of it."""

import contextlib
import os
import pathlib
import pickle
import shutil
import socket
import stat
import struct
import subprocess
import sys

import pytest

import odp_taskbuilder.proto  # noqa: F401 - lets TensorFlow's protos be imported without TensorFlow.
from odp_taskbuilder import errors
from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.simulation.processes import ChildProcesses

from tensorflow.core.framework import graph_pb2, types_pb2  # isort: skip

_TESTS = pathlib.Path(__file__).resolve().parents[1]


def _string(graph, name, *values, shape=()):
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = types_pb2.DT_STRING
    tensor = node.attr["value"].tensor
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.string_val.extend(value.encode() for value in values)
    return name


def _write_file(graph, canary):
    node = graph.node.add(name="x_act", op="WriteFile")
    node.input.extend([_string(graph, "x_name", f"{canary}/written"), _string(graph, "x_content", "content")])


def _save(graph, canary):
    node = graph.node.add(name="x_act", op="SaveV2")
    names = [_string(graph, "x_names", "a", shape=(1,)), _string(graph, "x_slices", "", shape=(1,))]
    node.input.extend([_string(graph, "x_prefix", f"{canary}/saved"), *names, _string(graph, "x_content", "content")])
    node.attr["dtypes"].list.type.append(types_pb2.DT_STRING)


def _print(graph, canary):
    node = graph.node.add(name="x_act", op="PrintV2")
    node.input.append(_string(graph, "x_content", "content"))
    node.attr["output_stream"].s = f"file://{canary}/printed".encode()
    node.attr["end"].s = b"\n"


def _read_file(graph, canary):
    node = graph.node.add(name="x_act", op="ReadFile")
    node.input.append(_string(graph, "x_name", f"{canary}/secret"))


def _evil(artifacts, out, canary, act):
    """A copy of artifacts whose server graphs do something before everything else; without a manifest, as a stranger's."""
    shutil.copytree(artifacts, out)
    (out / "manifest.json").unlink()
    plan = plan_pb2.Plan.FromString((out / "plan.pb").read_bytes())
    graph = graph_pb2.GraphDef()
    assert plan.server_graph_bytes.Unpack(graph)
    waiting = [node for node in graph.node if node.op not in ("Placeholder", "Const")]
    act(graph, canary)
    for node in waiting:
        node.input.append("^x_act")
    plan.server_graph_bytes.Pack(graph)
    (out / "plan.pb").write_bytes(plan.SerializeToString())
    return out


@pytest.fixture
def canary(tmp_path):
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    yield folder
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("secret", "secret")]


# A write to the terminal's file fails in silence; all others end the run with what the kernel said.
@pytest.mark.parametrize(
    "act, engine, said",
    [
        (_write_file, "local", "Read-only file system|Permission denied"),
        (_save, "local", "Read-only file system|Permission denied"),
        (_read_file, "local", "Permission denied|Operation not permitted|Read-only"),
        (_print, "local", None),
    ],
)
def test_a_server_plan_reaches_nothing_outside(run, tasks, tmp_path, canary, act, engine, said):
    artifacts = _evil(tasks / "plain" / "digits", tmp_path / "evil", canary, act)
    if said is None:
        try:
            run(artifacts=artifacts, rounds=1, engine=engine)
        except errors.OdpTaskError as error:
            assert "server graph failed" in str(error)
        return
    with pytest.raises(errors.ArtifactError, match=said):
        run(artifacts=artifacts, rounds=1, engine=engine)


@pytest.mark.full
def test_a_server_plan_reaches_nothing_outside_on_a_ray_cluster(run, tasks, tmp_path, canary):
    pytest.importorskip("ray")
    with pytest.raises(errors.ArtifactError, match="Read-only file system|Permission denied"):
        run(artifacts=_evil(tasks / "plain" / "digits", tmp_path / "evil", canary, _write_file), rounds=1, engine="ray")


def test_without_namespaces_the_other_protections_hold_and_the_rest_is_said(tasks, tmp_path, canary):
    artifacts = _evil(tasks / "plain" / "digits", tmp_path / "evil", canary, _write_file)
    main = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()"]
    options = ["--data", "synthetic", "--rounds", "1", "--clients_per_round", "10"]
    weaker = [sys.executable, str(_TESTS / "weaker_kernel.py"), "namespaces"]
    good = subprocess.run([*weaker, *main, "simulate", str(tasks / "plain" / "digits"), *options], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert "in a sandbox without namespaces (this kernel refuses them), read-only mounts" in good.stderr
    evil = subprocess.run([*weaker, *main, "simulate", str(artifacts), *options], capture_output=True, text=True)
    assert evil.returncode == 9, evil.stderr
    assert "Permission denied" in evil.stderr


class _Touching:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self._path,)


class _Misbehaving:
    """Tries what it is told."""

    def __init__(self, position):
        pass

    def __call__(self, job):
        kind, argument = job
        if kind == "write":
            pathlib.Path(argument).write_text("content")
        elif kind == "read":
            return {"length": len(pathlib.Path(argument).read_text())}
        elif kind == "mode":
            pathlib.Path(argument).chmod(0)
        elif kind == "connect":
            socket.create_connection(("127.0.0.1", argument), timeout=5)
        elif kind == "descriptors":
            found = {}
            for fd in range(1024):
                with contextlib.suppress(OSError):
                    found[str(fd)] = stat.S_IFMT(os.fstat(fd).st_mode)
            return found
        elif kind == "pickle":
            content = pickle.dumps(_Touching(pathlib.Path(argument)))
            for fd in range(3, 64):
                # As multiprocessing frames what it sends; the connection is a socket, what belongs to the forkserver are pipes.
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        os.write(fd, struct.pack("!i", len(content)) + content)
        return None


@pytest.mark.parametrize("kind", ["write", "read", "mode", "connect"])
def test_a_confined_worker_reaches_nothing_but_what_it_is_given(tmp_path, canary, kind):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argument = listener.getsockname()[1] if kind == "connect" else str(canary / ("secret" if kind != "write" else "written"))
        with ChildProcesses("test", _Misbehaving, 1, scratch, readable=[]) as children:
            with pytest.raises(errors.StorageError, match="Permission denied|Read-only|refused|not permitted|not implemented"):
                children.run([(kind, argument)])
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_confined_worker_reads_what_it_is_given_and_writes_into_its_directory(tmp_path, canary):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with ChildProcesses("test", _Misbehaving, 1, scratch, readable=[str(canary)]) as children:
        assert children.run([("read", str(canary / "secret")), ("write", str(scratch / "written"))]) == [{"length": 6}, None]
    assert (scratch / "written").read_text() == "content"


def test_a_confined_worker_inherits_its_connection_and_the_sign_of_its_parents_end_only(tmp_path):
    """The forkserver and the resource tracker do what their pipes say."""
    with ChildProcesses("test", _Misbehaving, 1, tmp_path, readable=[]) as children:
        (found,) = children.run([("descriptors", None)])
    others = {fd: kind for fd, kind in found.items() if int(fd) > 2}
    assert sorted(others.values()) == [stat.S_IFIFO, stat.S_IFSOCK]
    assert set(found) - set(others) == {"0", "1", "2"}


def test_what_a_confined_worker_sends_is_no_program(tmp_path):
    """A pickle would run what its writer wants, with the rights of whoever reads it."""
    target = tmp_path / "touched"
    assert pickle.loads(pickle.dumps(_Touching(tmp_path / "proof"))) is None and (tmp_path / "proof").exists()
    with ChildProcesses("test", _Misbehaving, 1, tmp_path, readable=[]) as children:
        with pytest.raises(errors.OdpTaskError, match="died 3 times"):
            children.run([("pickle", str(target))])
    assert not target.exists()
