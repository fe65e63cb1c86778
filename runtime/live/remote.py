"""Renderers on a Ray cluster: an actor for each stream, which holds the model and its pictures."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import count
from typing import Any

from ... import __version__
from ..animator import Animator
from ..media.frames import Image
from ..support.errors import BackendError, SonomimeError
from ..support.foreign_errors import as_ours
from ..support.on_ray import connect
from ..support.process import terminable
from .renderer import Prepared, Rendered, Renderer, RendererLost, Scene

log = logging.getLogger("sonomime")

FRAME_SECONDS = 5.0  # a frame that takes longer: the machine is taken for lost
_LOOK = 0.5  # seconds between looks at whether somebody still waits
_PATIENCE = 30.0  # seconds without a place for the actor until that is said


class _Studio:
    """Ray's actor: renderers, by number, that share the weights of one model."""

    def __init__(self, version: str, open_animator: Callable[[], Animator]) -> None:
        self._version, self._open = version, open_animator
        self._renderers: dict[int, Renderer] = {}
        self._opening = threading.Lock()

    def do(self, number: int, method: str, *given: Any, **options: Any) -> Any:
        """What a renderer's method returns; or an error of ours, which is pickled whole."""
        try:
            return getattr(self._renderer(number), method)(*given, **options)
        except Exception as error:
            return as_ours(error)

    def _renderer(self, number: int) -> Renderer:
        if self._version != __version__:
            what = f"a machine of the cluster has sonomime {__version__}, this one {self._version}"
            raise BackendError(what, "install the same version everywhere")
        if (there := self._renderers.get(number)) is not None:
            return there
        with self._opening:
            first = next(iter(self._renderers.values()), None)
            made = Renderer(self._open()) if first is None else first.another()
            self._renderers[number] = made
            return made


class RemoteRenderer:
    """A renderer in an actor; see `AnyRenderer`. All that share the actor are lost together."""

    def __init__(self, ray: Any, actor: Any, gone: threading.Event, numbers: Iterator[int]) -> None:
        self._ray, self._actor, self._gone, self._numbers = ray, actor, gone, numbers
        self._number = next(numbers)

    @property
    def lost(self) -> bool:
        return self._gone.is_set()

    def check(self) -> None:
        """Wait until the model is opened; errors as of `Animator.open`, and RendererLost."""
        with terminable():  # Ray would make Ctrl-C of any signal
            self._ask(None, "adjust")

    def prepare(self, scene: Scene) -> Prepared:
        prepared: Prepared = self._ask(None, "prepare", scene)
        return prepared

    def frame(self, driving: Image | None, due: float, timestamp: float) -> Rendered:
        rendered: Rendered = self._ask(FRAME_SECONDS, "frame", driving, due, timestamp)
        return rendered

    def adjust(self, **options: Any) -> None:
        self._ask(FRAME_SECONDS, "adjust", **options)

    def another(self) -> RemoteRenderer:
        return RemoteRenderer(self._ray, self._actor, self._gone, self._numbers)

    def stop(self) -> None:
        self._gone.set()
        self._ray.kill(self._actor)

    def close(self) -> None:
        self.stop()

    def _ask(self, seconds: float | None, method: str, *given: Any, **options: Any) -> Any:
        """What the actor answers, within so many seconds; RendererLost if it does not."""
        if self.lost:
            raise RendererLost("what makes the frames is lost")
        end = None if seconds is None else time.monotonic() + seconds
        say_at = time.monotonic() + _PATIENCE
        try:
            asked = self._actor.do.remote(self._number, method, *given, **options)
            while not self._ray.wait([asked], timeout=_LOOK)[0]:
                if self.lost:
                    raise RendererLost("the stream has ended")
                if end is not None and time.monotonic() >= end:
                    raise self._lose(f"no answer for {seconds:.0f} s")
                if time.monotonic() >= say_at:
                    log.warning("still waiting for the cluster: is a processor free?")
                    say_at += _PATIENCE
            said = self._ray.get(asked)
        except self._ray.exceptions.RayError as error:  # the actor, its machine, no memory for it
            raise self._lose(" ".join(str(error).split())[:300]) from error
        if isinstance(said, SonomimeError):
            raise said
        return said

    def _lose(self, reason: str) -> RendererLost:
        self.stop()
        return RendererLost(f"what makes the frames is lost: {reason}")


@contextmanager
def on_cluster(
    address: str, cpus: int, gpus: int
) -> Iterator[Callable[[Callable[[], Animator]], RemoteRenderer]]:
    """Join a Ray cluster for the block, in which sys.stdout is sys.stderr.

    Args:
        address: as for `support.on_ray.connect`, which says the errors too.
        cpus, gpus: what a renderer takes of a machine.

    Yields:
        what makes a renderer whose Animator is opened, by the given function, on the cluster.
    """
    ray = connect(address)
    # At the same time: frames, the next source, a change of settings.
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_concurrency=4)(_Studio)

    def open_remote(open_animator: Callable[[], Animator]) -> RemoteRenderer:
        made = actor.remote(__version__, open_animator)
        return RemoteRenderer(ray, made, threading.Event(), count())

    try:
        # Ray prints what happens to machines on standard output, which programs read.
        with redirect_stdout(sys.stderr):
            yield open_remote
    finally:
        ray.shutdown()
