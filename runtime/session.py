"""THE CHAIN: run a bundle's stages from a source image and driving frames to frames, as tensors.

Everything that runs a model drives a Session: the Animator, export's verification, benchmarks and
evaluation. It decides which stage runs when, what is kept of the reference, and when states are
reset. Pictures of other sizes and options are the Animator's.

Convention: images uint8 (1, C, S, S), as the manifest says. Methods raise BackendError if a stage
fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends.base import Backend
from .bundle.manifest import (
    ALIGNMENT,
    CONFIDENCE,
    DRIVING_FRAME,
    FRAME,
    LANDMARK_IMAGE,
    LANDMARKS,
    QUALITY,
    SOURCE_IMAGE,
    TRANSFER,
    Chain,
    DisplacementControl,
    Role,
)
from .support.errors import ConfigError, InputError

Planes = NDArray[np.uint8]


class Session:
    """Runs a chain on an opened backend::

        session.set_source(planes)
        session.set_reference(driving[0])
        for planes in driving:
            frame = session.animate(planes)

    A call without an image uses what was written into the backend's memory before. Not thread-safe;
    the Animator is.

    Attributes:
        can_align: whether the chain takes an alignment.
        can_register: whether source and reference can be aligned by matching them
            (alignment.py).
        landmarks: names of what `find_landmarks` finds; none where the chain has no detector.
    """

    def __init__(self, chain: Chain, backend: Backend) -> None:
        """Set every control to its default."""
        self.chain = chain
        self.backend = backend
        self.has_reference = False
        self._tensors = chain.tensors()
        self.can_align = ALIGNMENT in self._tensors
        self.can_register = self.can_align and CONFIDENCE in self._tensors
        self.judges = QUALITY in self._tensors
        self._matches = isinstance(chain.control, DisplacementControl)
        self.landmarks: tuple[str, ...] = getattr(chain.control, "landmarks", ())
        (observe,) = chain.of_role("observe")
        self._copies = chain.copied_references()
        seen = {tensor.name for tensor in observe.outputs}
        taken = {tensor.name for stage in chain.of_role("reference") for tensor in stage.inputs}
        # A reference stage that reads the source runs again with a new one, on a copy of what was
        # seen of the reference frame, since later frames overwrite that.
        self._follows_source = bool(taken - seen)
        self._of_reference = sorted(taken & seen) if self._follows_source else []
        self._kept: dict[str, NDArray[Any]] = {}
        # Looked up once: the backend's own memory on the host.
        self._controls = {
            control.name: (backend.view(control.name), control) for control in chain.controls
        }
        self._set_defaults()

    def has_control(self, name: str) -> bool:
        """Whether the chain takes a control of that name."""
        return name in self._controls

    def set_control(self, name: str, value: float) -> None:
        """Set a scalar input; ConfigError if there is none, or if the value is out of its range."""
        if name not in self._controls:
            known = ", ".join(self._controls) or "none"
            raise ConfigError(f"this bundle has no control {name!r}", f"it has {known}")
        view, control = self._controls[name]
        low, high = map(np.float32, control.range)
        if not low <= np.float32(value) <= high:
            raise ConfigError(f"{name} is {value:g}, expected {low:g} to {high:g} {control.unit}")
        view[0] = value

    def set_within(self, name: str, value: float) -> None:
        """Set a measured value, limited to the control's range, if there is such a control."""
        if name in self._controls:
            view, control = self._controls[name]
            low, high = control.range
            view[0] = min(high, max(low, value))  # in this order nan becomes the lowest

    def align(self, alignment: NDArray[np.float32] | None) -> None:
        """Set where in the reference frame the motion of each cell of the source is read: (1, rows,
        columns, 2) points, or None for every cell's own place. ConfigError if that cannot be."""
        if alignment is not None and not self.can_align:
            raise ConfigError("this model cannot align source and reference")
        if self.can_align:
            own = own_places(*self._tensors[ALIGNMENT].shape[1:3])
            alignment = own if alignment is None else alignment
            if alignment.shape != own.shape:
                raise ConfigError(f"the alignment is {alignment.shape}, expected {own.shape}")
            self.backend.view(ALIGNMENT)[...] = alignment

    def set_source(self, image: Planes | None = None) -> None:
        """Take a source image and reset the states; the reference stays."""
        self._give(SOURCE_IMAGE, image)
        self._run_all("source")
        if self.has_reference and self._follows_source:
            for name, value in self._kept.items():
                self.backend.write(name, value)
            self._run_all("reference")
        self.restart()

    def set_reference(self, frame: Planes | None = None) -> None:
        """Take a driving frame as the reference of relative motion and reset the states."""
        self.observe(frame)
        self.take_observed()

    def take_observed(self) -> None:
        """Take what was observed last as the reference, and reset the states."""
        self.has_reference = False  # until all of it is there
        for made, kept in self._copies:
            self.backend.copy(made, kept)
        self._kept = {name: self.backend.read(name) for name in self._of_reference}
        self._run_all("reference")
        self.has_reference = True
        self.restart()

    def observe(self, frame: Planes | None = None) -> None:
        """Look at a driving frame alone, for `read`; changes nothing that a later frame sees."""
        self._give(DRIVING_FRAME, frame)
        self._run_all("observe")

    def match(self, frame: Planes | None = None) -> NDArray[np.float32]:
        """How a driving frame has moved from the reference: the displacement of each cell, (rows,
        columns, 2) in points, by default controls and without alignment or picture. Changes nothing
        that a later frame sees.

        Raises:
            ConfigError: the chain has no displacements, or there is no reference.
        """
        if not self._matches or not self.has_reference:
            raise ConfigError("there is no displacement to find", "set a reference first")
        self.observe(frame)
        views = [self.backend.view(name) for name in self.chain.settings()]
        before = [view.copy() for view in views]
        self._set_defaults()
        try:
            self.backend.run(TRANSFER)  # alone, so that its states are not carried on
        finally:
            for view, value in zip(views, before, strict=True):
                view[...] = value
        return np.asarray(self.backend.read("displacement")[0], np.float32)

    def find_landmarks(self, image: Planes | None = None) -> NDArray[np.float32]:
        """Look for landmarks in a source image or a driving frame; changes nothing else.

        Returns:
            (K, 3), in the order of `landmarks`: (x, y) in points, and how probably it is there.

        Raises:
            ConfigError: the chain has no detector of landmarks.
        """
        if not self.landmarks:
            raise ConfigError("this model finds no landmarks", "place them by hand: align()")
        self._give(LANDMARK_IMAGE, image)
        self._run_all("landmarks")
        return np.asarray(self.backend.read(LANDMARKS)[0], np.float32)

    def animate(self, frame: Planes | None = None) -> Planes:
        """Synthesize a frame, in the backend's own memory, which the next frame overwrites; the
        first one is the reference if none was set."""
        self._give(DRIVING_FRAME, frame)
        if not self.has_reference:
            self.set_reference()
        self.backend.run_frame()
        return self.backend.view(FRAME)

    def passed(self) -> list[str]:
        """What alone passes from a driving frame to the picture: with displacements what `transfer`
        makes, else what `observe` does, the keypoints."""
        states = {pair.from_ for pair in self.chain.recurrent}
        (observe,) = self.chain.of_role("observe")
        (transfer,) = (each for each in self.chain.stages if each.name == TRANSFER)
        made = transfer if self._matches else observe
        return [tensor.name for tensor in made.outputs if tensor.name not in states]

    def replay(self, passed: Mapping[str, NDArray[Any]]) -> Planes:
        """Synthesize a frame from `passed` tensors, without a driving frame; see `animate`. Where
        they are displacements, neither the alignment nor the controls have an effect."""
        for name, value in passed.items():
            self.backend.write(name, value)
        for stage in self.chain.of_role("frame"):
            if not (self._matches and stage.name == TRANSFER):
                self.backend.run(stage.name)
        for pair in () if self._matches else self.chain.recurrent:
            self.backend.copy(pair.from_, pair.to)
        return self.backend.view(FRAME)

    def control(self, name: str) -> float:
        """A control's value; its neutral one, 1, where there is none."""
        return float(self._controls[name][0][0]) if name in self._controls else 1.0

    def restart(self) -> None:
        """Reset the states to zero."""
        for pair in self.chain.recurrent:
            self.backend.write(pair.to, 0)

    def forget_reference(self) -> None:
        """Let the next frame become the reference; reset the states."""
        self.has_reference = False
        self.restart()

    def read(self, name: str) -> NDArray[Any]:
        """A copy of any tensor, as the last run left it; ConfigError if there is no such tensor."""
        if name not in self._tensors:
            known = ", ".join(sorted(self._tensors))
            raise ConfigError(f"the bundle has no tensor {name!r}", f"it has {known}")
        return self.backend.read(name)

    def another(self) -> Session:
        """One more, with memory of its own: nothing but the opened stages is shared."""
        return Session(self.chain, self.backend.another())

    def close(self) -> None:
        """Release the backend's memory and threads; a second call does nothing."""
        self._controls.clear()
        self.backend.close()

    def _set_defaults(self) -> None:
        for view, control in self._controls.values():
            view[0] = control.default
        self.align(None)

    def _run_all(self, role: Role) -> None:
        for stage in self.chain.of_role(role):
            self.backend.run(stage.name)

    def _give(self, tensor: str, image: Planes | None) -> None:
        if image is None:
            return
        shape = (1, self.chain.image.channels, self.chain.image.size, self.chain.image.size)
        if image.shape != shape or image.dtype != np.uint8:
            raise InputError(
                f"{tensor!r} is {image.dtype} {list(image.shape)}, expected uint8 {list(shape)}"
            )
        self.backend.write(tensor, image)


def own_places(rows: int, columns: int) -> NDArray[np.float32]:
    """The points of a grid's own cells, (1, rows, columns, 2)."""
    return np.stack(np.meshgrid(centres(columns), centres(rows)), axis=-1)[None]


def centres(count: int) -> NDArray[np.float32]:
    """The centres of so many cells side by side, (count,), in [-1, 1]."""
    return ((np.arange(count) * 2 + 1) / count - 1).astype(np.float32)
