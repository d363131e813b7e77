"""`odp-task serve` as a command: options, and the name that the published guide gives it."""

import json
import pathlib
import signal
import socket
import subprocess
import sys

import pytest


def _start(*args, entry="main"):
    command = [sys.executable, "-c", f"from odp_taskbuilder.cli.main import {entry}; {entry}()", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("entry", "args"), [("main", ["serve"]), ("task_builder", [])])
def test_it_listens_says_so_and_ends_with_sigterm(entry, args):
    process = _start(*args, "--port", "0", "--accept_weaker_sandbox", entry=entry)
    listening = json.loads(process.stderr.readline())
    assert (listening["event"], listening["host"]) == ("listening", "127.0.0.1")
    with socket.create_connection(("127.0.0.1", listening["port"]), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.0 200 OK")
    protections = json.loads(process.stderr.readline())
    assert protections["event"] == "sandbox"
    assert isinstance(protections["missing"], list)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "")
    assert "Traceback" not in err


def test_a_machine_whose_sandbox_is_weaker_is_refused_unless_that_is_accepted():
    weaker = [sys.executable, str(pathlib.Path(__file__).parents[1] / "weaker_kernel.py"), "namespaces,library"]
    command = [*weaker, sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "serve", "--port", "0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "NOT PREVENTED: sending of datagrams (UDP) (a network namespace, which this kernel refuses; " in refused.stderr
    assert "--accept_weaker_sandbox" in refused.stderr
    assert "listening" not in refused.stderr
    process = subprocess.Popen([*command, "--accept_weaker_sandbox"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert json.loads(process.stderr.readline())["event"] == "listening"
    missing = json.loads(process.stderr.readline())["missing"]
    assert any("datagrams" in text for text in missing)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_defaults():
    process = subprocess.run(
        [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "serve", "--help"],
        capture_output=True,
        text=True,
    )
    assert "[default: 127.0.0.1]" in process.stdout
    assert "[default: 5000" in process.stdout


def test_an_address_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = _start("serve", "--port", str(taken.getsockname()[1]))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 7
    assert "Cannot listen on 127.0.0.1 port" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--allow_read", "s3://bucket"], 7, "Not a usable URL"),
        (["--token_file", "/dev/null"], 2, "no token"),
        (["--token_file", "/none"], 2, "does not exist"),
        (["--workers", "0"], 2, "workers"),
        (["--host", "0.0.0.0"], 2, "--token_file"),
        (["--work_dir", "/proc"], 7, "Cannot use the work directory /proc"),
        (["--task_management_server", "undefined"], 2, "--task_management_server 'undefined' is not the URL of a server"),
        (["--allow_read", "/none"], 2, "--allow_read /none"),
    ],
)
def test_options_that_do_not_work(args, code, text):
    process = _start("serve", "--port", "0", *args)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert text in err
    assert "Traceback" not in err
