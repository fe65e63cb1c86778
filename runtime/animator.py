"""The Animator: a still source image once, then one driving frame after the other."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, get_args, overload

import numpy as np
from numpy.typing import NDArray

from .backends import open_backend
from .backends.base import Backend, all_tensors
from .bundle import DRIVING_FRAME, SOURCE_IMAGE, Bundle, Manifest
from .errors import BackendError, ConfigError, InputError
from .exchange import Exchange
from .frames import Image, Letterbox
from .keypoints import hull_scale
from .smoothing import Smoothing, as_smoothing
from .wiring import CONTROLS, DETECTOR, DRIVING, REFERENCE

Motion = Literal["relative", "absolute"]
Out = TypeVar("Out")

STEP_SECONDS = 1 / 30
"""The time between two frames that come without timestamps."""


class Animator:
    """Animates a source image with the motion of driving frames::

        with Animator.open() as animator:
            animator.set_source(image)
            for frame in frames:
                synthesized = animator.animate(frame)

    Images are uint8 (H, W) grey or (H, W, 3) RGB of any size: they are letterboxed into the model's
    square of S x S. What comes back has the model's size and channels, (S, S) or (S, S, 3), and no
    mark: `letterbox.restore` leads back to the source's own size, and sinks add the mark. Relative
    motion needs a reference, the driving pose that corresponds to the source image: the first frame
    animated, unless `set_reference` gives another.

    Arrays of other libraries are taken too, and written to (`animate(frame, out=...)`), if they
    have the model's size: torch's, cupy's, pycuda's, whatever has `__cuda_array_interface__` or
    DLPack. On a GPU backend, those on the GPU never come to the host.

    Calls may come from several threads; they are served one after the other.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, motion: Motion, scale: float | Literal["hull"],
        smooth: Smoothing | None,
    ) -> None:  # fmt: skip
        """Use `Animator.open`."""
        self.bundle = bundle
        self.backend = backend
        manifest = bundle.manifest
        self._manifest = manifest
        self._lock = threading.RLock()
        self._closed = False
        self.motion = motion
        self._scale = scale
        self._once = [stage.name for stage in manifest.stages if stage.when == "once"]
        self._names = all_tensors(manifest).keys()
        self._references = _references(manifest)
        self._states = [pair.to for pair in manifest.recurrent]
        # Everything that a frame needs, looked up once: the backend's own memory on the host.
        self._exchange = Exchange(backend, manifest.image)
        self._controls = {name: backend.view(name) for name in CONTROLS if name in self._names}
        self._set_control("relative", float(motion == "relative"))
        self._set_control("scale", 1.0 if scale == "hull" else scale)
        self._set_control("min_cutoff", smooth.min_cutoff if smooth else 0.0)
        self._set_control("beta", smooth.beta if smooth else 0.0)
        self._letterbox: Letterbox | None = None
        self._driving_box: Letterbox | None = None
        self._has_reference = False
        self._last_time: float | None = None

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        backend: str = "auto",
        motion: Motion = "relative",
        reference: str = "first",
        smooth: Smoothing | tuple[float, float] | bool | None = None,
        threads: int | None = None,
        scale: float | Literal["hull"] = 1.0,
    ) -> Self:
        """Open a bundle and its stages.

        Args:
            bundle: its folder, an opened Bundle, or None for the default one.
            backend: a name of `sonomime.runtime.backends.BACKENDS`.
            motion: `relative` (the source moves as the driving frames move away from the reference)
                or `absolute` (it takes the driving keypoints as they are).
            reference: `first`, the first frame animated; `set_reference` gives any other.
            smooth: a Smoothing, (min_cutoff, beta), True for the defaults, or None.
            threads: CPU threads; None is the physical cores available.
            scale: factor of relative motion, or `hull`: by the size of the two anatomies.

        Raises:
            ConfigError: an argument out of its range.
            BundleError: the bundle is missing, changed or malformed.
            BackendError: the backend cannot serve.
        """
        if motion not in get_args(Motion):
            raise ConfigError(f"unknown motion {motion!r}", "relative or absolute")
        if reference != "first":
            raise ConfigError(
                f"frames come one by one here, so the reference cannot be {reference!r}",
                "call set_reference(frame); `sonomime animate --reference` chooses in a file",
            )
        if scale != "hull" and not (isinstance(scale, int | float) and 0 < scale <= 10):
            raise ConfigError(f"scale {scale!r} is not above 0 and at most 10, nor 'hull'")
        smoothing = as_smoothing(smooth)
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return cls(opened, open_backend(backend, opened, threads), motion, scale, smoothing)

    def set_source(self, image: Any) -> None:
        """Take a new source image, as `animate` takes frames, and run the `once` stages on it.

        A reference that was set stays; smoothing begins anew.

        Raises:
            InputError: not an image.
            BackendError: a stage failed, or the Animator is closed.
        """
        with self._lock:
            self._check_open()
            self._letterbox = None
            box = self._exchange.give(image, SOURCE_IMAGE)
            for stage in self._once:
                self.backend.run(stage)
            self._letterbox = box
            self._begin()

    def set_reference(self, frame: Any) -> None:
        """Take a driving frame as the reference of relative motion; smoothing begins anew.

        Raises:
            InputError: not an image.
            BackendError: a stage failed, or the Animator is closed.
        """
        with self._lock:
            self._check_open()
            self._exchange.give(frame, DRIVING_FRAME)
            self.backend.run(DETECTOR)
            self._take_reference()
            self._begin()

    @overload
    def animate(self, frame: Any, timestamp: float | None = None, out: None = None) -> Image: ...

    @overload
    def animate(self, frame: Any, timestamp: float | None = None, *, out: Out) -> Out: ...

    def animate(self, frame: Any, timestamp: float | None = None, out: Any = None) -> Any:
        """Synthesize one frame.

        Args:
            frame: the driving frame: a numpy image of any size, or an array of another library,
                on the host or on the model's GPU, of exactly the model's size.
            timestamp: its time in seconds, later than the last one's; None is 1/30 s after it.
            out: where the frame is written to, and what is returned then: a numpy array as below,
                or an array as of `frame`, which stays on the GPU if it lies there.

        Returns:
            A new uint8 array (S, S) for a grey model, (S, S, 3) for an RGB one; unmarked.

        Raises:
            InputError: no source yet, not an image, an array that does not fit, or a timestamp that
                does not increase.
            BackendError: a stage failed, an array lies on a GPU and the model does not, or the
                Animator is closed.
        """
        with self._lock:
            self._check_open()
            if self._letterbox is None:
                raise InputError("there is no source image yet", "call set_source(image) first")
            step, now = self._step(timestamp)
            target = self._exchange.target(out)
            self._set_control("dt_seconds", step)
            self._driving_box = self._exchange.give(frame, DRIVING_FRAME, self._driving_box)
            if not self._has_reference:
                self.backend.run(DETECTOR)
                self._take_reference()
            self._exchange.deliver_to_device(target)
            self.backend.run_frame()
            # Only a frame that succeeded moves the clock.
            self._last_time = now
            made = self._exchange.collect(target)
            return made if out is None else out

    def detect(self, frame: Any) -> NDArray[np.float32]:
        """Keypoints of a frame, (K, 2), in [-1, 1] of the letterboxed square; changes nothing else.

        Raises:
            InputError: not an image.
            BackendError: a stage failed, or the Animator is closed.
        """
        with self._lock:
            self._check_open()
            self._exchange.give(frame, DRIVING_FRAME)
            self.backend.run(DETECTOR)
            points: NDArray[np.float32] = self.backend.read(DRIVING + "kp_value")[0]
            return points

    def reset(self) -> None:
        """Begin a new driving clip: the reference, the smoothing and the clock are forgotten."""
        with self._lock:
            self._check_open()
            self._has_reference = False
            self._begin()

    def read(self, name: str) -> NDArray[Any]:
        """A copy of any tensor of the stages, as the last run left it, for example `deformation`.

        Raises:
            ConfigError: the bundle has no such tensor.
            BackendError: the Animator is closed.
        """
        with self._lock:
            self._check_open()
            if name not in self._names:
                raise ConfigError(
                    f"the bundle has no tensor {name!r}", "it has " + ", ".join(sorted(self._names))
                )
            return self.backend.read(name)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._manifest

    @property
    def letterbox(self) -> Letterbox:
        """Where the source image lies in the model's square.

        Raises:
            InputError: there is no source yet.
        """
        if self._letterbox is None:
            raise InputError("there is no source image yet", "call set_source(image) first")
        return self._letterbox

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds of each per-frame stage in the last frame; a live view."""
        return self.backend.seconds

    def close(self) -> None:
        """Give the backend's memory and threads back; a second call does nothing.

        An Animator that is dropped does the same when Python collects it, whenever that is.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                del self._exchange
                self._controls.clear()
                self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("this Animator is closed", "open another one")

    def _set_control(self, name: str, value: float) -> None:
        if name in self._controls:
            self._controls[name][0] = value

    def _begin(self) -> None:
        """A fresh filter state (zeros, by the contract) and a fresh clock."""
        for state in self._states:
            self.backend.write(state, 0)
        self._last_time = None
        self._fit_scale()

    def _fit_scale(self) -> None:
        if self._scale == "hull" and self._has_reference and self._letterbox is not None:
            source = self.backend.read("source_kp_value")[0]
            reference = self.backend.read(REFERENCE + "kp_value")[0]
            self._set_control("scale", hull_scale(source, reference))

    def _take_reference(self) -> None:
        """Keep what the detector has just made as the reference."""
        for made, kept in self._references:
            self.backend.copy(made, kept)
        self._has_reference = True
        self._fit_scale()

    def _step(self, timestamp: float | None) -> tuple[float, float]:
        """Seconds since the last frame, and the time that it is now."""
        last = self._last_time
        if timestamp is None:
            return STEP_SECONDS, 0.0 if last is None else last + STEP_SECONDS
        if not math.isfinite(timestamp):
            raise InputError(f"a timestamp has to be finite, not {timestamp}")
        if last is None:
            return STEP_SECONDS, timestamp
        if timestamp <= last:
            raise InputError(
                f"the frame's time {timestamp:g} s is not after the last one's, {last:g} s",
                "timestamps increase within a clip; call reset() before another clip",
            )
        return timestamp - last, timestamp


def _references(manifest: Manifest) -> list[tuple[str, str]]:
    """Pairs of detector outputs and the reference inputs that some stage takes."""
    wanted = {tensor.name for stage in manifest.stages for tensor in stage.inputs}
    detector = next(stage for stage in manifest.stages if stage.name == DETECTOR)
    pairs = [(t.name, REFERENCE + t.name.removeprefix(DRIVING)) for t in detector.outputs]
    return [(made, kept) for made, kept in pairs if kept in wanted]
