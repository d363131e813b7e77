"""Finding the task management server: an option, the environment, or a secret of the project (spec: http_api.md, section 4)."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Optional

import requests

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction
from odp_taskbuilder.push import auth
from odp_taskbuilder.transport import session

SERVER_VARIABLE = "TASK_MANAGEMENT_SERVER_URL"
_SECRET_MANAGER = "https://secretmanager.googleapis.com"
NOT_FOUND = "Cannot find task management server."
# No character of user and password (@), query, fragment, or of what parsers read in different ways.
_BASE_URL = re.compile(r"https?://[^\s@?#\\\x00-\x1f\x7f]+", re.IGNORECASE)
_NEXT_STEP = f"Name it with --task_management_server URL, or in {SERVER_VARIABLE}."


def find_task_management_server(option: Optional[str], http: requests.Session, environ: Mapping[str, str] = os.environ) -> str:
    """Returns the base URL of the task management server, as it is written there: it is also the audience of tokens.

    Raises:
      errors.TaskServerError: none is named anywhere, or what is named is no URL.
    """
    for source, url in (("--task_management_server", option), (SERVER_VARIABLE, environ.get(SERVER_VARIABLE))):
        if url:
            return check_base_url(url, f"{source} {redaction.redact_url(url)!r}")
    project = environ.get("GOOGLE_CLOUD_PROJECT") or _project_of_machine(http)
    if not project:
        raise errors.TaskServerError(NOT_FOUND, next_step=_NEXT_STEP)
    environment = environ.get("ENV")
    name = f"fc-{environment}-{SERVER_VARIABLE}" if environment else f"fc-{SERVER_VARIABLE}"
    url = _secret(project, name, http)
    if url is None:
        raise errors.TaskServerError(f"{NOT_FOUND} Project {project} has no secret {name}.", next_step=_NEXT_STEP)
    return check_base_url(url, f"secret {name} of project {project}")


def check_base_url(url: str, source: str) -> str:
    """Returns `url`, which `source` gave.

    Raises:
      errors.TaskServerError: it is not http(s)://host...; the secret of a deployment that was never filled is `undefined`. Nor is
        it a URL with a user, a password or a query: where it went, its secrets would go.
    """
    if not _BASE_URL.fullmatch(url) or not _is_host(url):
        raise errors.TaskServerError(
            f"{source} is not the URL of a server.",
            next_step="Expected http(s)://host[:port], without user, password and query.",
        )
    return url


def _is_host(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def without_slash(url: str) -> str:
    """`url` without one trailing slash."""
    return url[:-1] if url.endswith("/") else url


def _project_of_machine(http: requests.Session) -> Optional[str]:
    try:
        answer = session.exchange(http, "GET", auth.metadata_url("project/project-id"), headers=auth.METADATA_HEADERS)
    except session.NoAnswer:
        return None
    return answer.body.decode("latin-1").strip() if answer.ok else None


def _secret(project: str, name: str, http: requests.Session) -> Optional[str]:
    """The latest version of a secret; None if there is none, or it arrives damaged."""
    import google_crc32c

    quoted = (urllib.parse.quote(part, safe="") for part in (project, name))
    url = _SECRET_MANAGER + "/v1/projects/{}/secrets/{}/versions/latest:access".format(*quoted)
    try:
        answer = session.exchange(http, "GET", url, headers={"Authorization": f"Bearer {auth.access_token(http)}"})
    except session.NoAnswer as error:
        raise errors.TaskServerError(f"{NOT_FOUND} Secret Manager does not answer: {error}.", next_step=_NEXT_STEP) from None
    if answer.status == 404:
        return None
    if not answer.ok:
        raise errors.TaskServerError(f"{NOT_FOUND} Secret {name} cannot be read: {answer}.", next_step=_NEXT_STEP)
    try:
        payload = json.loads(answer.body)["payload"]
        data = base64.b64decode(payload["data"], validate=True)
        intact = int(payload.get("dataCrc32c", google_crc32c.value(data))) == google_crc32c.value(data)
        return data.decode("utf-8").strip() if intact else None
    except (ValueError, KeyError, TypeError):
        return None
