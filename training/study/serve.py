"""The raters' page: a small HTTP server that shows clips and saves every answer at once.

The page names clips by their position in the rater's order, never by a file name, so no request
can lead to another file. The key is not read.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...runtime.support.atomic_files import locked
from ...runtime.support.dataclass_parser import StrictError, parse
from ...runtime.support.errors import ConfigError, InputError, OutputError
from ...runtime.support.printable import printable
from .answers import answers_file, claim
from .session import Posted, Session
from .study_folder import clip_file, read_study

MOST_BODY = 16_384
"""Bytes of a request."""
MOST_CLIENTS = 32
"""Connections at the same time; a browser opens up to six."""
_IDLE = 15.0  # seconds until a silent connection is closed
_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/study.js": ("study.js", "text/javascript; charset=utf-8"),
    "/study.css": ("study.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Server(ThreadingHTTPServer):
    """Serves one rater. `url` is what the rater opens; `token` is None on a loopback address."""

    daemon_threads = True
    request_queue_size = MOST_CLIENTS

    session: Session | None = None  # there before it serves

    def __init__(self, bind: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
            self.address_family, host = found[0], str(found[4][0])
            super().__init__((host, port), _Handler)
        except (OSError, UnicodeError) as error:
            hint = "choose another --port (0: any that is free), or another --bind"
            raise ConfigError(f"cannot serve at {bind}, port {port}: {error}", hint) from error
        address = ipaddress.ip_address(host)
        self.token = None if address.is_loopback else secrets.token_urlsafe(16)
        self.cookie = f"sonomime-study-{self.server_port}"
        if address.is_unspecified:  # all of this computer's addresses: its name will do
            host = socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        query = f"?token={self.token}" if self.token else ""
        self.url = f"http://{host}:{self.server_port}/{query}"
        self._slots = threading.BoundedSemaphore(MOST_CLIENTS)

    def server_bind(self) -> None:
        """Without the look-up of a name, which can wait for a network that is not there."""
        TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Refuse clients beyond MOST_CLIENTS."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Free the slot when a client is done."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def server_close(self) -> None:
        """Clients that are still connected are not answered any more."""
        super().server_close()
        if self.session is not None:
            self.session.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is not an error; anything else is a defect, and shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


@contextmanager
def serving(folder: Path, rater: str, bind: str, port: int) -> Iterator[Server]:
    """A server for a rater, who gets an order if new; closed at the end.

    Raises:
        ConfigError: a wrong name, no order left, an address that cannot be used.
        InputError: no study, a missing clip, answers that do not fit.
        OutputError: the rater is being served already; the answers cannot be written.
    """
    study = read_study(folder)
    for clip in set(study.orders[0]):
        if not (path := clip_file(folder, clip)).is_file():
            raise InputError(f"{path} is missing", "copy the whole folder of the study")
    with ExitStack() as stack:
        server = stack.enter_context(Server(bind, port))  # first: a new rater takes an order
        with _locked(folder / "answers", rater):  # orders are given out one by one
            sheet = claim(folder, study, rater)
            stack.enter_context(_locked(folder / "answers" / f".{rater}", rater))
        for left in answers_file(folder, rater).parent.glob(f".{rater}.*.part.csv"):
            with suppress(OSError):  # half-written by a process that was killed
                left.unlink()
        server.session = Session(folder, study, sheet)
        yield server


@contextmanager
def _locked(folder: Path, rater: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except OutputError as error:
            hint = f"does another process serve {rater}? Stop that one, or check permissions"
            raise OutputError(error.message, hint) from error
        yield


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sonomime", ""
    timeout = _IDLE

    def parse_request(self) -> bool:
        """Read a request's headers; False, without a reply, once the server is closed."""
        good = super().parse_request()
        if self.server.session.closed:
            self.close_connection = True
        return good and not self.server.session.closed

    def do_GET(self) -> None:
        """The page, its state, a clip."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what follows is no request
        path, _, query = self.path.partition("?")
        if self._enter(query) or not self._allowed():
            return
        if path == "/state":
            self._json(200, self.server.session.state())
        elif path in _FILES:
            name, kind = _FILES[path]
            self._send(200, (_PAGE / name).read_bytes(), kind)
        elif (position := path.removeprefix("/clip/")) != path:
            self._clip(position)
        else:
            self._json(404, {"error": "there is no such page"})

    def do_POST(self) -> None:
        """Save an answer."""
        self.close_connection = True  # until the body is read
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self._json(411, {"error": "the length of the request is not given"})
        elif len(length) > 9 or int(length) > MOST_BODY:
            self._json(413, {"error": f"a request has at most {MOST_BODY} bytes"})
        elif self._allowed():
            body = self.rfile.read(int(length))
            self.close_connection = False
            self._answer(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: the page says what is saved."""

    def _answer(self, body: bytes) -> None:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if self.path != "/answer":
            self._json(404, {"error": "there is no such page"})
        elif kind != "application/json":  # other sites can send forms without asking
            self._json(415, {"error": "an answer is sent as application/json"})
        else:
            try:
                self.server.session.save(parse(Posted, json.loads(body)))
            except (StrictError, ValueError, RecursionError) as error:
                self._json(400, {"error": printable(str(error))[:200]})
            except OutputError as error:
                self._json(507, {"error": f"{error.message}. {error.hint}"})
            else:
                self._json(200, {"saved": True})

    def _clip(self, position: str) -> None:
        try:
            if not (position.isascii() and position.isdigit() and len(position) < 7):
                raise IndexError
            data = self.server.session.clip(int(position))
        except IndexError:
            self._json(404, {"error": "there is no such clip"})
        except OSError as error:
            self._json(500, {"error": f"the clip cannot be read: {error.strerror}"})
        else:
            self._send(200, data, "video/mp4")

    def _enter(self, query: str) -> bool:
        """Exchange the token in the address for a cookie, so that it does not stay in sight."""
        given = parse_qs(query).get("token", [""])[0]
        token, name = self.server.token, self.server.cookie
        if not token or not hmac.compare_digest(given.encode(), token.encode()):
            return False
        cookie = f"{name}={token}; Path=/; HttpOnly; SameSite=Strict"
        self._send(303, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})
        return True

    def _allowed(self) -> bool:
        """Whether the client may go on; if not, it has been told."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        name = ""
        with suppress(ValueError):
            name = urlsplit(f"//{host}").hostname or ""
        if self.server.token is not None:
            cookies = SimpleCookie()
            with suppress(CookieError):
                cookies.load(self.headers.get("Cookie", ""))
            given = cookies[self.server.cookie].value if self.server.cookie in cookies else ""
            if hmac.compare_digest(given.encode(), self.server.token.encode()):
                return True
            fault = "open the whole address that `sonomime study serve` has printed, with its token"
        elif not _is_loopback(name):  # a name that was made to lead here (DNS rebinding)
            fault = "open the address that `sonomime study serve` has printed"
        elif origin is not None and origin != f"http://{host}":
            fault = "another site may not use this page"
        else:
            return True
        self.close_connection = True
        self._json(403, {"error": fault})
        return False

    def _json(self, status: int, data: dict[str, Any]) -> None:
        self._send(status, json.dumps(data).encode(), "application/json")

    def _send(
        self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        about = {"Content-Type": kind, "Content-Length": str(len(body))}
        if self.close_connection:
            about["Connection"] = "close"
        for name, value in (_HEADERS | about | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
