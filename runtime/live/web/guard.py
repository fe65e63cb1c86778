"""Who may use the page: programs of this machine, or whoever has the token.

Any web page that is open in a browser can send requests to an address of this machine. So requests
that change something need a header that other pages cannot send, WebSockets the right origin, and
the name in `Host` has to be this machine's: otherwise a page could give a name of its own our
address (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
from typing import Any
from urllib.parse import urlsplit

from ...support.errors import ConfigError

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
MARK = "X-Sonomime"
"""The header of requests that change something."""
COOKIE = "sonomime-token"
TOKEN = "SONOMIME_TOKEN"
"""The environment variable of a token that stays the same at each start. Options can be read by all
users of a machine."""


class Guard:
    """`token`: what requests need where others can reach the address; None on a loopback one."""

    def __init__(self, host: str) -> None:
        """`host`: the address that is bound."""
        self.token: str | None = None
        try:
            self._local = ipaddress.ip_address(host).is_loopback
        except ValueError:
            self._local = host == "localhost"
        if not self._local:
            self.token = _given_token() or secrets.token_urlsafe(16)

    def refuses(self, request: Any) -> tuple[int, str] | None:
        """Status and words, if a request (aiohttp's) is not allowed."""
        host = request.headers.get("Host", "")
        if self._local and not _is_local(host):
            return 403, "this address is for this machine alone"
        if self.token is not None and not self._has_token(request):
            return 401, "open the address with its token, as it was printed"
        changes = request.method not in ("GET", "HEAD")
        if changes and MARK not in request.headers:
            return 403, f"requests that change something need the header {MARK}: 1"
        origin = request.headers.get("Origin")
        upgrades = request.headers.get("Upgrade", "").lower() == "websocket"
        if (changes or upgrades) and origin is not None and urlsplit(origin).netloc != host:
            return 403, "another page may not do this"
        return None

    def _has_token(self, request: Any) -> bool:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = (request.query.get("token", ""), request.cookies.get(COOKIE, ""), bearer)
        token = (self.token or "").encode()
        return any(hmac.compare_digest(each.encode("utf-8", "replace"), token) for each in given)


def _is_local(host: str) -> bool:
    """Whether a `Host` header names this machine by its loopback address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _given_token() -> str | None:
    """ConfigError for one that is easy to guess, or cannot be part of an address."""
    given = os.environ.get(TOKEN) or None
    if given is not None and not re.fullmatch(r"[\w-]{16,200}", given, re.ASCII):
        hint = "at least 16 letters, digits, - and _, as `openssl rand -hex 16` gives"
        raise ConfigError(f"{TOKEN} cannot be used as a token", hint)
    return given
