"""The files of an app that feeds tasks."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Optional, Union
from xml.sax import saxutils

from odp_taskbuilder import errors
from odp_taskbuilder.android import encoder, names
from odp_taskbuilder.artifacts.example_format import ExampleFormat
from odp_taskbuilder.artifacts.phone_fit import example_bytes
from odp_taskbuilder.base import package_data, plain_text
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.base.phone_limits import FIRST_FEDERATED_MODULE, MAX_EXAMPLE_BYTES
from odp_taskbuilder.model.input_spec import TensorInfo

_SUFFIXES = {"java": "java", "kotlin": "kt"}
_ODP = "android.adservices.ondevicepersonalization."
_COMMON_IMPORTS = (
    *(
        _ODP + name
        for name in (
            "DownloadCompletedInput",
            "DownloadCompletedOutput",
            "ExecuteInput",
            "ExecuteOutput",
            "FederatedComputeInput",
            "FederatedComputeScheduler",
            "IsolatedWorker",
            "KeyValueStore",
            "TrainingInterval",
        )
    ),
    "android.util.Log",
    "java.nio.ByteBuffer",
    "java.time.Duration",
    "java.util.concurrent.Executors",
)
_IMPORTS = {
    "java": (
        "android.os.PersistableBundle",
        "java.util.ArrayList",
        "java.util.Arrays",
        "java.util.Collections",
        "java.util.List",
        "java.util.concurrent.ExecutorService",
    ),
    "kotlin": (),
    "released": (
        *(
            _ODP + name
            for name in ("IsolatedServiceException", "TrainingExampleRecord", "TrainingExamplesInput", "TrainingExamplesOutput")
        ),
        "android.os.OutcomeReceiver",
    ),
    "guide": (_ODP + "TrainingExampleInput", _ODP + "TrainingExampleOutput", "java.util.function.Consumer"),
}
_ERROR_CODES = {
    ("java", "released"): "\n\n    /** What the phone logs. */\n    private static final int ERROR_TRAINING_EXAMPLES = 1;\n"
    "    private static final int ERROR_EXECUTE = 2;",
    ("kotlin", "released"): "\n\n        /** What the phone logs. */\n        private const val ERROR_TRAINING_EXAMPLES = 1\n"
    "        private const val ERROR_EXECUTE = 2",
}
_API_TEXT = {
    "released": "The worker overrides `onTrainingExamples`, which released modules call (API level 35). "
    "Android deprecates\nthese APIs from API level 37 on.",
    "guide": "The worker overrides `onTrainingExample` as the published guide prints it. Released modules (API level 35) do not call it: make the "
    "files with\n`--api released` for them.",
}


@keyword_only
@dataclasses.dataclass(frozen=True)
class AppOptions:
    """What an app is called, and the servers it talks to.

    Attributes:
      package, service: names of the package, and of the class that the phone binds to.
      federated_compute_url: https URL of the federated compute server.
      download_url: https URL that phones poll for RemoteData.
      language: "java" or "kotlin".
      api: "released": what phones with released modules call; "guide": what the published guide prints, which some of their previews called.
      settings_name: of the XML resource. Newer resource mergers refuse capital letters.
    """

    package: str
    service: str
    federated_compute_url: str
    download_url: Optional[str] = None
    language: str = "java"
    api: str = "released"
    settings_name: str = "odp_settings"


@dataclasses.dataclass(frozen=True)
class WrittenApp:
    """What was written, what was there and kept, and what an app developer should know."""

    written: tuple[pathlib.Path, ...]
    kept: tuple[pathlib.Path, ...]
    notices: tuple[str, ...]


def write_app(
    tasks: Sequence[ExampleFormat], output: Union[str, os.PathLike], options: AppOptions, *, overwrite: bool = False
) -> WrittenApp:
    """Writes the files of an app into a directory, laid out as its `src/main`.

    Args:
      tasks: of different populations.
      overwrite: replace files that are there; otherwise they are kept. The file that is the developer's own is never replaced.

    Raises:
      UsageError: a name or URL does not do, or the tasks cannot be served by one class.
      StorageError: a file cannot be written.
    """
    files = app_files(tasks, options)
    own = f"{options.service}Data.{_SUFFIXES[options.language]}"
    written, kept = [], []
    for name, content in files.items():
        path = pathlib.Path(output) / name
        if path.exists() and (not overwrite or path.name == own):
            kept.append(path)
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            if path.suffix == ".sh":
                path.chmod(0o755)
        except OSError as error:
            raise errors.StorageError(f"Cannot write {path}: {error.strerror}.") from error
        written.append(path)
    return WrittenApp(tuple(written), tuple(kept), tuple(_notices(tasks, options)))


def app_files(tasks: Sequence[ExampleFormat], options: AppOptions) -> dict[str, str]:
    """Path below the app's `src/main` -> content.

    Raises:
      UsageError: as `write_app`.
    """
    names.check_package(options.package)
    names.check_class(options.service)
    names.check_resource(options.settings_name)
    check_url("federated_compute_url", options.federated_compute_url)
    if options.download_url is not None:
        check_url("download_url", options.download_url)
    _check_populations(tasks)
    suffix = _SUFFIXES[options.language]
    folder = f"{options.language}/{options.package.replace('.', '/')}"
    values = _values(tasks, options, folder)
    sources = {
        f"{options.service}Examples": "examples",
        f"{options.service}Data": "data",
        options.service: "service",
        f"{options.service}Worker": "worker",
    }
    return {
        "AndroidManifest.xml": _rendered("AndroidManifest.xml", values),
        f"res/xml/{options.settings_name}.xml": _rendered("settings.xml", values),
        **{f"{folder}/{name}.{suffix}": _rendered(f"{template}.{suffix}", values) for name, template in sources.items()},
        "device-setup.sh": _rendered("device-setup.sh", values),
        "device-undo.sh": _rendered("device-undo.sh", values),
        "README.md": _rendered("README.md", values),
    }


def check_url(option: str, url: str) -> None:
    """Raises:
    UsageError: a phone does not take the URL of a server.
    """
    problem = url_problem(url)
    if problem:
        raise errors.UsageError(
            f"--{option} {url!r}: {problem}.", next_step="Expected for example https://federated.example.com"
        )


def url_problem(url: str) -> Optional[str]:
    """Why phones take no such URL of a server; None if they do."""
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme != "https":
        return "it does not begin with https://, and phones send nothing unencrypted"
    if not parts.hostname:
        return "it names no host"
    if parts.username is not None or parts.password is not None:
        return "it holds a user name or password, which every app user can read"
    if not url.isascii() or any(character <= " " or character in '"<>\\^`{|}' for character in url):
        return "it holds characters that stand in no URL"
    return None


def _values(tasks: Sequence[ExampleFormat], options: AppOptions, folder: str) -> dict[str, str]:
    kotlin = options.language == "kotlin"
    suffix = _SUFFIXES[options.language]
    imports = sorted({*_COMMON_IMPORTS, *_IMPORTS[options.language], *_IMPORTS[options.api]})
    versions = [task.min_client_version or 0 for task in tasks]
    download = (
        "" if options.download_url is None else f"    <download-settings url={saxutils.quoteattr(options.download_url)} />\n"
    )
    return {
        "package": options.package,
        "service": options.service,
        "settings": options.settings_name,
        "federated_compute_url": saxutils.escape(options.federated_compute_url, {'"': "&quot;"}),
        "download_settings": download,
        "download_row": "" if options.download_url is None else ", and where downloads are polled",
        "constants": encoder.constants(tasks, kotlin),
        "methods": encoder.methods(tasks, kotlin),
        "populations": ", ".join(
            f"{options.service}Examples.{constant}" for constant in encoder.population_constants(tasks).values()
        ),
        "imports": "\n".join(f"import {name}{'' if kotlin else ';'}" for name in imports),
        "callbacks": _template(f"callbacks_{options.api}.{suffix}").rstrip("\n"),
        "error_codes": _ERROR_CODES.get((options.language, options.api), ""),
        "max_example_bytes": str(MAX_EXAMPLE_BYTES),
        "min_client_version": str(max(FIRST_FEDERATED_MODULE, *versions)),
        "names": ", ".join(plain_text.escaped(task.population_name) for task in tasks),
        "features": "\n".join(_feature_lines(tasks)),
        "folder": folder,
        "suffix": suffix,
        "api": _API_TEXT[options.api],
    }


def _feature_lines(tasks: Sequence[ExampleFormat]) -> Iterator[str]:
    for task in tasks:
        for feature, parameter in encoder.signature(task).items():
            yield f"    {plain_text.escaped(task.population_name)}: {plain_text.escaped(str(feature))}, parameter {parameter}"


def _check_populations(tasks: Sequence[ExampleFormat]) -> None:
    seen: dict[str, ExampleFormat] = {}
    for task in tasks:
        if not task.population_name:
            raise errors.UsageError(
                f"{task.source} does not say which population its task is of.",
                next_step="Add --population_name, as the task config has it.",
            )
        if task.population_name in seen:
            raise errors.UsageError(
                f"{task.source} and {seen[task.population_name].source} are of one population, {task.population_name!r}."
            )
        seen[task.population_name] = task


def _notices(tasks: Sequence[ExampleFormat], options: AppOptions) -> Iterator[str]:
    for task in tasks:
        for feature, parameter in encoder.signature(task).items():
            if parameter != feature.name:
                yield f"Feature {feature.name!r} of {task.population_name!r} is the parameter {parameter}: its own name is none in Java or Kotlin."
        size = example_bytes({each.name: TensorInfo(each.kind, (None, *each.shape)) for each in task.features})
        if size > MAX_EXAMPLE_BYTES:
            yield (
                f"An example of {task.population_name!r} may take {size:,} bytes; phones take none above {MAX_EXAMPLE_BYTES:,}, and the encoder "
                "throws an IllegalArgumentException for it."
            )
    if options.settings_name != options.settings_name.lower():
        yield f"Newer resource mergers refuse the capital letters in res/xml/{options.settings_name}.xml."
    if any(task.min_client_version is None for task in tasks):
        yield (
            f"Before a build it is not known which module version a task needs: device-setup.sh asks for {FIRST_FEDERATED_MODULE}, the first with "
            "federated learning."
        )


def _rendered(template: str, values: Mapping[str, str]) -> str:
    """A template with each `{{name}}` replaced; what stands in the values is text, and no placeholder."""
    text = _template(template)
    parts = text.split("{{")
    rendered = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition("}}")
        rendered += [values[name], rest]
    return "".join(rendered)


def _template(name: str) -> str:
    return package_data.read_text("odp_taskbuilder.android", "templates", name)
