"""Destinations of artifacts that a config names in its two `artifact_building` messages (spec: task_config.md, section 5)."""

from __future__ import annotations

import re

from odp_taskbuilder.base import redaction
from odp_taskbuilder.config import rules, spec

STORAGE_PATH = "{storage_path}"
_PLACEHOLDER = re.compile(r"\{[A-Za-z_]*\}")
# What a task needs a destination for: attributes of ArtifactUrls, and the field of each with `_url` behind.
_ARTIFACTS = ("plan", "client_plan", "checkpoint")


def read_urls(fields: rules.FieldReader, options: spec.ResolveOptions, path: str) -> spec.ArtifactUrls:
    """The destinations of one task. Each is gs://bucket/object, file:///path or a local path, or empty where none is required.

    A placeholder stays as it is where its value is not known and the URLs are not required.
    """
    return spec.ArtifactUrls(**{name: _read_url(fields, options, f"{path}.{name}_url") for name in _ARTIFACTS})


def check_distinct(fields: rules.FieldReader, urls_by_path: dict[str, spec.ArtifactUrls]) -> None:
    """Refuses a destination that two artifacts share: the second would overwrite the first."""
    owners: dict[str, str] = {}
    for path, urls in urls_by_path.items():
        for name in _ARTIFACTS:
            url, field = getattr(urls, name), f"{path}.{name}_url"
            if url in owners:
                fields.bad_value(field, redaction.redact_url(url), f"It is the destination of {owners[url]} as well.")
            elif url:
                owners[url] = field


def _read_url(fields: rules.FieldReader, options: spec.ResolveOptions, path: str) -> str:
    url = fields.text(path)
    if options.storage_path and STORAGE_PATH in url:
        url = url.replace(STORAGE_PATH, options.storage_path.rstrip("/"))
        fields.origins[path] = spec.Origin.OPTION
    placeholder = _PLACEHOLDER.search(url)
    if placeholder and options.require_artifact_urls:
        hint = "Replace it, or give its value with --storage_path." if placeholder[0] == STORAGE_PATH else "Replace it."
        fields.add_problem(path, f"{'.'.join(path.split('.')[-2:])} still contains the placeholder {placeholder[0]}", hint)
    elif not url and options.require_artifact_urls:
        fields.bad_value(path, url, "To build artifacts without a task, each needs a destination.")
    elif url and not placeholder and not _is_destination(url):
        fields.bad_value(path, redaction.redact_url(url), "A destination is gs://bucket/object, file:///path or a local path.")
    return url


def _is_destination(url: str) -> bool:
    scheme, separator, rest = url.partition("://")
    if url.endswith("/"):
        return False
    if not separator:
        return True
    bucket, _, name = rest.partition("/")
    return bool(bucket and name) if scheme == "gs" else scheme == "file" and rest.startswith("/")
