"""What the backends of the CPU share: numpy buffers, which all stages read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import StageFile
from ..support.errors import BackendError
from ..support.timing import Spans
from .base import Views, allocate_all, boundary


class HostBackend:
    """See `Backend`. A subclass opens the stages, and binds opened ones to `buffers`."""

    name: str
    device: str
    precision: str
    engine: str
    """The engine's name and version, in words."""

    def __init__(self, bundle: Bundle) -> None:
        """Allocate one buffer per tensor name."""
        self._bundle = bundle
        self.buffers = allocate_all(bundle.manifest)
        self._views = Views((name, self.buffers[name]) for name in boundary(bundle.manifest))
        self._per_frame = [stage.name for stage in bundle.manifest.stages if stage.per_frame]
        self._recurrent = [(pair.from_, pair.to) for pair in bundle.manifest.recurrent]
        self._spans = Spans(dict.fromkeys(self._per_frame, 0.0))
        self._opened: dict[str, Any] = {}
        self._runs: dict[str, Callable[[], object]] = {}

    def bind(self, stage: StageFile, opened: Any) -> Callable[[], object]:
        """What runs an opened stage to its end, on this backend's buffers; BundleError if it does
        not fit the manifest."""
        raise NotImplementedError

    def take_stages(self, opened: Mapping[str, Any]) -> None:
        """Opened stages by their names; several backends may have the same."""
        self._opened = dict(opened)
        for stage in self._bundle.manifest.stages:
            self._runs[stage.name] = self.bind(stage, opened[stage.name])

    def another(self) -> Self:
        made, opened = copy(self), dict(self._opened)
        if not opened:
            raise BackendError("this backend is closed", "open another one")
        HostBackend.__init__(made, self._bundle)
        made.take_stages(opened)
        return made

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._spans

    def view(self, tensor: str) -> NDArray[Any]:
        return self._views[tensor]

    def read(self, tensor: str) -> NDArray[Any]:
        return self.buffers[tensor].copy()

    def write(self, tensor: str, value: ArrayLike) -> None:
        self.buffers[tensor][...] = value

    def copy(self, source: str, target: str) -> None:
        np.copyto(self.buffers[target], self.buffers[source])

    def run(self, stage: str) -> None:
        run = self._runs[stage]
        try:
            run()
        except Exception as error:  # the engines' classes have no other common base
            reason = first_line(error)
            raise BackendError(f"stage {stage!r} failed in {self.engine}: {reason}") from error

    def run_frame(self) -> None:
        self._spans.start()
        for stage in self._per_frame:
            self.run(stage)
            self._spans.lap(stage)
        for made, state in self._recurrent:
            self.copy(made, state)

    def close(self) -> None:
        # Stages before buffers: they hold bare pointers into them.
        self._runs.clear()
        self._opened.clear()
        self._views.clear()
        self.buffers.clear()


def first_line(error: Exception) -> str:
    """The gist of an engine's error, which may go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
