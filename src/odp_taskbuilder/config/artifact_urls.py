"""Destinations of artifacts that a config names in its two `artifact_building` messages (spec: task_config.md, section 5)."""

from __future__ import annotations

import dataclasses
import re
from typing import Optional

from odp_taskbuilder.config import rules, spec

_TRAINING = "federated_learning.learning_process.artifact_building"
_EVALUATION = "federated_learning.evaluation.artifact_building"

_STORAGE_PATH = "{storage_path}"
_PLACEHOLDER = re.compile(r"\{[A-Za-z_]*\}")


def resolve_urls(
    fields: rules.FieldReader,
    training: Optional[spec.RoundsSpec],
    evaluation: Optional[spec.EvaluationSpec],
    options: spec.ResolveOptions,
) -> tuple[Optional[spec.RoundsSpec], Optional[spec.EvaluationSpec]]:
    """Returns both tasks with their URLs. Each is gs://bucket/object, file:///path or a local path, and no two are the same."""
    taken: dict[str, str] = {}
    if training is not None:
        training = dataclasses.replace(training, urls=_urls(fields, _TRAINING, options, taken))
    if evaluation is not None:
        rounds = dataclasses.replace(evaluation.rounds, urls=_urls(fields, _EVALUATION, options, taken))
        evaluation = dataclasses.replace(evaluation, rounds=rounds)
    return training, evaluation


def _urls(fields: rules.FieldReader, path: str, options: spec.ResolveOptions, taken: dict[str, str]) -> spec.ArtifactUrls:
    return spec.ArtifactUrls(
        plan=_url(fields, f"{path}.plan_url", options, taken),
        client_plan=_url(fields, f"{path}.client_plan_url", options, taken),
        checkpoint=_url(fields, f"{path}.checkpoint_url", options, taken),
    )


def _url(fields: rules.FieldReader, path: str, options: spec.ResolveOptions, taken: dict[str, str]) -> str:
    """One destination; an empty string where the config names none.

    Without a storage path its placeholder stays: no harm unless the URL is to be used.
    """
    url = fields.text(path)
    if options.storage_path is not None and _STORAGE_PATH in url:
        url = url.replace(_STORAGE_PATH, options.storage_path.rstrip("/"))
        fields.origins[path] = spec.Origin.OPTION
    field = ".".join(path.split(".")[-2:])
    placeholder = _PLACEHOLDER.search(url)
    if placeholder:
        if options.require_artifact_urls:
            hint = "Replace it, or give its value with --storage_path." if placeholder[0] == _STORAGE_PATH else "Replace it."
            fields.add_problem(path, f"{field} still contains the placeholder {placeholder[0]}", hint)
        return url
    if not url:
        if options.require_artifact_urls:
            fields.bad_value(path, url, "Building artifacts without a task needs a destination for each of them.")
        return url
    if not _is_destination(url):
        fields.bad_value(path, url, "A destination is gs://bucket/object, file:///path or a local path.")
    elif url in taken:
        fields.bad_value(path, url, f"It is the destination of {taken[url]} as well.")
    taken[url] = field
    return url


def _is_destination(url: str) -> bool:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return not url.endswith("/")
    if scheme == "gs":
        bucket, _, name = rest.partition("/")
        return bool(bucket and name)
    return scheme == "file" and rest.startswith("/") and not rest.endswith("/")
