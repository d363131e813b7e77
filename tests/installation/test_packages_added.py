"""`odp-task setup`, in environments of its own and with wheels that are made here: nothing is downloaded."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITE = pathlib.Path("lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
# Of a native program, as the loader of Linux knows it.
WORKER = b"\x7fELF" + bytes(1000)

RUN = """
import json, pathlib, sys
from odp_taskbuilder import errors
from odp_taskbuilder.installation import has_tff_runtime, packages, support
from odp_taskbuilder.installation.setup import set_up
{before}
listed = packages.listed_packages(pathlib.Path({listed!r}))
try:
    done = set_up(with_tff_runtime={with_tff_runtime}, packages=listed)
except errors.OdpTaskError as error:
    print(json.dumps({{"error": type(error).__name__, "message": str(error)}}))
else:
    faults = [fault for fault in map(packages.fault, listed) if fault]
    print(json.dumps({{"done": done, "runtime": has_tff_runtime(), "faults": faults}}))
"""


def make_wheel(folder: pathlib.Path, name: str, version: str, tag: str, files: dict[str, bytes]) -> dict:
    """Writes a wheel; returns its entry in a list of packages."""
    base = f"{name.replace('-', '_')}-{version}"
    files = {
        **files,
        f"{base}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: never-published\n".encode(),
        f"{base}.dist-info/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},{len(content)}\n"
        for path, content in files.items()
    )
    wheel = folder / f"{base}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, f"{base}.dist-info/RECORD": f"{record}{base}.dist-info/RECORD,,\n".encode()}.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (0o100755 if path.endswith("worker_binary") else 0o100644) << 16
            archive.writestr(entry, content)
    return {"version": version, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(), "bytes": wheel.stat().st_size}


class Environment:
    """A virtual environment without packages, an index that is a directory, and what is to be set up from it."""

    def __init__(self, folder: pathlib.Path, installer: str):
        self.prefix, self.index, self._list = folder / "venv", folder / "index", folder / "packages.json"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.prefix], check=True)
        self.site = self.prefix / SITE
        if installer == "pip":
            (self.site / "pip").symlink_to(importlib.util.find_spec("pip").submodule_search_locations[0])
        self.index.mkdir()
        privacy = {"tensorflow_privacy/__init__.py": b"one = 1\n"}
        tff = {
            "tensorflow_federated/__init__.py": b"",
            "tensorflow_federated/core.py": b"two = 2\n",
            "tensorflow_federated/data/worker_binary": WORKER,
        }
        self.entries = {
            "tensorflow-privacy": make_wheel(self.index, "tensorflow-privacy", "0.9.0", "py3-none-any", privacy),
            "tensorflow-federated": make_wheel(self.index, "tensorflow-federated", "0.87.0", "py3-none-manylinux_2_31_x86_64", tff),
        }
        path = [str(pathlib.Path(shutil.which("uv")).parent)] if installer == "uv" else []
        self._environment = {
            "PATH": os.pathsep.join([*path, "/usr/bin", "/bin"]),
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT / "src"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "UV_NO_CONFIG": "1",
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": str(self.index),
        }

    def set_up(self, *, with_tff_runtime: bool = False, before: str = "") -> dict:
        self._list.write_text(json.dumps(self.entries))
        program = RUN.format(listed=str(self._list), with_tff_runtime=with_tff_runtime, before=before)
        process = subprocess.run([self.prefix / "bin" / "python", "-c", program], env=self._environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    @property
    def worker(self) -> pathlib.Path:
        return self.site / "tensorflow_federated" / "data" / "worker_binary"


@pytest.fixture(params=["pip", "uv"])
def environment(request, tmp_path):
    if request.param == "uv" and shutil.which("uv") is None:
        pytest.skip("uv is not on PATH")
    return Environment(tmp_path, request.param)


needs_worker_platform = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="TFF's own runtime is published for Linux on x86-64 only"
)


def test_setup_leaves_an_honest_placeholder_for_the_worker_and_a_second_one_does_nothing(environment):
    assert environment.set_up() == {"done": ["tensorflow-privacy", "tensorflow-federated"], "runtime": False, "faults": []}
    assert (environment.site / "tensorflow_federated" / "core.py").read_bytes() == b"two = 2\n"
    process = subprocess.run([environment.worker], capture_output=True, text=True)
    assert process.returncode == 2
    assert "odp-task setup --with_tff_runtime" in process.stderr
    # As any other package, for whoever lists or removes it.
    (info,) = environment.site.glob("tensorflow_federated-*.dist-info")
    assert "Tag: py3-none-any" in (info / "WHEEL").read_text()
    assert environment.set_up()["done"] == []


@needs_worker_platform
def test_the_worker_comes_on_request_and_stays(environment):
    environment.set_up()
    assert environment.set_up(with_tff_runtime=True) == {"done": ["tensorflow-federated"], "runtime": True, "faults": []}
    assert environment.worker.read_bytes() == WORKER
    (environment.site / "tensorflow_federated" / "core.py").unlink()
    assert environment.set_up() == {"done": ["tensorflow-federated"], "runtime": True, "faults": []}


def test_a_wheel_with_another_hash_is_refused_and_nothing_of_it_installed(environment):
    environment.entries["tensorflow-federated"]["sha256"] = "0" * 64
    answer = environment.set_up()
    assert answer["error"] == "StorageError"
    assert "hash" in answer["message"].lower()
    assert not list(environment.site.glob("tensorflow_federated*"))


def _become_another_release(info: pathlib.Path) -> None:
    metadata = info / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 0.87.0", "Version: 0.86.0"))
    record = info / "RECORD"
    record.write_text(record.read_text().replace("-0.87.0.dist-info", "-0.86.0.dist-info"))
    info.rename(info.with_name("tensorflow_federated-0.86.0.dist-info"))


def test_whatever_an_interrupted_setup_left_is_repaired(environment, request):
    environment.set_up()
    package, (info,) = environment.site / "tensorflow_federated", environment.site.glob("tensorflow_federated-*.dist-info")
    damages = {
        "files without metadata": lambda: shutil.rmtree(info),
        "metadata without a record": lambda: (info / "RECORD").unlink(),
        "an empty record": lambda: (info / "RECORD").write_text(""),
        "no metadata but a directory": lambda: [path.unlink() for path in info.iterdir()],
        "a record of a file that is missing": lambda: (package / "core.py").unlink(),
        "a file that is cut": lambda: (package / "core.py").write_text("tw"),
        "another release": lambda: _become_another_release(info),
    }
    if not request.config.getoption("--full"):
        damages = {name: damage for name, damage in damages.items() if name in ("files without metadata", "metadata without a record")}
    for name, damage in damages.items():
        damage()
        assert environment.set_up() == {"done": ["tensorflow-federated"], "runtime": False, "faults": []}, name
        assert (package / "core.py").read_bytes() == b"two = 2\n"
        (info,) = environment.site.glob("tensorflow_federated-*.dist-info")


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ("sys.platform = 'win32'", "WSL"),
        ("sys.platform = 'freebsd14'", "runs on Linux"),
        ("sys.version_info = (3, 12, 1)", "needs Python 3.9, 3.10 or 3.11"),
        ("support.platform.machine = lambda: 'riscv64'", "riscv64"),
        ("sys.platform = 'darwin'; support.platform.machine = lambda: 'x86_64'", "Apple silicon"),
        ("sys.platform = 'linux'; support.os.confstr = lambda name: (_ for _ in ()).throw(ValueError(name))", "musl"),
        ("sys.platform = 'linux'; support.os.confstr = lambda name: 'glibc 2.17'", "glibc 2.17"),
    ],
)
def test_an_unsupported_machine_is_told_in_a_sentence_before_anything_is_downloaded(tmp_path, before, sentence):
    environment = Environment(tmp_path, "pip")
    shutil.rmtree(environment.index)  # Whoever looked there would fail.
    answer = environment.set_up(before=f"support.platform.machine = lambda: 'x86_64'; {before}")
    assert answer["error"] == "UsageError"
    assert sentence in answer["message"] and "\n" not in answer["message"]


def test_without_pip_and_uv_the_way_to_one_is_named(tmp_path):
    environment = Environment(tmp_path, "none")
    answer = environment.set_up()
    assert answer["error"] == "UsageError"
    assert "-m ensurepip" in answer["message"]
