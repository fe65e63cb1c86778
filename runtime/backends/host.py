"""What the backends of the CPU share: numpy buffers, which all stages read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.bundle import Bundle
from ..support.errors import BackendError
from ..support.timing import Spans
from .base import Views, allocate_all, boundary


class HostBackend:
    """See `Backend`. A subclass opens the stages, bound to `buffers`, and says how they run."""

    name: str
    device: str
    engine: str
    """The engine's name and version, in words."""

    def __init__(self, bundle: Bundle) -> None:
        """Allocate one buffer per tensor name."""
        self.buffers = allocate_all(bundle.manifest)
        self._views = Views((name, self.buffers[name]) for name in boundary(bundle.manifest))
        self._per_frame = [stage.name for stage in bundle.manifest.stages if stage.per_frame]
        self._recurrent = [(pair.from_, pair.to) for pair in bundle.manifest.recurrent]
        self._spans = Spans(dict.fromkeys(self._per_frame, 0.0))
        self._runs: dict[str, Callable[[], object]] = {}

    def take_stages(self, runs: Iterable[tuple[str, Callable[[], object]]]) -> None:
        """The stages' names, and what runs each of them to its end."""
        self._runs = dict(runs)

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
        self._views.clear()
        self.buffers.clear()


def first_line(error: Exception) -> str:
    """The gist of an engine's error, which may go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
