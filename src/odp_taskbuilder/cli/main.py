"""Entry points, and the one place where errors become messages and exit codes.

Commands are imported when they are called: `odp-task --help` and the commands that need no graph start without TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn, Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction
from odp_taskbuilder.cli import commands, output
from odp_taskbuilder.installation import support

# Heading -> command name -> module below odp_taskbuilder.cli that defines `command`, and the line that `odp-task --help` shows for it.
_GROUPS = {
    "Make tasks": {
        "new": ("new", "Write an example that builds: model, config, and the program that made the model."),
        "init": ("init", "Write a first task config for a model."),
        "build": ("build", "Build the artifacts and tasks for a model and a task config."),
        "push": ("push", "Create the tasks of a build at a task management server and upload its artifacts."),
        "serve": ("serve", "Run the task builder service."),
    },
    "Check what goes in": {
        "validate": ("validate", "Check task configs: all faults at once, warnings, and the resolved values."),
        "scan": ("scan", "Look for what a model of unknown origin should not hold, without loading it."),
        "privacy": ("privacy", "Account for the differential privacy of a training task."),
        "ops": ("ops", "List the ops of client graphs and whether phones have them."),
    },
    "Look at what came out": {
        "inspect": ("inspect", "Show what is inside plans and checkpoints, and the bytes that rounds move."),
        "verify": ("verify", "Check that artifacts are intact, belong together and will run."),
        "diff": ("diff", "Show what differs between two builds."),
    },
    "Try tasks out": {
        "android": ("android", "Make and check what an app on phones needs to feed a task."),
        "data": ("data", "Make and describe the data of simulated clients."),
        "simulate": ("simulate", "Run the built tasks on simulated clients."),
        "proxy": ("proxy", "Choose model and settings by cheap simulations that rank candidates as the full one does."),
        "metrics": ("metrics", "Show, plot and export the metrics of rounds."),
        "report": ("report", "Write a page that compares runs: settings, privacy, ops, bytes, rounds and plots."),
    },
    "This installation": {
        "setup": ("setup", "Complete the installation of the wheel: add TensorFlow Federated."),
        "doctor": ("doctor", "Show what odp-task finds on this machine, and the cure of each fault."),
        "completion": ("completion", "Print a script that completes commands, options and paths in a shell."),
    },
}
_COMMANDS = {name: entry for commands in _GROUPS.values() for name, entry in commands.items()}

_TRACEBACK_VARIABLE = "ODP_TASK_TRACEBACK"


class _Terminated(BaseException):
    """SIGTERM, or the hang-up of a terminal, raised in the main thread so that clean-up code runs."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.exit_code = 128 + signum


class _LazyGroup(commands.CommandGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"odp_taskbuilder.cli.{_COMMANDS[cmd_name][0]}")
        return commands.with_verbosity(module.command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own version imports every command for its help line.
        width = max(map(len, _COMMANDS))
        for heading, entries in _GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{width}}", line) for name, (_, line) in entries.items()])


def _normalize_token(token: str) -> str:
    """Options may be written with dashes or, as in the published guide, with underscores."""
    return token.replace("-", "_")


@click.group(
    cls=_LazyGroup,
    context_settings={
        "token_normalize_func": _normalize_token,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.version_option(package_name="odp-task", prog_name="odp-task")
def cli() -> None:
    """Build, check and try out federated learning tasks for Android's On-Device Personalization."""


def main() -> NoReturn:
    """Runs `odp-task` with this process's arguments and ends the process with the exit code that errors.py documents."""
    _end_process(run(sys.argv[1:]))


def task_builder_client() -> NoReturn:
    """The published guide's command: the same as `odp-task build`."""
    _end_process(run(["build", *sys.argv[1:]]))


def task_builder() -> NoReturn:
    """The published guide's server command: the same as `odp-task serve`."""
    _end_process(run(["serve", *sys.argv[1:]]))


def run(args: Sequence[str]) -> int:
    """Runs `odp-task` with the given arguments; returns the exit code that errors.py documents.

    SIGTERM and SIGHUP are handled from here on as the command line needs it. The process goes on.
    """
    output.prepare_streams()
    if sys.platform in ("win32", "cygwin", "msys"):
        # Before anything that Windows lacks is touched. --version and -h, too, are about a program that cannot run there.
        output.report_error(errors.UsageError(support.WINDOWS), "--json" in args)
        return errors.UsageError.exit_code
    output.set_verbosity(output.Verbosity.NORMAL)
    if "_ODP_TASK_COMPLETE" in os.environ:
        from odp_taskbuilder.cli.completion import answer_shell

        return answer_shell(cli, os.environ["_ODP_TASK_COMPLETE"])
    # TensorFlow reads this when it is imported; its start-up chatter is not for users.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # So is what the libraries below it say about their own dependencies.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    signal.signal(signal.SIGTERM, _raise_terminated)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # As nohup leaves it.
        signal.signal(signal.SIGHUP, _raise_terminated)
    # Decided here, from the raw arguments: an error may strike before click has parsed the option.
    json_mode = "--json" in args
    redaction.protect_urls([*args, *(value for value in os.environ.values() if "://" in value)])
    try:
        result = cli.main(args=list(args), prog_name="odp-task", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else errors.EXIT_OK
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.message.startswith("Usage: "):
            # As of click 8.2, a group that was named without a command.
            output.note(error.message)
            return errors.UsageError.exit_code
        output.report_error(errors.UsageError(_click_message(error)), json_mode)
        return errors.UsageError.exit_code
    except errors.OdpTaskError as error:
        output.report_error(error, json_mode)
        if _shows_traceback():
            output.note(traceback.format_exc())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.note("Interrupted.")
        return errors.EXIT_INTERRUPTED
    except _Terminated as terminated:
        output.note("Terminated.")
        return terminated.exit_code
    except (BrokenPipeError, SystemExit):
        # The reader of our output left, as `head` does; click ends the process itself where it notices first.
        _give_up_stdout()
        return errors.EXIT_BROKEN_PIPE
    except OSError as error:
        place = error.filename
        if place is None:
            # Files are named by now: what is left is the output, onto a full disk.
            _give_up_stdout()
            place, json_mode = "the output", False
        output.report_error(errors.StorageError(f"Cannot read or write {place}: {error.strerror or error}."), json_mode)
        return errors.StorageError.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort; everything a user can cause has a class of its own.
        if _shows_traceback():
            output.note(traceback.format_exc())
        unexpected = errors.OdpTaskError(
            f"Unexpected {type(error).__name__}: {error}",
            next_step=f"This is a defect of odp-task. Please report it with the traceback that {_TRACEBACK_VARIABLE}=1 shows.",
        )
        output.report_error(unexpected, json_mode)
        return errors.EXIT_UNEXPECTED


def _shows_traceback() -> bool:
    return bool(os.environ.get(_TRACEBACK_VARIABLE)) or output.verbosity() is output.Verbosity.VERBOSE


def _click_message(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f"\nTry '{context.command_path} --help'." if context is not None else ""
    return f"{error.format_message()}{hint}"


def _give_up_stdout() -> None:
    """Nothing can be told to anyone through stdout any more; what is still buffered must not fail again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _raise_terminated(signum: int, frame: object) -> None:
    raise _Terminated(signum)


def _end_process(code: int) -> NoReturn:
    # TensorFlow and TFF write complaints, and can crash, while the interpreter takes them down (tf.lite.Interpreter, TFF's
    # ServiceManager). Everything of ours is closed by now, so a process that loaded them ends without that.
    if "tensorflow" in sys.modules:
        _remove_generated_files()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _remove_generated_files() -> None:
    """Removes the source files that TensorFlow generated and would remove at a regular exit: thirty for each build."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file"):
            for path in filter(None, (module.__file__, getattr(module, "__cached__", None))):
                with contextlib.suppress(OSError):
                    os.remove(path)
