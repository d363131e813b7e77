"""The HTTP interface of the task builder service (spec: http_api.md, section 1), as a WSGI application.

Builds that were begun are answered with 200 and a BuildTaskResponse, whether they succeeded or not. What is turned away before
that has a status of its own, and a BuildTaskResponse with the reason as its body.
"""

from __future__ import annotations

import hmac
import time
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

import flask
import prometheus_client
import werkzeug.exceptions
from google.protobuf import message

from odp_taskbuilder.base import redaction
from odp_taskbuilder.proto import task_builder_pb2
from odp_taskbuilder.server import admission, builder_client, observability
from odp_taskbuilder.server.build_service import BuildService
from odp_taskbuilder.transport import session

PROTOBUF = session.PROTOBUF
# Clients that know no better name for protobuf, and those that name nothing, are served, too.
_ACCEPTED_TYPES = (PROTOBUF, "application/protobuf", "application/octet-stream", "")
RETRY_AFTER_SECONDS = 10


# Paths that are answered at all times and without a token.
PROBES = ("/ready", "/healthz")


class RequestHead(NamedTuple):
    """What is known of a request before its body.

    Attributes:
      query: what stands behind the question mark.
      headers: by name, as WSGI spells names (`X_GOOG_API_KEY`).
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


def may_have_a_body(tokens: Sequence[str], head: RequestHead) -> bool:
    """Whether the body of a request is of interest: it is one for a build, and comes with a token where one is wanted."""
    if head.method != "POST" or head.path not in (builder_client.BUILD_TASK_GROUP, builder_client.BUILD_ARTIFACTS):
        return False
    keys = urllib.parse.parse_qs(head.query).get("key", [""])
    return not tokens or _is_authorized(tokens, head.headers.get("AUTHORIZATION", ""), head.headers.get("X_GOOG_API_KEY", ""), keys[0])


def create_app(service: BuildService, metrics: observability.Metrics, tokens: Sequence[str] = ()) -> flask.Flask:
    """Makes the application.

    Args:
      tokens: if there are any, requests other than the two probes must carry one of them: as a bearer token, in the
        X-Goog-Api-Key header, or as `key` in the URL.
    """
    app = flask.Flask("odp_taskbuilder")

    @app.post(builder_client.BUILD_TASK_GROUP, provide_automatic_options=False)
    def build_task_group() -> flask.Response:
        return _build(service, metrics, artifacts_only=False)

    @app.post(builder_client.BUILD_ARTIFACTS, provide_automatic_options=False)
    def build_artifacts() -> flask.Response:
        return _build(service, metrics, artifacts_only=True)

    @app.get("/ready")
    def ready() -> tuple[str, int]:
        return "Greetings from Task Builder Flask! Ready check. \n", 200 if service.is_ready else 503

    @app.get("/healthz")
    def healthz() -> str:
        return "Greetings from Task Builder Flask! Health check. \n"

    @app.get("/metrics")
    def metrics_text() -> flask.Response:
        return flask.Response(metrics.text(), content_type=prometheus_client.CONTENT_TYPE_LATEST)

    @app.before_request
    def authenticate() -> Optional[flask.Response]:
        flask.g.begin, flask.g.request_id = time.monotonic(), uuid.uuid4().hex
        headers = flask.request.headers
        given = (headers.get("Authorization", ""), headers.get("X-Goog-Api-Key", ""), flask.request.args.get("key", ""))
        if tokens and flask.request.endpoint not in ("ready", "healthz") and not _is_authorized(tokens, *given):
            response = _refusal(401, "This server wants a token: Authorization: Bearer TOKEN, or X-Goog-Api-Key: TOKEN.")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return None

    @app.after_request
    def record(response: flask.Response) -> flask.Response:
        response.headers["X-Request-Id"] = flask.g.request_id
        endpoint = flask.request.endpoint or "none"
        metrics.count_request(endpoint, response.status_code)
        if endpoint not in ("ready", "healthz", "metrics_text"):
            observability.log(
                "request",
                request_id=flask.g.request_id,
                method=flask.request.method,
                path=flask.request.path,
                status=response.status_code,
                milliseconds=round(1000 * (time.monotonic() - flask.g.begin)),
                **flask.g.get("details", {}),
            )
        return response

    @app.errorhandler(werkzeug.exceptions.HTTPException)
    def refuse(error: werkzeug.exceptions.HTTPException) -> flask.Response:
        response = _refusal(error.code or 500, f"{error.name}. {error.description or ''}".strip())
        if isinstance(error, werkzeug.exceptions.MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    return app


def _build(service: BuildService, metrics: observability.Metrics, *, artifacts_only: bool) -> flask.Response:
    if flask.request.mimetype not in _ACCEPTED_TYPES:
        return _refusal(415, f"The body of a request is {PROTOBUF}, not {flask.request.mimetype!r}.")
    try:
        request = task_builder_pb2.BuildTaskRequest.FromString(flask.request.get_data(cache=False))
    except message.DecodeError as error:
        return _refusal(400, f"Unable to decode request body: {error}")
    flask.g.details = {"population": request.task_config.population_name, "model": redaction.redact_url(request.saved_model.uri)}
    try:
        response = service.handle(request, artifacts_only)
    except admission.Busy:
        return _refusal(503, "All workers are busy and the queue is full.", RETRY_AFTER_SECONDS)
    except admission.Closing:
        return _refusal(503, "The server is shutting down.", RETRY_AFTER_SECONDS)
    result = "SUCCESS"
    if response.HasField("error_info"):
        result = task_builder_pb2.ErrorType.Enum.Name(response.error_info.error_type)
        flask.g.details["error_message"] = response.error_info.error_message
    flask.g.details["result"] = result
    metrics.count_build(result, time.monotonic() - flask.g.begin)
    return flask.Response(response.SerializeToString(), content_type=PROTOBUF)


def _is_authorized(tokens: Sequence[str], authorization: str, api_key: str, key: str) -> bool:
    scheme, _, bearer = authorization.partition(" ")
    given = (bearer if scheme.lower() == "bearer" else "", api_key, key)
    # Every comparison is made, and none of them stops at the first difference: time tells nothing about a token.
    matches = [hmac.compare_digest(one.encode(), token.encode()) for one in given for token in tokens]
    return any(matches)


def refusal_body(status: int, text: str) -> bytes:
    """The body of every answer other than 200."""
    error_type = (
        task_builder_pb2.ErrorType.INVALID_REQUEST if status < 500 else task_builder_pb2.ErrorType.ARTIFACT_BUILDING_ERROR
    )
    info = task_builder_pb2.ErrorInfo(error_type=error_type, error_message=text)
    return task_builder_pb2.BuildTaskResponse(error_info=info).SerializeToString()


def _refusal(status: int, text: str, retry_after: Optional[int] = None) -> flask.Response:
    response = flask.Response(refusal_body(status, text), status=status, content_type=PROTOBUF)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response
