"""`odp-task verify`: whether artifacts are intact, belong together and will run."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, options, output


@commands.command()
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=pathlib.Path))
@click.option(
    "--allowlist", "allowlist_file", type=click.Path(path_type=pathlib.Path), help="CSV file of the ops that phones have."
)
@options.absl_flag("skip_flex_ops_check", help="Accept ops that phones lack.")
@options.max_client_checkpoint_bytes
@options.allow_runtime
@click.option("--run", is_flag=True, help="Also run one round of each task on made-up examples, in a sandbox.")
@options.json_option
def command(
    directory: pathlib.Path,
    allowlist_file: Optional[pathlib.Path],
    skip_flex_ops_check: bool,
    max_client_checkpoint_bytes: int,
    allow_runtime: str,
    run: bool,
    json_mode: bool,
) -> int:
    """Check the artifacts in a directory: digests, contents, what belongs together, ops, and the limits of phones and servers.

    Artifacts of any builder can be checked; without a manifest their digests cannot. Ends with 9 if something does not hold.

    \b
      odp-task verify odp_artifacts/digits --run
    """
    with output.stage("checking the artifacts, and running a round of each task" if run else "checking the artifacts"):
        from odp_taskbuilder.inspection.text import verification_text
        from odp_taskbuilder.inspection.verify import verify
        from odp_taskbuilder.ops.allowlist import Allowlist

        allowlist = Allowlist.from_csv(allowlist_file) if allowlist_file else None
        result = verify(
            directory,
            allowlist=allowlist,
            check_ops=not skip_flex_ops_check,
            max_client_checkpoint_bytes=max_client_checkpoint_bytes,
            allow_runtime=allow_runtime,
            run=run,
        )
    if json_mode:
        output.print_json(dataclasses.asdict(result))
    else:
        output.show(verification_text(result))
    return errors.ArtifactError.exit_code if result.findings else errors.EXIT_OK
