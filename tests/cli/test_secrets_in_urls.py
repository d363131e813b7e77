"""A URL with a password may be given to any option of any command: the password is in nothing that is printed or written."""

import json
import pathlib
import socket

import click
import pytest
from pushing import save_artifacts

from odp_taskbuilder.base import redaction
from odp_taskbuilder.cli import main

_PROJECT = pathlib.Path(__file__).parents[2]
# Each with a secret of its own that has the word marker in every part that something could cut it into.
_URLS = {
    "plain": "http://user:1marker@127.0.0.1:9/x",
    "slash": "https://user:2marker/2marker@localhost",
    "at and colon": "http://user:3marker@3marker:3marker@127.0.0.1:9",
    "blank and quotes": "http://user:4marker '4marker\"4marker@127.0.0.1:9",
    "question mark and hash": "http://user:5marker?5marker#5marker@127.0.0.1:9",
    "no user": "HTTP://:6marker@127.0.0.1:9",
    "user only": "https://7marker@127.0.0.1:9",
    "no scheme": "user:8marker@127.0.0.1:9",
    "one slash": "http:/user:9marker@127.0.0.1:9",
    "bucket": "gs://user:10marker/10marker@bucket/model",
    "file": "file://user:11marker@host/model",
    "key in query": "https://127.0.0.1:9/?key=12marker",
    "other name in query": "https://127.0.0.1:9/x?a=b&whatever=13marker;13marker",
    "nameless query": "https://127.0.0.1:9?14marker",
    "fragment": "https://127.0.0.1:9/#access_token=15marker",
    "bucket query": "gs://bucket/model?X-Goog-Signature=16marker",
    "backslash": "http://user:17marker\\17marker@127.0.0.1:9",
    "another scheme": "s3+x://user:18marker@bucket/key",
    "beyond ASCII": "http://user:19märker-19marker@127.0.0.1:9",
}


def _commands(command=main.cli, path=()):
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from _commands(command.get_command(context, name), (*path, name))
    else:
        yield path, command


def _takes_text(param):
    """Whether any text can be given: the rest are numbers, flags and choices, which quote what they refuse all the same."""
    return not getattr(param, "is_flag", False)


_PARAMETERS = [
    pytest.param(path, command, param, id=f"{' '.join(path)} {param.name}")
    for path, command in _commands()
    for param in command.params
    if _takes_text(param) and param.name != "help"
]


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """What the other arguments of a command are, so that it gets as far as to its URL and no further."""
    folder = tmp_path_factory.mktemp("others")
    artifacts = save_artifacts(folder / "digits")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield {
            "directory": str(artifacts),
            "artifacts": str(folder / "absent"),
            "saved_model": str(folder / "absent"),
            "task_config": str(_PROJECT / "configs/digits/train.pbtxt"),
            "task_configs": str(_PROJECT / "configs/digits/train.pbtxt"),
            "configs": str(_PROJECT / "configs/digits/train.pbtxt"),
            # The service would serve for ever.
            "port": str(taken.getsockname()[1]),
            "sources": str(folder),
            "paths": str(artifacts),
            "left": str(artifacts),
            "right": str(artifacts),
            "model": str(folder / "absent"),
            "source": str(folder / "absent.csv"),
            "data": "synthetic",
            "output_dir": "out",
            "rounds": "1",
            "over": "rounds",
            "start": "1",
            "stop": "2",
        }


# Those that most of the code could stumble over; --full tries all.
_BY_DEFAULT = ("slash", "blank and quotes", "question mark and hash", "no scheme", "bucket", "key in query", "nameless query")


@pytest.mark.parametrize("names", [_BY_DEFAULT, pytest.param(tuple(_URLS), marks=pytest.mark.full)], ids=["some", "all"])
@pytest.mark.parametrize("path, command, param", _PARAMETERS)
def test_no_option_shows_the_secret_of_a_url(path, command, param, names, others, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in names:
        url = _URLS[name]
        # What an earlier command line has registered must not help a later one.
        monkeypatch.setattr(redaction, "_secrets", {})
        code = main.run([*path, *_arguments(command, param, url, others)])
        said = "".join(capfd.readouterr())
        assert "marker" not in said, (name, said)
        # Such a value is refused, or is where nothing can be; it is never a defect.
        assert code != 1, (name, said)
        for file in tmp_path.rglob("*"):
            if file.is_file():
                assert b"marker" not in file.read_bytes(), (name, file)


def test_every_option_of_every_command_is_among_them():
    """The walk finds commands, subcommands, arguments and options, and those that are known to take URLs."""
    found = {(" ".join(parameter.values[0]), parameter.values[2].name) for parameter in _PARAMETERS}
    assert {
        ("build", "task_builder_server"),
        ("build", "saved_model"),
        ("build", "storage_path"),
        ("push", "task_management_server"),
        ("serve", "task_management_server"),
        ("serve", "allow_read"),
        ("serve", "allow_write"),
        ("metrics", "sources"),
        ("privacy curve", "task_config"),
    } <= found


@pytest.mark.parametrize("url", _URLS.values(), ids=_URLS)
def test_an_address_from_the_environment_shows_no_secret(url, others, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(redaction, "_secrets", {})
    monkeypatch.setenv("TASK_MANAGEMENT_SERVER_URL", url)
    assert main.run(["push", others["directory"]]) == 8
    said = "".join(capfd.readouterr())
    assert "TASK_MANAGEMENT_SERVER_URL" in said and "is not the URL of a server" in said
    assert "marker" not in said


@pytest.mark.parametrize("url", [url for name, url in _URLS.items() if name != "no scheme"])
@pytest.mark.parametrize("options", [["--build_artifact_only"], ["--json"], ["--show"]])
def test_a_url_in_a_config_shows_no_secret(url, options, tmp_path, monkeypatch, capfd):
    """As an artifact's destination, and as a value that does not parse."""
    monkeypatch.setattr(redaction, "_secrets", {})
    text = (_PROJECT / "configs/digits/train.pbtxt").read_text()
    building = f"artifact_building {{ plan_url: {json.dumps(url, ensure_ascii=False)} client_plan_url: 5 }}"
    config = tmp_path / "config.pbtxt"
    config.write_text(text.replace("learning_process {", f"learning_process {{\n {building}", 1))
    main.run(["validate", str(config), *options])
    said = "".join(capfd.readouterr())
    assert "client_plan_url" in said
    assert "marker" not in said


def _arguments(command, target, value, others):
    """The command line that gives `value` to one parameter, and to the others what they need."""
    arguments = []
    for param in command.params:
        wanted = value if param is target else others.get(param.name) if param.required or param.name == "port" else None
        if wanted is None:
            continue
        # An argument that looks like an option would be one.
        arguments += [wanted] if isinstance(param, click.Argument) else [f"{max(param.opts, key=len)}={wanted}"]
    return arguments
