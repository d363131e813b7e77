"""Option types and decorators that several commands share."""

from __future__ import annotations

import functools
import os
from typing import Any, Callable, Optional

import click
from click.shell_completion import CompletionItem

from odp_taskbuilder.base.phone_limits import MAX_CLIENT_CHECKPOINT_BYTES, MAX_RUNTIME
from odp_taskbuilder.cli import commands, output
from odp_taskbuilder.config.compression import DEFAULT_ABOVE, DEFAULT_MODEL_BITS, MAX_BITS, MIN_BITS, Compression
from odp_taskbuilder.config.spec import ASSUMED_ROUNDS_PER_DAY
from odp_taskbuilder.ops.runtimes import parse_runtime


class PathOrUrl(click.ParamType):
    """Text that may be the path of a file or directory: shells complete it as one."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


PATH_OR_URL = PathOrUrl()


class _AbslFlag(click.Option):
    """A boolean option that absl_flag made."""


class CommandWithArguments(commands.Command):
    """A command whose absl flags leave the argument behind them alone: in `--show config.pbtxt` the file is no value of the flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {opt.lstrip("-") for param in self.params if isinstance(param, _AbslFlag) for opt in param.opts}

        def is_bare_flag(arg: str) -> bool:
            return arg.startswith("--") and arg[2:].replace("-", "_") in flags

        return super().parse_args(ctx, [f"{arg}=true" if is_bare_flag(arg) else arg for arg in args])


def absl_flag(name: str, help: str) -> Callable:
    """A boolean option written as the published guide does: --name, --name=true, --name=False, --noname."""

    negated = f"no{name}"

    def apply_negation(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
        return value and not ctx.meta.get(negated, False)

    def remember_negation(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.meta[negated] = value

    def decorate(function: Callable) -> Callable:
        function = click.option(
            f"--{name}",
            cls=_AbslFlag,
            type=click.BOOL,
            is_flag=False,
            flag_value="true",
            default=False,
            callback=apply_negation,
            help=help,
        )(function)
        # Eager: it is read before the option that it negates.
        return click.option(
            f"--{negated}", is_flag=True, is_eager=True, hidden=True, expose_value=False, callback=remember_negation
        )(function)

    return decorate


json_option = click.option(
    "--json", "json_mode", is_flag=True, help="Print the result as one JSON document on stdout, and nothing else there."
)

rounds_per_day = click.option(
    "--rounds_per_day",
    type=click.FloatRange(min=0, min_open=True),
    default=ASSUMED_ROUNDS_PER_DAY,
    show_default=True,
    help="Pace of the training rounds, at least: phones forget after 7 days that they took part, which the tree aggregators pay for.",
)

max_client_checkpoint_bytes = click.option(
    "--max_client_checkpoint_bytes",
    type=click.IntRange(min=0),
    default=MAX_CLIENT_CHECKPOINT_BYTES,
    show_default=True,
    help="What phones take of a checkpoint, before gzip; a model beyond it is refused.",
)


def _release(ctx: click.Context, param: click.Parameter, value: str) -> str:
    parse_runtime(value)
    return value


allow_runtime = click.option(
    "--allow_runtime",
    metavar="VERSION",
    default=MAX_RUNTIME,
    show_default=True,
    callback=_release,
    help="Release of TensorFlow Lite that phones have: client plans that need a later one are refused.",
)

_BITS = click.IntRange(MIN_BITS, MAX_BITS)

compress_updates = click.option(
    "--compress_updates", metavar="BITS", type=_BITS, help="Phones send large tensors in so many bits, 2 to 8; epsilon holds."
)


def compression_options(function: Callable) -> Callable:
    """The options of what travels in codes; the function receives them as one `compression`."""

    @functools.wraps(function)
    def with_compression(
        compress_updates: Optional[int],
        compress_model: Optional[int],
        compress_above: int,
        compress_evaluation: bool,
        **parameters: Any,
    ) -> Any:
        compression = Compression(
            update_bits=compress_updates, model_bits=compress_model, above=compress_above, evaluation=compress_evaluation
        )
        return function(compression=compression, **parameters)

    for option in reversed(
        (
            compress_updates,
            click.option(
                "--compress_model",
                metavar="[BITS]",
                type=_BITS,
                is_flag=False,
                flag_value=str(DEFAULT_MODEL_BITS),
                help=f"Phones receive large tensors in so many bits, 2 to 8; {DEFAULT_MODEL_BITS} when given without a number.",
            ),
            click.option(
                "--compress_above",
                metavar="N",
                type=click.IntRange(min=0),
                default=DEFAULT_ABOVE,
                show_default=True,
                help="Tensors with more elements than this are large.",
            ),
            absl_flag("compress_evaluation", help="Phones that evaluate receive the compressed model, too."),
        )
    ):
        with_compression = option(with_compression)
    return with_compression


trust_model = absl_flag("trust_model", help="Load the model without scanning it first.")


def without_onednn() -> None:
    """Has TensorFlow, which this process imports later, run what a model holds with its own kernels, unless the user has chosen.

    oneDNN's, which processors with AVX-512 VNNI use by default, end the process over operands of another rank than they expect.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def note_trusted_model(rights: str = "with your rights") -> None:
    """Says on stderr what --trust_model means."""
    output.note(f"The model is not scanned (--trust_model): loading it may run what its author put in, {rights}.")
