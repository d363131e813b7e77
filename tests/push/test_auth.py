"""Who asks: which credentials go where, and that they are shown nowhere."""

import base64
import concurrent.futures
import json
import time
import urllib.parse

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fakes.faults import FaultPlan, FaultyServer, Reply, json_reply
from pushing import HASTY

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction
from odp_taskbuilder.push import auth, locating
from odp_taskbuilder.transport import deadline, session


def _id_token(audience):
    parts = ({"alg": "none"}, {"aud": audience, "exp": 4102444800})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".c2ln"


@pytest.fixture
def http():
    return session.configure(requests.Session(), HASTY, deadline.Deadline(10))


@pytest.fixture
def metadata(monkeypatch):
    """The machine's metadata server: a project, and ID tokens for whatever audience."""

    def reply(method, path, headers, body):
        url = urllib.parse.urlsplit(path)
        if headers.get("Metadata-Flavor") != "Google":
            return Reply(403)
        if url.path.endswith("/identity"):
            return Reply(200, _id_token(dict(urllib.parse.parse_qsl(url.query))["audience"]).encode(), content_type="text/html")
        return Reply(200, b"my-project") if url.path.endswith("/project-id") else Reply(404)

    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with FaultyServer(FaultPlan(), reply) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.url.removeprefix("http://"))
        yield server


@pytest.fixture
def google(monkeypatch, tmp_path):
    """Google's token, IAM and Secret Manager services, and a key file for them."""

    class Google:
        secrets = {}
        seen = []

    def reply(method, path, headers, body):
        Google.seen.append((path, headers, body))
        if path == "/token":
            return json_reply(200, {"access_token": "access-token-of-the-user", "id_token": _id_token("x"), "expires_in": 3600})
        if headers.get("Authorization") != "Bearer access-token-of-the-user":
            return Reply(401)
        if path.endswith(":generateIdToken"):
            return json_reply(200, {"token": _id_token(json.loads(body)["audience"])})
        name = path.split("/")[5] if "/secrets/" in path else ""
        return json_reply(200, {"payload": Google.secrets[name]}) if name in Google.secrets else Reply(404)

    with FaultyServer(FaultPlan(), reply) as server:
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "client_email": "me@p.iam",
            "token_uri": f"{server.url}/token",
            "private_key": key.decode(),
        }
        (tmp_path / "key.json").write_text(json.dumps({**account, "project_id": "p", "private_key_id": "1", "client_id": "2"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        monkeypatch.setattr(auth, "_IAM_CREDENTIALS", server.url)
        monkeypatch.setattr(locating, "_SECRET_MANAGER", server.url)
        Google.secrets, Google.seen = {}, []
        yield Google


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:5000/", True),
        ("http://127.0.0.1", True),
        ("http://127.8.9.1:80", True),
        ("http://[::1]:5000/", True),
        ("https://localhost.example.com", False),
        ("https://example.com/localhost", False),
        ("http://128.0.0.1", False),
        ("http://0.0.0.0", False),
    ],
)
def test_what_is_this_machine(url, expected):
    assert auth.is_loopback(url) is expected


def test_this_machine_needs_no_credentials(http):
    assert auth.headers(auth.Login(), "http://localhost:5000", "x", http) == {}


def test_an_api_key_wins(http):
    login = auth.Login(api_key="the-api-key", impersonate_service_account="robot@p.iam.gserviceaccount.com")
    assert auth.headers(login, "https://example.com", "x", http) == {"X-Goog-Api-Key": "the-api-key"}
    assert "the-api-key" not in repr(login)


def test_an_id_token_of_the_machine(http, metadata):
    assert auth.headers(auth.Login(), "https://example.com", "https://example.com/a?b", http) == {
        "Authorization": f"Bearer {_id_token('https://example.com/a?b')}"
    }


def test_an_id_token_of_a_key_file(http, google):
    assert auth.headers(auth.Login(), "https://example.com", "x", http) == {"Authorization": f"Bearer {_id_token('x')}"}


def test_an_impersonated_account_also_towards_this_machine(http, google):
    login = auth.Login(impersonate_service_account="robot@p.iam.gserviceaccount.com")
    assert auth.headers(login, "http://localhost:5000", "the-audience", http) == {
        "Authorization": f"Bearer {_id_token('the-audience')}"
    }
    path, _, body = google.seen[-1]
    assert path == "/v1/projects/-/serviceAccounts/robot@p.iam.gserviceaccount.com:generateIdToken"
    assert json.loads(body) == {"audience": "the-audience", "includeEmail": True}


@pytest.mark.parametrize(("seconds", "num_asked"), [(3600, 1), (200, 20), (None, 20)])
def test_a_token_is_asked_for_once_unless_it_is_about_to_expire(http, metadata, seconds, num_asked):
    asked = []

    def reply(*request):
        asked.append(request)
        claims = {} if seconds is None else {"exp": time.time() + seconds}
        return Reply(200, f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()}.{len(asked)}".encode())

    metadata.reply = reply
    audience = f"https://{seconds}.example.com"
    tokens = [auth.headers(auth.Login(), audience, audience, http)["Authorization"] for _ in range(20)]
    assert (len(asked), tokens[-1].rpartition(".")[2]) == (num_asked, str(num_asked))


def test_the_access_token_is_asked_for_once(http, google):
    for account in ("a@p.iam.gserviceaccount.com", "b@p.iam.gserviceaccount.com"):
        auth.headers(auth.Login(impersonate_service_account=account), "http://localhost", "x", http)
    assert [path for path, _, _ in google.seen].count("/token") == 1


def test_what_is_no_secret_any_more_is_forgotten():
    redaction.protect("good for an hour", 3600)
    for number in range(100):
        redaction.protect(f"good for no time {number}", 0)
    assert redaction.redact("good for an hour") == "[redacted]"
    assert redaction.redact("good for no time 7") == "good for no time 7"


def test_no_credentials_anywhere(http, monkeypatch):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    with pytest.raises(errors.TaskServerError, match="No credentials: 127.0.0.1 does not answer") as failure:
        auth.headers(auth.Login(), "https://example.com", "x", http)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in failure.value.next_step
    assert "--impersonate_service_account" in failure.value.next_step


@pytest.mark.parametrize("answer", [Reply(200, b"<html>a portal</html>"), Reply(404), Reply(200, b"a.b.c")])
def test_a_metadata_server_that_is_none(http, monkeypatch, answer):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with FaultyServer(FaultPlan(), lambda *request: answer) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.url.removeprefix("http://"))
        with pytest.raises(errors.TaskServerError, match="gives no ID token"):
            auth.headers(auth.Login(), "https://example.com", "x", http)


def test_tokens_of_concurrent_calls_do_not_meet(metadata):
    def call(number):
        http = session.configure(requests.Session(), HASTY, deadline.Deadline(20))
        audience = f"https://server{number % 2}.example.com"
        return auth.headers(auth.Login(), audience, audience, http)["Authorization"] == f"Bearer {_id_token(audience)}"

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert all(pool.map(call, range(200)))


def test_the_authorization_of_netrc_does_not_replace_ours(monkeypatch, tmp_path):
    seen = []
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    http = session.configure(requests.Session(), HASTY, deadline.Deadline(10))
    with FaultyServer(FaultPlan(), lambda *request: seen.append(request[2]) or Reply(200)) as server:
        session.exchange(http, "GET", server.url, headers={"Authorization": "Bearer ours"})
    assert seen[0]["Authorization"] == "Bearer ours"


# Where the task management server is.


def test_the_option_comes_before_the_environment(http):
    environment = {"TASK_MANAGEMENT_SERVER_URL": "http://b:1/"}
    assert locating.find_task_management_server("http://a:1", http, environment) == "http://a:1"
    assert locating.find_task_management_server(None, http, environment) == "http://b:1/"


@pytest.mark.parametrize(
    ("environment", "name"), [("", "fc-TASK_MANAGEMENT_SERVER_URL"), ("dev", "fc-dev-TASK_MANAGEMENT_SERVER_URL")]
)
def test_a_secret_of_the_project(http, google, environment, name):
    google.secrets[name] = {"data": base64.b64encode(b"https://tasks.example.com").decode(), "dataCrc32c": "2410189906"}
    with pytest.raises(errors.TaskServerError, match="has no secret"):  # Damaged on the way: as if there were none.
        locating.find_task_management_server(None, http, {"GOOGLE_CLOUD_PROJECT": "p", "ENV": environment})
    del google.secrets[name]["dataCrc32c"]
    found = locating.find_task_management_server(None, http, {"GOOGLE_CLOUD_PROJECT": "p", "ENV": environment})
    assert found == "https://tasks.example.com"
    assert google.seen[-1][0] == f"/v1/projects/p/secrets/{name}/versions/latest:access"


def test_the_project_of_the_machine(http, google, metadata, monkeypatch, tmp_path):
    google.secrets["fc-TASK_MANAGEMENT_SERVER_URL"] = {"data": base64.b64encode(b"https://tasks.example.com").decode()}
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert locating.find_task_management_server(None, http, {}) == "https://tasks.example.com"
    assert "/projects/my-project/" in google.seen[-1][0]


def test_a_secret_that_was_never_filled_is_not_printed(http, google):
    google.secrets["fc-TASK_MANAGEMENT_SERVER_URL"] = {"data": base64.b64encode(b"something else").decode()}
    with pytest.raises(errors.TaskServerError, match="of project p is not the URL of a server") as failure:
        locating.find_task_management_server(None, http, {"GOOGLE_CLOUD_PROJECT": "p"})
    assert "something else" not in str(failure.value)


def test_no_server_is_named_anywhere(http, google, monkeypatch):
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    for environment in ({}, {"GOOGLE_CLOUD_PROJECT": "p"}):
        with pytest.raises(errors.TaskServerError, match=r"^Cannot find task management server\.") as failure:
            locating.find_task_management_server(None, http, environment)
        assert "--task_management_server" in failure.value.next_step
