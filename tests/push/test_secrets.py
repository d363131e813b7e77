"""P8: with a marker in every place where a secret can be, nothing that is printed, logged or written holds one."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fakes.faults import FAULTS, FaultPlan, FaultyServer, Reply, json_reply
from pushing import Cloud, save_artifacts
from serving_process import build_request, config, make_model, running_server

API_KEY, ACCESS_TOKEN, ID_TOKEN, SERVER_TOKEN = (
    "marker-api-key",
    "marker-access-token",
    "bWFya2Vy.eyJhIjoxfQ.aWQtdG9rZW4",
    "marker-server-token",
)
MARKERS = ("marker", ID_TOKEN, "PRIVATE KEY", "session1")

# Everything of every library is logged, tracebacks are shown, and the services of Google are on loopback.
_SCRIPT = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG)
from odp_taskbuilder.push import auth
auth._IAM_CREDENTIALS = os.environ["FAKE_GOOGLE"]
from odp_taskbuilder.transport import deadline
import functools
deadline.Network = functools.partial(deadline.Network, connect_timeout=2.0, retry_for=0.2, first_pause=0.001, longest_pause=0.01)
if sys.argv[1] == "ask":
    from odp_taskbuilder.proto import task_builder_pb2
    from odp_taskbuilder.server import builder_client
    from odp_taskbuilder import errors
    try:
        login = auth.Login(api_key=os.environ["API_KEY"])
        builder_client.request_build(sys.argv[2], task_builder_pb2.BuildTaskRequest(), login=login, network=deadline.Network(deadline=5))
    except errors.OdpTaskError:
        logging.exception("refused")
        raise
from odp_taskbuilder.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def google():
    """Google's token and IAM services."""

    def reply(method, path, headers, body):
        if path == "/token":
            return json_reply(200, {"access_token": ACCESS_TOKEN, "expires_in": 3600})
        return json_reply(200, {"token": ID_TOKEN}) if headers.get("Authorization") == f"Bearer {ACCESS_TOKEN}" else Reply(401)

    with FaultyServer(FaultPlan(), reply) as server:
        yield server


@pytest.fixture(scope="module")
def key_file(google, tmp_path_factory):
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "me@p.iam",
        "token_uri": f"{google.url}/token",
        "private_key": key.decode(),
    }
    path = tmp_path_factory.mktemp("keys") / "key.json"
    path.write_text(json.dumps({**account, "project_id": "p", "private_key_id": "marker-key-id", "client_id": "2"}))
    return path


def _run(google, key_file, storage_url, *args):
    environment = {
        **os.environ,
        "FAKE_GOOGLE": google.url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(key_file),
        "API_ENDPOINT_OVERRIDE": storage_url,
        "API_KEY": API_KEY,
        "ODP_TASK_TRACEBACK": "1",
        "GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google",
    }
    environment.pop("STORAGE_EMULATOR_HOST", None)
    return subprocess.run([sys.executable, "-c", _SCRIPT, *args], env=environment, capture_output=True, text=True, timeout=120)


def _assert_clean(text):
    for marker in MARKERS:
        position = text.find(marker)
        assert position < 0, text[max(0, position - 300) : position + 100]


_BY_DEFAULT = (None, "401", "corrupted_answer")


@pytest.mark.parametrize(
    "fault", [*_BY_DEFAULT, *(pytest.param(f, marks=pytest.mark.full) for f in FAULTS if f not in _BY_DEFAULT)]
)
def test_a_push_with_real_credentials(google, key_file, tmp_path, fault):
    cloud = Cloud()
    artifacts = save_artifacts(tmp_path / "digits", checkpoint_bytes=(8 << 20) + 5)
    with cloud.gcs.serve() as cloud.gcs_server, cloud.tasks.serve() as cloud.task_server:
        # The answer of the first chunk of the checkpoint: a session of a resumable upload is known by then.
        cloud.strike(FaultPlan(fault, 8 if fault else -1, persistent=True))
        options = ["--impersonate_service_account", "robot@p.iam.gserviceaccount.com", "--request_timeout", "1"]
        process = _run(
            google,
            key_file,
            cloud.gcs_server.url,
            "push",
            str(artifacts),
            "--task_management_server",
            cloud.task_server.url,
            *options,
        )
        cloud.plan.over.set()
    assert process.returncode == (0 if fault is None else 8), process.stderr[-3000:]
    sent = [value for entry in cloud.plan.log for name, value in entry.headers.items() if name.lower() == "authorization"]
    # They were in use, and the log was on.
    assert {f"Bearer {ID_TOKEN}", f"Bearer {ACCESS_TOKEN}"} == set(sent)
    assert "DEBUG" in process.stderr
    _assert_clean(process.stdout + process.stderr)
    for path in (*artifacts.iterdir(), artifacts.with_name("digits.push.json")):
        _assert_clean(path.read_bytes().decode("latin-1"))


@pytest.mark.parametrize("answer", ["refused", "reset", "nobody"])
def test_a_build_request_with_an_api_key(google, key_file, answer):
    plan = FaultPlan("reset", 1) if answer == "reset" else FaultPlan()
    with FaultyServer(plan, lambda *request: Reply(401)) as server:
        url = "http://127.0.0.1:9" if answer == "nobody" else server.url
        process = _run(google, key_file, url, "ask", url)
    assert process.returncode == 1
    if answer != "nobody":
        assert plan.log[1].path.endswith(f"?key={API_KEY}")
    assert "Traceback" in process.stderr
    assert "DEBUG" in process.stderr
    _assert_clean(process.stdout + process.stderr)


def test_a_server_with_tokens(google, key_file, tmp_path):
    make_model(tmp_path / "models" / "digits")
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(SERVER_TOKEN)
    request = build_request(tmp_path / "models" / "digits", config())
    options = ["--token_file", str(tokens), "--allow_read", str(tmp_path / "models"), "--work_dir", str(tmp_path / "work")]
    with running_server(*options, "--task_management_server", "http://127.0.0.1:9", env={"ODP_TASK_TRACEBACK": "1"}) as server:
        for options in (
            {"params": {"key": SERVER_TOKEN}},
            {"params": {"key": "marker-wrong"}},
            {"headers": {"X-Goog-Api-Key": SERVER_TOKEN}},
        ):
            response = server.post(request, **options)
            _assert_clean(response.text + str(response.headers))
        server.stop()
        assert len([entry for entry in server.log if entry["event"] == "request"]) == 3
        _assert_clean(json.dumps(server.log))
    for path in pathlib.Path(tmp_path / "work").rglob("*"):
        _assert_clean(path.read_text() if path.is_file() else "")
