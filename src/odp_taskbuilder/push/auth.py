"""Who asks: the headers that authenticate requests to task servers (spec: http_api.md, section 2.2).

An API key travels in the X-Goog-Api-Key header; builder_client.py says when it may go into the URL. All else is an ID token
whose audience is the server. Every request gets headers of its own; a token is used until shortly before it expires. Every
secret is registered for redaction.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import ipaddress
import json
import os
import threading
import time
import urllib.parse
from typing import Any, Callable, Optional

import requests

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction
from odp_taskbuilder.transport import session

_CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
_IAM_CREDENTIALS = "https://iamcredentials.googleapis.com"
_METADATA_HOST = "metadata.google.internal"
METADATA_HEADERS = {"Metadata-Flavor": "Google"}

# A token that is to be used has so many seconds left: requests wait for retries.
_MARGIN_SECONDS = 300
# How long Google's tokens are good; for those that do not say.
_LIFE_SECONDS = 3600

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


class _Tokens:
    """Tokens by what they were asked for with, until they expire."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: dict[tuple[str, ...], tuple[str, float]] = {}

    def get(self, key: tuple[str, ...], fetch: Callable[[], tuple[str, float]]) -> str:
        """The token of a key; `fetch` returns a new one, and when it expires in seconds since the epoch."""
        now = time.time()
        token, expiry = self._by_key.get(key, ("", 0.0))
        if expiry - now > _MARGIN_SECONDS:
            return token
        token, expiry = fetch()
        redaction.protect(token, max(expiry - now, _LIFE_SECONDS))
        with self._lock:
            self._by_key = {known: value for known, value in self._by_key.items() if value[1] > now}
            self._by_key[key] = (token, expiry)
        return token


_tokens = _Tokens()


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine: localhost, 127.0.0.0/8 or ::1."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
        if host == "localhost":
            return True
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
    account = login.impersonate_service_account
    if not account and is_loopback(server_url):
        return {}
    key_file = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")

    def fetch() -> tuple[str, float]:
        if account:
            token = _impersonated_id_token(account, audience, http)
        elif key_file:
            token = _key_file_id_token(key_file, audience, http)
        else:
            token = _metadata_id_token(audience, http)
        return token, _expiry(token)

    source = ("account", account, key_file) if account else ("file", key_file) if key_file else ("machine", metadata_url(""))
    return {"Authorization": f"Bearer {_tokens.get((*source, audience), fetch)}"}


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

    def fetch() -> tuple[str, float]:
        try:
            credentials, _ = google.auth.default(scopes=[_CLOUD_PLATFORM], request=request)
            credentials.refresh(request)
        except google.auth.exceptions.GoogleAuthError as error:
            raise _no_credentials(f"There are no usable application default credentials: {error}") from None
        # Google's library writes UTC without saying so.
        expiry = credentials.expiry.replace(tzinfo=datetime.timezone.utc).timestamp() if credentials.expiry else 0.0
        return credentials.token, expiry

    return _tokens.get(("access", os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")), fetch)


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
    if not answer.ok or _claims(token) is None:
        raise _no_credentials(f"The metadata server gives no ID token for {audience}: {answer}.")
    return token


def _claims(token: str) -> Optional[dict[str, Any]]:
    """What a JSON web token says of itself; None if it is none."""
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "==")) if len(parts) == 3 else None
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None


def _expiry(token: str) -> float:
    """Seconds since the epoch at which an ID token expires; 0 if it does not say."""
    expiry = (_claims(token) or {}).get("exp")
    return float(expiry) if isinstance(expiry, (int, float)) else 0.0


def _ask(http: requests.Session, method: str, url: str, headers: dict[str, str], body: Optional[bytes]) -> session.Answer:
    try:
        return session.exchange(http, method, url, headers=headers, body=body)
    except session.NoAnswer as error:
        host = urllib.parse.urlsplit(url).hostname
        raise _no_credentials(f"No credentials: {host} does not answer: {error}.") from None


def _no_credentials(text: str) -> errors.TaskServerError:
    return errors.TaskServerError(redaction.redact(text), next_step=_CURES)
