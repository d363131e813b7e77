"""What all commands share: names, help, verbosity, completion."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys

import click
import pytest
from click import testing

from odp_taskbuilder.cli import completion
from odp_taskbuilder.cli import main as command_line

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRY_OUT = ROOT / "configs" / "digits" / "try_out.pbtxt"
RUN = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()"]


def odp_task(*arguments, **environment):
    return subprocess.run([*RUN, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment})


def all_commands(group=command_line.cli, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(
    "given, meant",
    [(["biuld"], "build"), (["sim"], "simulate"), (["Validate"], "validate"), (["data", "partion"], "partition"), (["privacy", "eps"], "epsilon")],
)
def test_a_misspelt_command_is_told_what_was_meant(given, meant):
    with pytest.raises(click.UsageError) as refused:
        command_line.cli.main(given, standalone_mode=False)
    assert refused.value.format_message() == f"No such command '{given[-1]}'. Did you mean '{meant}'?"


def test_what_resembles_no_command_gets_no_suggestion():
    done = odp_task("xyzzy")
    assert (done.returncode, done.stderr) == (2, "Error: No such command 'xyzzy'.\nTry 'odp-task --help'.\n")


def test_help_shows_every_command_under_one_heading():
    done = testing.CliRunner().invoke(command_line.cli, ["--help"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    for heading, commands in command_line._GROUPS.items():
        below = lines[lines.index(f"{heading}:") + 1 :]
        below = below[: below.index("")] if "" in below else below
        # Continued lines are indented further.
        assert [line.split()[0] for line in below if line[2] != " "] == list(commands)
    alone = odp_task()
    assert alone.returncode == 2
    assert alone.stderr.startswith("Usage: odp-task") and "Error" not in alone.stderr


def options_below_headings(name):
    """Heading -> options below it, as `odp-task NAME --help` prints them."""
    help = testing.CliRunner().invoke(command_line.cli, [*name, "--help"]).output
    sections = {}
    for line in help.splitlines():
        if line.endswith(":") and line[0] != " ":
            sections[line[:-1]] = below = []
        elif line.startswith("  -"):
            below.append(line.split()[0].rstrip(","))
    return sections


def test_build_shows_its_options_in_groups():
    assert options_below_headings(["build"]) == {
        "What goes in": ["--saved_model", "--task_config", "--population_name", "--storage_path"],
        "Several builds": ["--sweep", "--fail_fast", "--jobs"],
        "Where it goes": ["--no_cache", "--output", "--overwrite", "--build_artifact_only"],
        "Privacy": ["--population", "--rounds_per_day", "--skip_dp_check", "--skip_dp_aggregator"],
        "What phones take": ["--skip_flex_ops_check", "--keep_ops", "--max_client_checkpoint_bytes", "--allow_runtime"],
        "Compression": ["--compress_updates", "--compress_model", "--compress_above", "--compress_evaluation"],
        "Models of unknown origin": ["--trust_model", "--sandbox"],
        "On a server": ["--task_builder_server", "--api_key", "--impersonate_service_account"],
        "Network": ["--deadline", "--request_timeout"],
        "On the terminal": ["--json", "-q", "-v", "-h"],
    }


@pytest.mark.parametrize(("name", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in all_commands()])
def test_every_option_of_every_command_stands_below_one_heading_and_no_list_is_long(name, command):
    sections = options_below_headings(name)
    context = click.Context(command, help_option_names=["-h", "--help"])
    expected = sorted(each.opts[0] for each in command.get_params(context) if isinstance(each, click.Option) and not each.hidden)
    assert sorted(option for below in sections.values() for option in below) == expected
    assert list(sections)[-1] == "On the terminal" and sections["On the terminal"][-3:] == ["-q", "-v", "-h"]
    assert max(map(len, sections.values())) <= 10
    own = [option for heading, names in command.headings.items() if heading not in ("Network", "On the terminal") for option in names]
    assert len(own) == len(set(own))
    # What names no option is misspelt or old; but where nearly the same options serve several commands, so do headings.
    assert set(own) <= {opt.lstrip("-") for each in command.params for opt in each.opts} or name[0] in ("privacy", "proxy")
    assert not (own and "Options" in sections), "some options have a heading and some have none"


def test_every_command_can_be_quiet_and_verbose():
    names = [name for name, _ in all_commands()]
    assert ("build",) in names and ("privacy", "noise") in names
    for name, command in all_commands():
        opts = [opt for parameter in command.params for opt in parameter.opts]
        assert opts.count("-q") == opts.count("-v") == 1, name


def test_population_is_a_number_wherever_it_is_an_option():
    found = [
        (name, parameter)
        for name, command in all_commands()
        for parameter in command.params
        if "--population" in parameter.opts
    ]
    assert len(found) >= 5
    for name, parameter in found:
        assert isinstance(parameter.type, click.types.IntRange) and parameter.type.min == 1, name


def test_quiet_leaves_results_and_errors_and_verbose_tells_every_stage():
    account = ("privacy", "epsilon", "--task_config", TRY_OUT, "--noise_multiplier", 5, "--rounds", 5)
    normal, quiet, verbose = odp_task(*account), odp_task(*account, "-q"), odp_task(*account, "--verbose")
    assert quiet.stdout == normal.stdout == verbose.stdout != ""
    assert quiet.stderr == "" and "accounting: " in verbose.stderr
    wrong = ("privacy", "epsilon", "--task_config", "no_such_file")
    normal, quiet, verbose = odp_task(*wrong), odp_task(*wrong, "-q"), odp_task(*wrong, "-v")
    assert quiet.stderr == normal.stderr != "" and "Traceback" not in normal.stderr
    assert normal.stderr in verbose.stderr and "Traceback" in verbose.stderr


@pytest.fixture
def complete(monkeypatch, capsys):
    """What a shell gets for the last of some words; it asks through the environment."""

    def answer(shell, *words):
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words) - 1))
        assert completion.answer_shell(command_line.cli, f"{shell}_complete") == 0
        return capsys.readouterr().out.splitlines()

    return answer


def test_commands_options_in_both_spellings_choices_and_paths_are_completed(complete):
    assert complete("bash", "odp-task", "va") == ["plain,validate"]
    assert complete("bash", "odp-task", "data", "part") == ["plain,partition"]
    assert complete("bash", "odp-task", "build", "--saved_m") == ["plain,--saved_model"]
    assert complete("bash", "odp-task", "build", "--saved-m") == ["plain,--saved-model"]
    assert complete("bash", "odp-task", "build", "--skip-dp") == ["plain,--skip-dp-check", "plain,--skip-dp-aggregator"]
    assert complete("bash", "odp-task", "simulate", "--engine", "lo") == ["plain,local"]
    for words in (("build", "--task_config"), ("validate",), ("simulate",), ("scan",), ("inspect",), ("data", "describe")):
        assert complete("bash", "odp-task", *words, "conf") in (["file,conf"], ["dir,conf"]), words
    assert complete("fish", "odp-task", "va")[0].startswith("plain,validate")
    assert complete("zsh", "odp-task", "va")[:2] == ["plain", "validate"]


def test_bash_completes_with_the_script_that_is_printed(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    program = tmp_path / "odp-task"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from odp_taskbuilder.cli.main import main; main()' \"$@\"\n")
    program.chmod(0o755)
    script = (
        'eval "$(odp-task completion bash)"\n'
        "COMP_WORDS=(odp-task simulate --clients-p) COMP_CWORD=2\n_odp_task_completion odp-task\necho \"${COMPREPLY[@]}\"\n"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout == "--clients-per-round\n", done.stderr


def test_each_shell_has_a_script_and_others_are_refused():
    for shell in ("bash", "zsh", "fish"):
        done = testing.CliRunner().invoke(command_line.cli, ["completion", shell])
        assert done.exit_code == 0 and f"_ODP_TASK_COMPLETE={shell}_complete" in done.output
    assert testing.CliRunner().invoke(command_line.cli, ["completion", "tcsh"]).exit_code == 2


def test_the_version_is_that_of_the_distribution():
    assert testing.CliRunner().invoke(command_line.cli, ["--version"]).output == f"odp-task, version {importlib.metadata.version('odp-task')}\n"


# What takes longer to import than a command may take to start, and what most of it is imported by.
HEAVY = ("tensorflow", "numpy", "requests", "matplotlib", "h5py", "importlib.metadata", "odp_taskbuilder.sandbox", "odp_taskbuilder.inspection.inspect")
# One runs graphs, the others look at what is installed.
_AT_ONCE = ("simulate", "setup", "doctor")


def test_a_command_reads_its_options_before_it_imports_what_it_works_with():
    program = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(f'odp_taskbuilder.cli.{module}')\n"
        f"    print(module, [name for name in {HEAVY} if name in sys.modules])\n"
    )
    modules = [module for module, _ in command_line._COMMANDS.values() if module not in _AT_ONCE]
    done = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{module} []" for module in modules]
