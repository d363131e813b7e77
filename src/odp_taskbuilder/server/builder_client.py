"""Asking a task builder server to build (spec: http_api.md, sections 1 and 2).

An API key goes in the X-Goog-Api-Key header. The gateway of the published deployment reads it from the URL's `key` parameter
instead and turns a request without one away; only after such a refusal, and never unencrypted over a network, is it sent so.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import urllib.parse

import requests
from google.protobuf import message

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction
from odp_taskbuilder.proto import task_builder_pb2
from odp_taskbuilder.push import auth, locating
from odp_taskbuilder.transport import deadline as deadlines
from odp_taskbuilder.transport import session

BUILD_TASK_GROUP = "/taskbuilder/v1:build-task-group"
BUILD_ARTIFACTS = "/taskbuilder/v1:build-artifacts"

_MAX_RETRY_AFTER = 60.0
# How long a server that takes no connection is tried again: it may just have been started.
_STARTING_SECONDS = 10.0


def request_build(
    server: str,
    request: task_builder_pb2.BuildTaskRequest,
    *,
    artifacts_only: bool = False,
    login: auth.Login = auth.Login(),
    network: deadlines.Network = deadlines.Network(),
) -> task_builder_pb2.BuildTaskResponse:
    """Has a task builder server build, create and upload tasks, or, with `artifacts_only`, only build and upload artifacts.

    A build is sent once: its answer may be lost, and a second one would meet the task of the first. It is sent again only when
    the server was too busy to begin (503 with Retry-After), and, for a few seconds, while it takes no connection.

    Args:
      server: base URL. Its answer is awaited until the deadline: a build takes minutes, in which nothing is sent.

    Returns:
      What the server answered, success or not; see `check_success`.

    Raises:
      errors.TaskServerError: the server refused the request itself.
      errors.StorageError: the server cannot be reached, or its answer is lost or unreadable.
    """
    endpoint = locating.without_slash(locating.check_base_url(server, f"--task_builder_server {redaction.redact_url(server)!r}"))
    endpoint += BUILD_ARTIFACTS if artifacts_only else BUILD_TASK_GROUP
    deadline = deadlines.Deadline(network.deadline)
    http = session.configure(requests.Session(), dataclasses.replace(network, silence=network.deadline), deadline)
    body = request.SerializeToString()
    return deadlines.call_within(deadline, lambda: _parse(_send(http, endpoint, body, login, network, deadline), endpoint))


def check_success(response: task_builder_pb2.BuildTaskResponse) -> None:
    """Raises what a handled failure of the server means here.

    Raises:
      errors.ConfigError: INVALID_REQUEST.
      errors.TaskServerError: every other failure.
    """
    if response.WhichOneof("result") != "error_info":
        return
    info = response.error_info
    name = (
        task_builder_pb2.ErrorType.Enum.Name(info.error_type)
        if info.error_type in task_builder_pb2.ErrorType.Enum.values()
        else str(info.error_type)
    )
    text = f"Failed to create task group. Error type: {info.error_type} ({name}); Error message: {info.error_message}"
    if info.error_type == task_builder_pb2.ErrorType.INVALID_REQUEST:
        raise errors.ConfigError([errors.Problem(text)])
    raise errors.TaskServerError(text)


def _send(
    http: requests.Session,
    endpoint: str,
    body: bytes,
    login: auth.Login,
    network: deadlines.Network,
    deadline: deadlines.Deadline,
) -> session.Answer:
    url = endpoint
    connecting = dataclasses.replace(
        network, retry_for=min(network.retry_for, _STARTING_SECONDS), longest_pause=min(network.longest_pause, 1.0)
    )
    while True:
        headers = {"Content-Type": session.PROTOBUF}
        if url == endpoint:
            headers.update(auth.headers(login, endpoint, endpoint, http))
        try:
            attempt = functools.partial(session.exchange, http, "POST", url, headers=headers, body=body)
            answer = deadlines.repeat(attempt, _was_not_sent, connecting, deadline)
        except session.NoAnswer as error:
            raise errors.StorageError(f"Fail to connect: {endpoint} ({error})", next_step=_next_step(error, endpoint)) from None
        if answer.status in (401, 403) and login.api_key and url == endpoint and _may_carry_key(endpoint):
            url = f"{endpoint}?{urllib.parse.urlencode({'key': login.api_key})}"
        elif answer.status == 503 and (pause := _retry_after(answer)) < deadline.remaining():
            time.sleep(pause)
        else:
            return answer


def _was_not_sent(error: Exception) -> bool:
    return isinstance(error, session.NoAnswer) and not error.sent


def _may_carry_key(url: str) -> bool:
    return url.startswith("https://") or auth.is_loopback(url)


def _retry_after(answer: session.Answer) -> float:
    """Seconds until a busy server wants to be asked again; infinite if it did not say so, and so may have begun."""
    value = answer.headers.get("Retry-After", "")
    return min(float(value), _MAX_RETRY_AFTER) if value.isascii() and value.isdigit() else float("inf")


def _parse(answer: session.Answer, endpoint: str) -> task_builder_pb2.BuildTaskResponse:
    try:
        response = task_builder_pb2.BuildTaskResponse.FromString(answer.body)
    except message.DecodeError:
        response = task_builder_pb2.BuildTaskResponse()
    if answer.ok and response.WhichOneof("result") is not None:
        return response
    if answer.ok:
        raise errors.StorageError(
            f"Server returned unreadable response. ({endpoint})",
            next_step="The build may have happened. Look at the tasks of the population before asking again.",
        )
    reason = f": {response.error_info.error_message}" if response.error_info.error_message else ""
    raise errors.TaskServerError(f"{answer} ({endpoint}){reason}", next_step=_REFUSED.get(answer.status))


_REFUSED = {
    401: "Give credentials that the server accepts: --api_key or --impersonate_service_account.",
    403: "Give credentials that the server accepts: --api_key or --impersonate_service_account.",
    404: "Check --task_builder_server: there is no task builder at that address.",
    503: "The server is busy. Ask again later.",
}


def _next_step(error: session.NoAnswer, endpoint: str) -> str:
    if error.sent:
        return "The build may go on, or have happened. Look at the tasks of the population before asking again."
    if auth.is_loopback(endpoint):
        return "Start the server with: odp-task serve"
    return "Check --task_builder_server and the connection."
