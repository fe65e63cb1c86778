"""The page's server, in a thread of its own: files, JSON, frames by WebSocket and as MJPEG."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from ...media.frames import png_bytes
from ...support.errors import SonomimeError, StreamError
from ...support.process import import_or_explain
from ..control import Control
from ..showing import Shown
from .guard import COOKIE, HEADERS, Guard
from .metrics_text import metrics_text
from .pictures import Newest, jpeg, message

log = logging.getLogger("sonomime")

PORT = 8765
MOST_VIEWERS = 16
SLOW = 8  # uploads and orders at the same time
SEND_BUFFER = 1 << 16  # bytes: with the system's own size a slow viewer falls seconds behind
MOST_JSON = 64 << 10  # bytes of a request
MOST_SAID = 64  # bytes of a viewer's message
SILENT = 30.0  # seconds after which a viewer that takes nothing has gone
PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
BOUNDARY = "frame"


class Web:
    """Serves a page that watches and controls a stream. It is an outlet of that stream: `show`
    takes its frames. `url`: where to open it."""

    name = "page"

    def __init__(self, control: Control, host: str, port: int) -> None:
        """Listen. Port 0 is any that is free.

        Raises:
            StreamError: the address cannot be had.
            BackendError: aiohttp is missing.
        """
        self._aiohttp = import_or_explain("aiohttp.web", 'pip install "sonomime[live]"')
        # Whoever sends nonsense is answered; a log that others can fill is no log.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        self._guard = Guard(host)
        self._viewers = 0
        self._slow = ThreadPoolExecutor(SLOW, thread_name_prefix="page")
        self._loop = asyncio.new_event_loop()
        self._newest = Newest(self._loop)
        self._stopping = asyncio.Event()
        self.control = control
        ready: list[BaseException | None] = []
        there = threading.Event()

        def begun(error: BaseException | None) -> None:
            ready.append(error)
            there.set()

        self._thread = threading.Thread(
            target=self._run, args=(host, port, begun), name="page", daemon=True
        )
        self._thread.start()
        there.wait()
        if (error := ready[0]) is not None:
            self._thread.join()
            hint = "give another port, or stop the program that has it"
            raise StreamError(f"cannot serve at {host}:{port}: {error}", hint) from error

    def show(self, shown: Shown) -> None:
        """Pass a frame on; never waits. Nothing after `close`."""
        with suppress(RuntimeError):  # the loop is closed
            self._newest.put(shown)

    def end(self, shown: Shown) -> None:
        """Pass the last frame on."""
        self.show(shown)

    def dropped(self) -> int:
        """Viewers take the newest frame when they can: what they do not take is not counted."""
        return 0

    def close(self) -> None:
        """Stop serving, and wait for the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- the thread --------------------------------------------------------------------------------

    def _run(self, host: str, port: int, begun: Callable[[BaseException | None], None]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(host, port, begun))
        except Exception as error:  # most likely the address is taken
            begun(error)
        finally:
            self._slow.shutdown(wait=False, cancel_futures=True)
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(
        self, host: str, port: int, begun: Callable[[BaseException | None], None]
    ) -> None:
        web = self._aiohttp

        async def guarded(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
            return await self._guarded(request, handler)

        app = web.Application(
            middlewares=[web.middleware(guarded)], client_max_size=MOST_JSON
        )  # fmt: skip
        app.add_routes(
            [
                web.get("/", partial(self._file, "index.html")),
                *(web.get(f"/{path.name}", partial(self._file, path.name))
                  for path in sorted(PAGE.iterdir()) if path.suffix in (".js", ".css")),
                web.get("/api/state", self._state),
                web.get("/metrics", self._metrics),
                web.get("/picture/{name}.png", self._picture),
                web.get("/ws", self._socket),
                web.get("/stream.mjpg", self._mjpeg),
                web.post("/api/upload", self._upload),
                *(web.post(f"/api/{name}", partial(self._post, do)) for name, do in _POSTS.items()),
            ]
        )  # fmt: skip
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            bound = runner.addresses[0]
            shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            self.port: int = bound[1]
            token = f"?token={self._guard.token}" if self._guard.token else ""
            self.url = f"http://{shown}:{self.port}/{token}"
            begun(None)
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _guarded(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Refuse who may not, answer errors as JSON, add the headers."""
        web = self._aiohttp
        if (refused := self._guard.refuses(request)) is not None:
            status, why = refused
            response = web.json_response({"error": why, "hint": ""}, status=status)
        elif "token" in request.query and request.path == "/":
            # Out of the address, into a cookie.
            response = web.Response(status=302, headers={"Location": "/"})
            token = self._guard.token or ""
            response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
        else:
            try:
                response = await handler(request)
            except SonomimeError as error:
                said = {"error": error.message, "hint": error.hint}
                response = web.json_response(said, status=409)
            except web.HTTPException as error:
                said = {"error": error.reason, "hint": ""}
                response = web.json_response(said, status=error.status)
            except (TimeoutError, ConnectionError, asyncio.CancelledError):
                raise
            except Exception:
                log.exception("a request failed: %s", request.path)
                said = {"error": "a defect: see the log of sonomime", "hint": ""}
                response = web.json_response(said, status=500)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    # -- answers -----------------------------------------------------------------------------------

    async def _file(self, name: str, request: Any) -> Any:
        path = PAGE / name
        data, kind = path.read_bytes(), TYPES[path.suffix]
        return self._aiohttp.Response(body=data, content_type=kind, charset="utf-8")

    async def _state(self, request: Any) -> Any:
        state = await asyncio.to_thread(self.control.state)
        return self._aiohttp.json_response(state | {"viewers": self._viewers})

    async def _metrics(self, request: Any) -> Any:
        state = await asyncio.to_thread(self.control.state)
        text = metrics_text(state, self._viewers)
        return self._aiohttp.Response(text=text, content_type="text/plain")

    async def _picture(self, request: Any) -> Any:
        name = request.match_info["name"]
        image = None
        if name in ("source", "reference", "alignment"):
            image = await asyncio.to_thread(self.control.picture, name)
        if image is None:
            raise self._aiohttp.HTTPNotFound(reason="there is no such picture now")
        data = await asyncio.to_thread(png_bytes, image)
        return self._aiohttp.Response(body=data, content_type="image/png")

    async def _post(self, do: Callable[[Control, dict[str, Any]], Any], request: Any) -> Any:
        web = self._aiohttp
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(reason="send JSON")
        try:
            wanted = await request.json()
        except (ValueError, RecursionError):
            raise web.HTTPBadRequest(reason="this is no JSON") from None
        if not isinstance(wanted, dict):
            raise web.HTTPBadRequest(reason="send an object")
        answer = await self._slowly(do, self.control, wanted)
        return web.json_response({"answer": answer or "ok"})

    async def _slowly(self, do: Callable[..., Any], *words: Any) -> Any:
        """In threads of their own: others answer quickly meanwhile."""
        return await self._loop.run_in_executor(self._slow, partial(do, *words))

    async def _upload(self, request: Any) -> Any:
        kind, name = (request.query.get(key, "") for key in ("kind", "name"))

        def read(most: int) -> bytes:
            piece = asyncio.run_coroutine_threadsafe(request.content.read(most), self._loop)
            return bytes(piece.result(SILENT))

        try:
            await self._slowly(self.control.take_upload, kind, name, read)
        except TimeoutError:
            raise self._aiohttp.HTTPRequestTimeout(reason="nothing more came") from None
        return self._aiohttp.json_response({"answer": "ok"})

    # -- frames ------------------------------------------------------------------------------------

    def _watched(self) -> _Viewer:
        if self._viewers >= MOST_VIEWERS:
            raise self._aiohttp.HTTPServiceUnavailable(reason="there are too many viewers")
        return _Viewer(self)

    async def _socket(self, request: Any) -> Any:
        """Frames by WebSocket: the next one, always the newest, after the viewer has said "n"."""
        raw, driving = request.query.get("format") == "raw", request.query.get("driving") == "1"
        with self._watched():
            viewer = self._aiohttp.WebSocketResponse(
                max_msg_size=MOST_SAID, heartbeat=SILENT / 2, compress=False
            )
            try:
                await viewer.prepare(request)
            except ValueError:  # of a key that is no text
                raise self._aiohttp.HTTPBadRequest(reason="this is no WebSocket") from None
            _keep_short(request.transport)
            asked = asyncio.Event()
            asked.set()  # the first comes unasked
            sending = asyncio.ensure_future(self._send_frames(viewer, asked, raw, driving))
            stopping = asyncio.ensure_future(self._end(viewer))
            try:
                async for said in viewer:
                    if said.data == "n":
                        asked.set()
            finally:
                sending.cancel()
                stopping.cancel()
            return viewer

    async def _end(self, viewer: Any) -> None:
        await self._stopping.wait()
        await viewer.close()

    async def _send_frames(
        self, viewer: Any, asked: asyncio.Event, raw: bool, driving: bool
    ) -> None:
        last: Shown | None = None
        try:
            while True:
                await asked.wait()
                asked.clear()
                last = shown = await self._newest.after(last)
                make = partial(message, shown, raw, driving)
                data = await self._newest.bytes_of(shown, (raw, driving), make)
                await asyncio.wait_for(viewer.send_bytes(data), SILENT)
        except (ConnectionError, TimeoutError):
            await viewer.close()  # it has gone, or takes nothing

    async def _mjpeg(self, request: Any) -> Any:
        """Frames as a picture that goes on, which any browser and many programs show."""
        with self._watched():
            kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
            response = self._aiohttp.StreamResponse(headers=HEADERS | {"Content-Type": kind})
            await response.prepare(request)
            _keep_short(request.transport)
            last: Shown | None = None
            while not self._stopping.is_set():
                try:
                    last = shown = await asyncio.wait_for(self._newest.after(last), 0.5)
                except TimeoutError:
                    continue
                data = await self._newest.bytes_of(shown, "jpeg", partial(jpeg, shown.image))
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                part = f"--{BOUNDARY}\r\n{head}".encode() + data + b"\r\n"
                await asyncio.wait_for(response.write(part), SILENT)
            return response


def _keep_short(transport: Any) -> None:
    """Let little wait to be sent, so that a slow viewer sees the newest frames."""
    if transport is not None:
        transport.set_write_buffer_limits(high=SEND_BUFFER)
        peer = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)


class _Viewer:
    """Counts a viewer while it is there."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def __enter__(self) -> None:
        self._web._viewers += 1

    def __exit__(self, *error: object) -> None:
        self._web._viewers -= 1


def _recorded(wanted: dict[str, Any]) -> str | None:
    name = wanted.get("file")
    return None if name is None else str(name)


_POSTS: dict[str, Callable[[Control, dict[str, Any]], Any]] = {
    "start": lambda control, wanted: control.start(wanted),
    "stop": lambda control, wanted: control.stop(),
    "order": lambda control, wanted: control.order(str(wanted.get("order", ""))[:1000]),
    "record": lambda control, wanted: control.record(_recorded(wanted)),
    "landmarks": lambda control, wanted: control.align(
        wanted.get("source", {}), wanted.get("reference", {}), wanted.get("picture")
    ),
}
"""What can be asked for, by its address under /api/."""
