"""Who asks: the headers that authenticate requests to task servers (spec: http_api.md, section 2.2).

An API key travels in the X-Goog-Api-Key header; builder_client.py says when it may go into the URL. All else is an ID token
whose audience is the server. Every request gets headers of its own, and every secret is registered for redaction.
"""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import json
import os
import urllib.parse
from typing import Optional

import requests

from odp_taskbuilder import errors
from odp_taskbuilder.transport import redaction, session

_CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
_IAM_CREDENTIALS = "https://iamcredentials.googleapis.com"
_METADATA_HOST = "metadata.google.internal"
METADATA_HEADERS = {"Metadata-Flavor": "Google"}

_CURES = (
    "On Google Cloud, run with a service account. Elsewhere set GOOGLE_APPLICATION_CREDENTIALS to the key file of one, or pass "
    "--impersonate_service_account after `gcloud auth application-default login`."
)


@dataclasses.dataclass(frozen=True)
class Login:
    """What the user gave to be recognised by; nothing at all means the identity of the machine.

    Attributes:
      api_key: of an API gateway. Wins over everything else.
      impersonate_service_account: the e-mail address of an account that the user's own credentials may act as.
    """

    api_key: Optional[str] = dataclasses.field(default=None, repr=False)
    impersonate_service_account: Optional[str] = None

    def __post_init__(self) -> None:
        if self.api_key:
            redaction.protect(self.api_key)


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine: localhost, 127.0.0.0/8 or ::1."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def headers(login: Login, server_url: str, audience: str, http: requests.Session) -> dict[str, str]:
    """Returns fresh authentication headers for one request; none for this machine, unless the user gave something.

    Raises:
      errors.TaskServerError: the credentials cannot be had.
    """
    if login.api_key:
        return {"X-Goog-Api-Key": login.api_key}
    if login.impersonate_service_account:
        token = _impersonated_id_token(login.impersonate_service_account, audience, http)
    elif is_loopback(server_url):
        return {}
    elif os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        token = _key_file_id_token(os.environ["GOOGLE_APPLICATION_CREDENTIALS"], audience, http)
    else:
        token = _metadata_id_token(audience, http)
    return {"Authorization": f"Bearer {redaction.protect(token)}"}


def metadata_url(path: str) -> str:
    """The address of an entry of the machine's metadata server; GCE_METADATA_HOST names another one."""
    return f"http://{os.environ.get('GCE_METADATA_HOST') or _METADATA_HOST}/computeMetadata/v1/{path}"


def access_token(http: requests.Session) -> str:
    """Returns an access token of the application default credentials.

    Raises:
      errors.TaskServerError: there are none, or they are refused.
    """
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests

    request = google.auth.transport.requests.Request(http)
    try:
        credentials, _ = google.auth.default(scopes=[_CLOUD_PLATFORM], request=request)
        credentials.refresh(request)
    except google.auth.exceptions.GoogleAuthError as error:
        raise _no_credentials(f"There are no usable application default credentials: {error}") from None
    return redaction.protect(credentials.token)


def _impersonated_id_token(account: str, audience: str, http: requests.Session) -> str:
    url = f"{_IAM_CREDENTIALS}/v1/projects/-/serviceAccounts/{urllib.parse.quote(account, safe='@')}:generateIdToken"
    answer = _ask(
        http,
        "POST",
        url,
        {"Authorization": f"Bearer {access_token(http)}", "Content-Type": "application/json"},
        json.dumps({"audience": audience, "includeEmail": True}).encode(),
    )
    try:
        return str(json.loads(answer.body)["token"])
    except (ValueError, KeyError, TypeError):
        raise _no_credentials(
            f"Cannot act as {account}: {answer}. Your own account needs roles/iam.serviceAccountTokenCreator on it."
        ) from None


def _key_file_id_token(path: str, audience: str, http: requests.Session) -> str:
    import google.auth.exceptions
    import google.auth.transport.requests
    from google.oauth2 import service_account

    try:
        credentials = service_account.IDTokenCredentials.from_service_account_file(path, target_audience=audience)
        credentials.refresh(google.auth.transport.requests.Request(http))
    except (OSError, ValueError, google.auth.exceptions.GoogleAuthError) as error:
        raise _no_credentials(f"GOOGLE_APPLICATION_CREDENTIALS ({path}) gives no ID token: {error}") from None
    return str(credentials.token)


def _metadata_id_token(audience: str, http: requests.Session) -> str:
    query = urllib.parse.urlencode({"audience": audience, "format": "full"})
    answer = _ask(http, "GET", metadata_url(f"instance/service-accounts/default/identity?{query}"), METADATA_HEADERS, None)
    token = answer.body.decode("latin-1").strip()
    if not answer.ok or not _is_id_token(token):
        raise _no_credentials(f"The metadata server gives no ID token for {audience}: {answer}.")
    return token


def _is_id_token(token: str) -> bool:
    """Whether it has the form of a JSON web token."""
    parts = token.split(".")
    try:
        return len(parts) == 3 and isinstance(json.loads(base64.urlsafe_b64decode(parts[1] + "==")), dict)
    except ValueError:
        return False


def _ask(http: requests.Session, method: str, url: str, headers: dict[str, str], body: Optional[bytes]) -> session.Answer:
    try:
        return session.exchange(http, method, url, headers=headers, body=body)
    except session.NoAnswer as error:
        host = urllib.parse.urlsplit(url).hostname
        raise _no_credentials(f"No credentials: {host} does not answer: {error}.") from None


def _no_credentials(text: str) -> errors.TaskServerError:
    return errors.TaskServerError(redaction.redact(text), next_step=_CURES)
