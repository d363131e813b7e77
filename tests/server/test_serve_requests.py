"""P15: whatever arrives at its port, the server answers with a status that fits, and goes on."""

import concurrent.futures
import contextlib
import pathlib
import random
import socket
import subprocess
import sys
import time

import pytest
from serving_process import ERROR, PROTOBUF, build_request, config, make_model, parsed, requests, running_server

MAX_BYTES = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("requests")
    make_model(root / "models" / "digits")
    options = ["--allow_read", str(root / "models"), "--allow_write", str(root / "out"), "--max_request_bytes", str(MAX_BYTES)]
    with running_server(*options, "--request_timeout", "2") as server:
        server.request = build_request(root / "models" / "digits", config(folder=str(root / "out")))
        yield server
        assert parsed(server.post(server.request, artifacts=True)).HasField("task_group")


@pytest.fixture
def connection(server):
    with contextlib.closing(
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10)
    ) as connection:
        yield connection


def _answer(connection: socket.socket) -> bytes:
    data = b""
    # A server that hangs up on what it has not read resets the connection.
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            data += chunk
    return data


@pytest.mark.parametrize("path", ["/taskbuilder/v1:build-task-group", "/taskbuilder/v1:build-artifacts"])
@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05ab", b"not a protobuf", b"\x12\xff\xff\xff\xff\x0f" + b"x" * 100])
def test_a_body_that_is_no_request(server, path, body):
    response = requests.post(server.url + path, body, headers=PROTOBUF, timeout=10)
    info = parsed(response).error_info
    assert (response.status_code, info.error_type) == (400, ERROR.INVALID_REQUEST)
    assert info.error_message.startswith("Unable to decode request body: ")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_of_another_type(server, content_type):
    response = server.post(server.request, headers={"Content-Type": content_type})
    assert response.status_code == 415
    assert content_type in parsed(response).error_info.error_message


@pytest.mark.parametrize(
    "content_type", ["application/x-protobuf", "application/protobuf; charset=x", "application/octet-stream", None]
)
def test_types_that_clients_use_for_protobuf(server, content_type):
    headers = {"Content-Type": content_type}
    assert server.post(server.request, artifacts=True, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/taskbuilder/v1:build-task-group", 405),
        ("PUT", "/taskbuilder/v1:build-artifacts", 405),
        ("OPTIONS", "/taskbuilder/v1:build-artifacts", 405),
        ("OPTIONS", "/taskbuilder/v1:build-task-group", 405),
        ("POST", "/healthz", 405),
        ("POST", "/taskbuilder/v1:build-task", 404),
        ("GET", "/", 404),
        ("GET", "/../../etc/passwd", 404),
    ],
)
def test_wrong_methods_and_paths(server, method, path, status):
    response = requests.request(method, server.url + path, timeout=10)
    assert response.status_code == status
    assert parsed(response).error_info.error_message


def test_probes(server):
    for path, text in (("/ready", "Ready"), ("/healthz", "Health")):
        response = requests.get(server.url + path, timeout=10)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.text == f"Greetings from Task Builder Flask! {text} check. \n"


def test_metrics(server):
    server.post(server.request, artifacts=True)
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    assert 'odp_task_builds_total{result="SUCCESS"}' in text
    assert "odp_task_builds_running 0.0" in text
    assert "process_resident_memory_bytes" in text


def test_a_large_body_is_refused_before_it_is_sent(connection):
    connection.sendall(b"POST /taskbuilder/v1:build-artifacts HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n")
    answer = _answer(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Content-Type: application/x-protobuf" in answer


def test_the_largest_body_is_read(server):
    body = server.request.SerializeToString()
    padding = b"\xfa\x3f" + bytes(
        [
            0x80 | (MAX_BYTES - len(body) - 5) & 0x7F,
            (MAX_BYTES - len(body) - 5) >> 7 & 0x7F | 0x80,
            MAX_BYTES - len(body) - 5 >> 14,
        ]
    )
    body += padding + b"x" * (MAX_BYTES - len(body) - len(padding))
    assert len(body) == MAX_BYTES
    response = requests.post(f"{server.url}/taskbuilder/v1:build-artifacts", body, headers=PROTOBUF, timeout=10)
    assert parsed(response).HasField("task_group"), response.content


def test_an_endless_body_is_cut_off_and_costs_no_memory(server, connection):
    before = _resident_bytes(server)
    connection.sendall(b"POST /taskbuilder/v1:build-artifacts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    with contextlib.suppress(OSError):
        for _ in range(2000):
            connection.sendall(chunk)
            sent += len(chunk)
    assert sent < 64 << 20
    assert _resident_bytes(server) - before < 20 << 20


@pytest.mark.parametrize(
    "junk",
    [
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"\x00" * 1000,
    ],
    ids=range(9),
)
def test_what_is_no_http_is_refused_or_hung_up_on(connection, junk):
    with contextlib.suppress(OSError):  # The server may have hung up by then.
        connection.sendall(junk)
        connection.shutdown(socket.SHUT_WR)
    answer = _answer(connection)
    assert answer == b"" or answer.split(b" ", 2)[1] in (b"400", b"404", b"413", b"431", b"501"), answer


_BUILD = b"POST /taskbuilder/v1:build-artifacts HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "head",
    [
        _BUILD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        _BUILD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        _BUILD + b"transfer-encoding:chunked\r\nCONTENT-LENGTH:0\r\n",
        _BUILD + b"Content-Length: 5\r\nTransfer-Encoding: \r\n",
        _BUILD + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        _BUILD + b"Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n",
        _BUILD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        _BUILD + b"Content-Length: 5\r\nContent-Length: 6\r\n",
        _BUILD.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        _BUILD.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ],
    ids=range(11),
)
def test_a_body_that_ends_in_two_places_is_refused_and_nothing_behind_it_is_a_request(connection, head):
    connection.sendall(head + b"\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = _answer(connection)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer
    assert answer.count(b"Content-Length:") == 1


def test_requests_in_one_packet_are_answered_in_turn(connection):
    connection.sendall(
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    answer = _answer(connection)
    assert (answer.count(b" 200 "), answer.count(b" 404 ")) == (3, 1)


def test_a_body_shorter_than_promised_is_not_waited_for_for_ever(connection):
    connection.sendall(b"POST /taskbuilder/v1:build-artifacts HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nabc")
    assert _answer(connection) == b""


def test_requests_that_trickle_in_are_given_up_and_do_not_keep_others_waiting(server):
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(contextlib.closing(socket.create_connection(address, timeout=10))) for _ in range(150)]
        for connection in slow:
            connection.sendall(b"POST /taskbuilder/v1:build-artifacts HTTP/1.1\r\n")
        assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
        open_connections = set(slow)
        end = time.monotonic() + 20
        while open_connections and time.monotonic() < end:
            # A byte now and then, as long as the server takes it.
            for connection in list(open_connections):
                try:
                    connection.sendall(b"x")
                except OSError:
                    open_connections.discard(connection)
            assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
        assert not open_connections


def test_mutated_requests_are_never_the_servers_fault(server, request):
    rng = random.Random(7)
    original = server.request.SerializeToString()
    with requests.Session() as http:
        for _ in range(2000 if request.config.getoption("--full") else 150):
            body = bytearray(original)
            for _ in range(rng.randrange(1, 8)):
                position = rng.randrange(len(body))
                body[position : position + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            response = http.post(f"{server.url}/taskbuilder/v1:build-artifacts", bytes(body), headers=PROTOBUF, timeout=30)
            assert response.status_code in (200, 400), bytes(body)
            assert parsed(response).WhichOneof("result"), bytes(body)


def test_tokens(tmp_path):
    (tmp_path / "tokens.txt").write_text("first-token\nsecond-token\n")
    make_model(tmp_path / "models" / "digits")
    options = [
        "--host",
        "0.0.0.0",
        "--token_file",
        str(tmp_path / "tokens.txt"),
        "--allow_read",
        str(tmp_path),
        "--allow_write",
        str(tmp_path),
    ]
    with running_server(*options) as server:
        request = build_request(tmp_path / "models" / "digits", config(folder=str(tmp_path / "out")))
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "second-token"},
            {"X-Goog-Api-Key": "first-toke"},
        ):
            response = server.post(request, artifacts=True, headers={**PROTOBUF, **headers})
            assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "token" in parsed(response).error_info.error_message
        assert requests.get(f"{server.url}/metrics", timeout=10).status_code == 401
        for headers in ({"Authorization": "Bearer first-token"}, {"X-Goog-Api-Key": "second-token"}):
            assert server.post(request, artifacts=True, headers={**PROTOBUF, **headers}).status_code == 200
        assert server.post(request, artifacts=True, params={"key": "first-token"}).status_code == 200
        assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200
        server.stop()
        assert not any("first-tok" in str(entry) or "second-tok" in str(entry) for entry in server.log)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that wants a token, and gives each request 60 seconds to arrive."""
    root = tmp_path_factory.mktemp("guarded")
    (root / "tokens.txt").write_text("first-token\n")
    make_model(root / "models" / "digits")
    places = ("--allow_read", str(root / "models"), "--allow_write", str(root / "out"), "--work_dir", str(root / "work"))
    with running_server(*places, "--token_file", str(root / "tokens.txt"), env={"TMPDIR": str(root)}) as server:
        server.settle()
        server.root = root
        server.request = build_request(root / "models" / "digits", config(folder=str(root / "out")))
        server.address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        yield server


def _milliseconds_of_probes(server, number: int) -> list[float]:
    seconds = []
    for i in range(number):
        begin = time.perf_counter()
        assert requests.get(f"{server.url}/{('healthz', 'ready')[i % 2]}", timeout=20).status_code in (200, 503)
        seconds.append(1000 * (time.perf_counter() - begin))
    return sorted(seconds)


def test_probes_are_answered_while_a_thousand_connections_are_slow_and_large_bodies_arrive_without_a_token(guarded):
    before = _resident_bytes(guarded)
    body = bytes(15 << 20)
    slow_heads = (b"", b"POST /taskbuilder/v1:build-artifacts HTTP/1.1\r\n", _BUILD + b"Content-Length: 1000\r\n\r\nab", b"GET /re")
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(60))
        for i in range(1000):
            connection = stack.enter_context(contextlib.closing(socket.create_connection(guarded.address, timeout=10)))
            connection.sendall(slow_heads[i % len(slow_heads)])
        url = f"{guarded.url}/taskbuilder/v1:build-artifacts"
        answers = [pool.submit(requests.post, url, body, headers=PROTOBUF, timeout=60) for _ in range(60)]
        while not all(answer.done() for answer in answers):
            _milliseconds_of_probes(guarded, 10)
            assert _resident_bytes(guarded) - before < 30 << 20
            assert not list(guarded.root.glob("tmp*"))  # Where waitress keeps large bodies.
        assert {answer.result().status_code for answer in answers} == {401}
        latencies = _milliseconds_of_probes(guarded, 200)
        print(f"p50 {latencies[99]:.1f} ms, p99 {latencies[197]:.1f} ms")
    assert _resident_bytes(guarded) - before < 30 << 20
    headers = {**PROTOBUF, "Authorization": "Bearer first-token"}
    assert parsed(guarded.post(guarded.request, artifacts=True, headers=headers)).HasField("task_group")


def test_more_connections_than_there_is_room_for_leave_room_for_probes(guarded):
    with contextlib.ExitStack() as stack:
        for _ in range(2500):
            connection = stack.enter_context(contextlib.closing(socket.create_connection(guarded.address, timeout=60)))
            connection.sendall(b"G")
        assert requests.get(f"{guarded.url}/healthz", timeout=60).status_code == 200


@pytest.mark.parametrize("path", ["/taskbuilder/v1:build-artifacts", "/healthz", "/ready", "/metrics", "/none", "//healthz"])
@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
def test_a_body_without_a_token_is_not_kept(guarded, path, framing):
    before = _resident_bytes(guarded)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode()
    with contextlib.closing(socket.create_connection(guarded.address, timeout=10)) as connection:
        if framing == "chunked":
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(15):
                connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
            assert not list(guarded.root.glob("tmp*"))
            connection.sendall(b"0\r\n\r\n")
        else:
            expect = b"Expect: 100-continue\r\n" if framing == "expect" else b""
            connection.sendall(head + expect + b"Content-Length: 15728640\r\n\r\n")
            if framing == "length":
                connection.sendall(bytes(15 << 20))
        connection.shutdown(socket.SHUT_WR)
        answer = _answer(connection)
    assert answer.split(b" ", 2)[1] == b"401", answer
    assert _resident_bytes(guarded) - before < 10 << 20


def test_large_bodies_at_once_are_bounded_and_the_rest_is_told_to_come_again(guarded):
    """With a token; they are no requests, so that each is answered as soon as it is there."""
    before = _resident_bytes(guarded)
    headers = {**PROTOBUF, "Authorization": "Bearer first-token"}
    path = b"/taskbuilder/v1:build-artifacts"
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first-token\r\nContent-Length: 15728640\r\n\r\n"
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(socket.create_connection(guarded.address, timeout=30))) for _ in range(12)]
        for connection in connections:
            connection.sendall(head)
            connection.sendall(bytes((15 << 20) - 1))
        for connection in connections:
            connection.sendall(b"\0")
        statuses = [int(_first_line(connection).split(b" ")[1]) for connection in connections]
    assert set(statuses) == {400, 503}
    assert 3 <= statuses.count(400) <= 4
    assert _resident_bytes(guarded) - before < 100 << 20
    # And what was held is free again.
    response = guarded.post(guarded.request, artifacts=True, headers=headers)
    assert parsed(response).HasField("task_group")
    for _ in range(6):
        assert requests.post(guarded.url + path.decode(), bytes(15 << 20), headers=headers, timeout=30).status_code == 400


def _first_line(connection: socket.socket) -> bytes:
    return connection.recv(65536).partition(b"\r\n")[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com"])
def test_other_machines_need_a_token(host):
    process = subprocess.run(
        [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "serve", "--host", host, "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 2
    assert "--token_file" in process.stderr


def _resident_bytes(server) -> int:
    return int(pathlib.Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096
