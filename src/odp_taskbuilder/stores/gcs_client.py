"""Google's storage client: how it is set up, and what its exceptions mean. Importing it takes half a second."""

from __future__ import annotations

import contextlib
import http
import os
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import requests

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction
from odp_taskbuilder.transport import deadline as deadlines
from odp_taskbuilder.transport import session

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


def new_client(network: deadlines.Network, deadline: deadlines.Deadline) -> Any:
    """Makes a client whose requests keep to the deadline.

    Raises:
      errors.StorageError: there are no credentials, and no emulator either.
    """
    # The client would ask for the bucket's location in the background, for telemetry, beside every call.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    with warnings.catch_warnings():
        # About Python and gRPC versions of the years to come; nothing a user of this tool can act on.
        warnings.simplefilter("ignore")
        import google.auth
        import google.auth.credentials
        import google.auth.exceptions
        import google.auth.transport.requests
        from google.cloud import storage

    request = google.auth.transport.requests.Request(session.configure(requests.Session(), network, deadline))
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        credentials: Any = google.auth.credentials.AnonymousCredentials()
    else:
        try:
            credentials, _ = google.auth.default(scopes=[_SCOPE], request=request)
        except google.auth.exceptions.GoogleAuthError as error:
            raise errors.StorageError(
                f"There are no credentials for Cloud Storage: {redaction.redact(str(error))}",
                next_step="Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
            ) from None
    authorized = google.auth.transport.requests.AuthorizedSession(credentials, auth_request=request)
    session.configure(authorized, network, deadline)
    # Objects are addressed by bucket; no call of ours needs a project.
    return storage.Client(project=None, credentials=credentials, _http=authorized)


class DamagedDownload(Exception):
    """What arrived is not what is stored."""


def not_found() -> type[Exception]:
    from google.api_core import exceptions

    return exceptions.NotFound


def is_worth_another_upload(error: Exception) -> bool:
    from google.api_core import exceptions
    from google.cloud.storage import exceptions as media

    if isinstance(error, exceptions.BadRequest):
        # Bytes that were damaged on the way do not fit the checksum that came with them.
        return "crc32c" in str(error).lower()
    if isinstance(error, exceptions.GoogleAPICallError):
        return error.code in session.TRANSIENT_STATUSES
    # ValueError: an answer that is no JSON, or a chunked upload whose ends do not meet any more; it starts again.
    transient = (requests.RequestException, ConnectionError, ValueError, media.InvalidResponse, media.DataCorruption)
    return isinstance(error, transient)


def is_damaged_answer(error: Exception) -> bool:
    """Whether metadata arrived that is no JSON."""
    return isinstance(error, ValueError)


def is_worth_another_download(error: Exception) -> bool:
    from google.cloud.storage import exceptions as media

    return isinstance(error, (DamagedDownload, media.DataCorruption))


@contextlib.contextmanager
def storage_errors(action: str, url: str) -> Iterator[None]:
    """Turns what the client raises into our error.

    The cause is not chained: texts of the client hold URLs of upload sessions, which give write access.
    """
    import google.auth.exceptions
    from google.api_core import exceptions
    from google.cloud.storage import exceptions as media

    try:
        yield
    except exceptions.RetryError as error:
        _raise_for(action, url, error.cause or error)
    except (
        exceptions.GoogleAPIError,
        google.auth.exceptions.GoogleAuthError,
        media.InvalidResponse,
        media.DataCorruption,
        requests.RequestException,
        DamagedDownload,
        OSError,
        ValueError,
    ) as error:
        _raise_for(action, url, error)


_NEXT_STEPS = {
    http.HTTPStatus.UNAUTHORIZED: "Check the credentials: gcloud auth application-default login.",
    http.HTTPStatus.FORBIDDEN: "Ask for access to the bucket: reading needs roles/storage.objectViewer, writing objectUser.",
    http.HTTPStatus.NOT_FOUND: "Check that the bucket exists.",
    http.HTTPStatus.PRECONDITION_FAILED: "Somebody else wrote to the object meanwhile. Look at it, then run the command again.",
}


def _raise_for(action: str, url: str, error: Exception) -> NoReturn:
    code = getattr(error, "code", None)
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    raise errors.StorageError(
        f"Cannot {action} {url}: {redaction.redact(str(text)).strip()}", next_step=_NEXT_STEPS.get(code)
    ) from None
