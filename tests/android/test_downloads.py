"""Downloads that are made are sound, and are served to whoever polls."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.android import downloads
from odp_taskbuilder.android.checks import check_files
from odp_taskbuilder.data import tfrecord

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")
TOKEN = 1699999200


def made(tmp_path, content, name, **options):
    path = tmp_path / name
    path.write_bytes(content.encode())
    text = downloads.make_download(path, TOKEN, **options)
    (tmp_path / "download.json").write_text(text)
    assert check_files([tmp_path / "download.json"]) == []
    return json.loads(text)


def test_tables_and_json_become_the_same_download(tmp_path):
    entries = [{"key": "a", "data": 'ü, "q"'}, {"key": "b", "data": "AAE=", "encoding": "base64"}]
    expected = {"syncToken": TOKEN, "contents": entries}
    assert made(tmp_path, 'key,data,encoding\na,"ü, ""q""",\nb,AAE=,base64\n', "t.csv") == expected
    assert made(tmp_path, "\n".join(map(json.dumps, entries)), "t.jsonl") == expected
    assert made(tmp_path, json.dumps(entries), "t.json") == expected
    assert made(tmp_path, "key\tdata\n007\t1.50\n", "t.tsv")["contents"] == [{"key": "007", "data": "1.50"}]


def test_examples_get_the_keys_that_an_app_looks_for(tmp_path):
    tfrecord.write_records(tmp_path / "x.tfrecord", [b"\x0a\x00", b""])
    text = downloads.make_download(tmp_path / "x.tfrecord", TOKEN, population_name="digits")
    assert json.loads(text)["contents"] == [
        {"key": "digits/00000000", "data": "CgA=", "encoding": "base64"},
        {"key": "digits/00000001", "data": "", "encoding": "base64"},
    ]
    with pytest.raises(errors.UsageError, match="of which population"):
        downloads.make_download(tmp_path / "x.tfrecord", TOKEN)


def test_an_example_above_50_kb_is_refused_with_its_number(tmp_path):
    tfrecord.write_records(tmp_path / "x.tfrecord", [b"", b"a" * 50_000])
    assert len(json.loads(downloads.make_download(tmp_path / "x.tfrecord", TOKEN, population_name="digits"))["contents"]) == 2
    tfrecord.write_records(tmp_path / "x.tfrecord", [b"", b"a" * 50_001])
    with pytest.raises(errors.UsageError, match="x.tfrecord, example 1 has 50,001 bytes; phones take none above 50,000"):
        downloads.make_download(tmp_path / "x.tfrecord", TOKEN, population_name="digits")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "key,data\na,1\na,2\n", "t.csv:3: the key 'a' stands in"),
        ("t.csv", "key,date\na,1\n", "a download has no 'date'"),
        ("t.csv", "key\na\n", "has no column 'data'"),
        ("t.csv", "key,data,encoding\na,1,hex\n", "t.csv:2: the encoding 'hex' is unknown"),
        ("t.csv", "key,data,encoding\na,1,base64\n", "t.csv:2: data is no base64"),
        ("t.csv", 'key,data\n"",1\n', "t.csv:2: the key is empty"),
        ("t.jsonl", '{"key": "a", "data": "1"}\n{"key": "b", "data": 1}', "t.jsonl:2: data is no string"),
        ("t.jsonl", '{"key": "a", "data": "1", "encodings": "utf8"}', "no 'encodings'"),
        ("t.jsonl", "", "has no rows"),
    ],
)
def test_an_entry_that_a_phone_would_drop_is_refused_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(errors.UsageError) as caught:
        downloads.make_download(tmp_path / name, TOKEN)
    assert message in caught.value.message


def test_tokens_are_on_the_hour_and_grow():
    assert downloads.sync_token(str(TOKEN)) == TOKEN
    now = downloads.sync_token("now")
    assert now % 3600 == 0 and 0 <= time.time() - now < 3601
    for text, last in (("1699999201", None), (str(TOKEN), TOKEN), ("soon", None), ("-3600", None), ("1699999200000", None)):
        with pytest.raises(errors.UsageError):
            downloads.sync_token(text, last)


def run(*arguments):
    return subprocess.run([ODP_TASK, "android", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_a_download_is_made_checked_and_served(tmp_path):
    (tmp_path / "t.csv").write_text("key,data\na,1\n")
    download = tmp_path / "download.json"
    assert run("download", tmp_path / "t.csv", "--sync_token", TOKEN, "--output", download).returncode == 0
    assert run("download", tmp_path / "t.csv", "--sync_token", TOKEN, "--output", download).returncode == 7
    assert run("check", download).returncode == 0
    grown = run("check", download, "--last_sync_token", TOKEN)
    assert (grown.returncode, grown.stdout.count("is not greater than the last one")) == (2, 1)
    command = [ODP_TASK, "android", "serve-download", str(download), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+/", server.stderr.readline())[0]
            for query, told in (
                (f"?syncToken={TOKEN}&country=de", "dropped by"),
                ("?syncToken=0&country=", "new to"),
                ("", "new to"),
            ):
                with urllib.request.urlopen(url + query, timeout=30) as answer:
                    assert answer.headers["Content-Type"] == "application/json"
                    assert answer.read() == download.read_bytes()
                assert told in server.stderr.readline()
            download.write_text(download.read_text().replace(str(TOKEN), str(TOKEN + 1)))
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url, timeout=30)
            assert caught.value.code == 500
            assert "is not on the hour" in server.stderr.readline()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
    assert server.returncode == 130
    assert run("serve-download", download).returncode == 2
