"""The Animator: a still source image once, then one driving frame after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .alignment import Aligner, Landmark, points_to_pixels
from .bundle.bundle import Bundle
from .bundle.manifest import DRIVING_FRAME, LANDMARK_IMAGE, SOURCE_IMAGE, KeypointControl, Motion
from .clock import STEP_SECONDS, Clock
from .compose import Size, SourcePicture
from .fastest import open_session
from .frame_io import FrameIO
from .media.frames import Image, Letterbox
from .options import AnySmoothing, Scale, Shading, fit_scale, set_options
from .quality import Quality, judge_frame
from .session import Session
from .support.errors import BackendError, ConfigError, InputError

Out = TypeVar("Out")


class Animator:
    """Animates a source image with the motion of driving frames::

        with Animator.open() as animator:
            animator.set_source(image)
            for frame in frames:
                synthesized = animator.animate(frame)

    Images are uint8 (H, W) grey or (H, W, 3) RGB of any size; they are letterboxed into the model's
    square of S x S. Arrays of other libraries (with `__cuda_array_interface__` or DLPack) are taken
    and written if they have the model's size; those on the model's GPU stay there.

    Synthesized frames are (S, S) or (S, S, 3), unmarked; `letterbox.restore` leads back to the
    source's size. If the bundle can, `compose` makes that size as sharp as the source.

    Calls from several threads are served one after the other. Methods raise BackendError if a stage
    fails, and after `close`.
    """

    def __init__(
        self,
        session: Session, motion: Motion = "relative", scale: Scale = 1.0,
        smooth: AnySmoothing = None, shading: Shading = "full",
    ) -> None:  # fmt: skip
        """Animate with an opened session, which is closed with the Animator. See `open`."""
        self.session = session
        self.motion = motion
        self._options: dict[str, Any] = {"scale": scale, "smooth": smooth, "shading": shading}
        self._lock = threading.RLock()
        self._closed = False
        set_options(session, motion, scale, smooth, shading)
        self._aligner = Aligner(session)
        self._io = FrameIO(session.backend, session.chain)
        self._picture: SourcePicture | None = None
        self._replayed: Mapping[str, NDArray[Any]] | None = None  # the reference, if from `replay`
        self._clock = Clock()

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        backend: str = "auto", motion: Motion = "relative", smooth: AnySmoothing = None,
        threads: int | None = None, scale: Scale = 1.0, device: int | None = None,
        shading: Shading = "full", precision: str | None = None,
    ) -> Self:  # fmt: skip
        """Open a bundle and its stages.

        Args:
            bundle: its folder, an opened Bundle, or None for the default one.
            backend: a name of `sonomime.runtime.backends.BACKENDS`, or `cpu`.
            motion: `relative` (the source moves as the driving frames move away from the reference,
                the first frame or that of `set_reference`) or `absolute` (it takes the driving
                keypoints as they are).
            smooth: a Smoothing, (min_cutoff, beta), True for the defaults, or None.
            threads: CPU threads; None is the physical cores available.
            scale: factor of relative motion, or `hull`: the ratio of the two anatomies' sizes.
            device: number of the GPU; None is the first.
            shading: how much of the driving clip's change in brightness to take over.
            precision: what to compute in; None is what the bundle holds, and for `auto` whatever
                is fastest here. bf16 is for `openvino` on CPUs that have it.

        Raises:
            ConfigError: an argument out of its range, or one that the bundle cannot honour.
            BundleError: the bundle is missing, changed or malformed.
            BackendError: the backend cannot serve.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        session = open_session(opened, backend, threads, device, precision)
        try:
            return cls(session, motion, scale, smooth, shading)
        except BaseException:
            session.close()
            raise

    def another(self) -> Self:
        """One more with the same model and options, for another source or driving clip. Both may be
        used at the same time; on a CPU they share the weights. BackendError as `open`."""
        with self._served():
            options = dict(self._options)
        # Not while it is held: a GPU's backend is opened again, which takes long.
        return type(self)(self.session.another(), self.motion, **options)

    def adjust(self, **options: Any) -> None:
        """Change `scale`, `smooth` or `shading` from the next frame on: see `open`.

        Raises:
            ConfigError: as `open`; then nothing is changed.
        """
        with self._served():
            if unknown := options.keys() - self._options.keys():
                raise ConfigError(f"{', '.join(sorted(unknown))} cannot be adjusted")
            changed = self._options | options
            set_options(self.session, self.motion, **changed)
            self._options = changed
            self._fit_scale()

    def set_source(self, image: Any) -> None:
        """Take a new source image; InputError if it is none. The reference stays; alignment and
        smoothing start again."""
        with self._served():
            self._picture = None
            self._aligner.drop()
            box = self._io.give(image, SOURCE_IMAGE)
            self.session.set_source()
            self._picture = SourcePicture(self.session, image, box)
            self._begin()

    def set_reference(self, frame: Any) -> None:
        """Take a driving frame as the reference of relative motion; smoothing starts again.

        Raises:
            InputError: not an image, or points of `align` that waited for it lie outside of it.
        """
        with self._served():
            self._replayed = None
            self._aligner.take_reference(self._io.give(frame, DRIVING_FRAME))
            self._begin()

    @overload
    def animate(
        self, frame: Any, timestamp: float | None = None, out: None = None, size: Size | None = None
    ) -> Image: ...

    @overload
    def animate(self, frame: Any, timestamp: float | None = None, *, out: Out) -> Out: ...

    def animate(
        self, frame: Any, timestamp: float | None = None, out: Any = None, size: Size | None = None
    ) -> Any:
        """Synthesize one frame.

        Args:
            timestamp: the frame's time in seconds, later than the last one's; None: 1/30 s after.
            out: an array to write the frame to, which is then returned.
            size: None for the model's own frame; else the frame is what `compose` returns.

        Returns:
            A new uint8 array (S, S) for a grey model, (S, S, 3) for an RGB one; unmarked.

        Raises:
            ConfigError: a size that `compose` refuses, or both `out` and `size`.
            InputError: no source yet, not an image, an array that does not fit, a timestamp that
                does not increase, or points of `align` that waited for this frame lie outside.
            BackendError: an array lies on a GPU and the model does not.
        """
        with self._served():
            picture = self._source_picture()
            if size is not None:
                picture.check(size)
                if out is not None:
                    raise ConfigError("`out` takes the model's own frame", "give size or out")
            step, now = self._clock.next(timestamp)
            target = self._io.target(out)
            self.session.set_within("dt_seconds", step)
            box = self._io.give(frame, DRIVING_FRAME)
            if not self.session.has_reference:
                self._aligner.take_reference(box)
                self._begin()
            self._io.deliver_to_device(target)
            picture.has_frame = False
            picture.compose_next(size)
            self.session.animate()
            picture.has_frame = True
            self._clock.last = now  # only a frame that succeeded moves the clock
            if size is not None:
                return picture.compose(size)
            made = self._io.collect(target)
            return made if out is None else out

    def replay(
        self, passed: Mapping[str, NDArray[Any]], step: float = STEP_SECONDS,
        size: Size | None = None, reference: Mapping[str, NDArray[Any]] | None = None,
    ) -> Image:  # fmt: skip
        """Synthesize one frame of what once passed from a driving frame; `player.Player` gives it.
        The clock goes on by `step`: `reset` before frames of a clip. `timings` stay as they were.

        Args:
            passed: tensors of `session.passed()`, by name.
            step: seconds since the last frame.
            size: as for `animate`.
            reference: what was seen of its reference frame, which is taken first, unless it is
                the one in use; empty where `passed` needs none.

        Raises:
            ConfigError: a size that `compose` refuses.
            InputError: no source yet.
            BackendError: a stage failed.
        """
        with self._served():
            picture = self._source_picture()
            if size is not None:
                picture.check(size)
            if reference and reference is not self._replayed:
                for name, value in reference.items():
                    self.session.backend.write(name, value)
                self._aligner.drop()
                self.session.take_observed()
                self._begin()
                self._replayed = reference
            self.session.set_within("dt_seconds", step)
            picture.has_frame = False
            self.session.replay(passed)
            picture.has_frame = True
            self._clock.last = (self._clock.last or 0.0) + step
            return self._io.frame() if size is None else picture.compose(size)

    def compose(self, size: Size = "source") -> Image:
        """The last frame again, made from the source at this size; unmarked, not letterboxed. A new
        uint8 array (height, width), or (height, width, 3) if source or model are RGB.

        Raises:
            ConfigError: the bundle has no layers, or a size that is too large or of another shape.
            InputError: no source, or no frame of it yet.
        """
        with self._served():
            return self._source_picture().compose(size)

    def detect(self, frame: Any) -> NDArray[np.float32]:
        """Keypoints of a frame, (K, 2), in [-1, 1] of the letterboxed square; changes nothing else.

        Raises:
            ConfigError: the model has no keypoints.
            InputError: not an image.
        """
        with self._served():
            if not isinstance(self.session.chain.control, KeypointControl):
                raise ConfigError("this model has no keypoints to detect")
            self._io.give(frame, DRIVING_FRAME)
            self.session.observe()
            return np.asarray(self.session.read("driving_kp_value")[0], np.float32)

    def align(
        self,
        source_points: ArrayLike | None = None,
        reference_points: ArrayLike | None = None,
        pictures: bool = True,
    ) -> None:
        """Read the motion of each place of the source where the same anatomy is in the reference.

        Without a reference, this waits for the first one. A new source, another reference and
        `reset` drop it. Where pictures are matched, smoothing starts again.

        Args:
            source_points, reference_points: (K, 2) landmarks in pixels of each picture, or None.
            pictures: also match the two pictures, if the model can and they show something.

        Raises:
            ConfigError: the model cannot align, or not without landmarks.
            InputError: no source yet; points not (K, 2), not finite or outside of their picture.
        """
        with self._served():
            self._aligner.align(source_points, reference_points, pictures, self.letterbox)

    def unalign(self) -> None:
        """Read the motion of each place of the source at that very place of the driving frame."""
        with self._served():
            self._aligner.drop()

    def find_landmarks(self, image: Any) -> list[Landmark]:
        """Landmarks of a source image or a driving frame, in its pixels; changes nothing else.
        ConfigError if the model has no detector of landmarks."""
        with self._served():
            names = self.session.landmarks
            if not names:
                raise ConfigError("this model finds no landmarks", "place them by hand: align()")
            box = self._io.give(image, LANDMARK_IMAGE)
            found = self.session.find_landmarks()
            rows = np.column_stack([points_to_pixels(found[:, :2], box), found[:, 2]]).tolist()
            return [Landmark(name, *row) for name, row in zip(names, rows, strict=True)]

    def reset(self) -> None:
        """Begin a new driving clip: forget reference, alignment, smoothing and time."""
        with self._served():
            self._replayed = None
            self._aligner.drop()
            self.session.forget_reference()
            self._begin()

    def read(self, name: str) -> NDArray[Any]:
        """A copy of any tensor of the stages, as the last run left it, for example `deformation`;
        ConfigError if the bundle has no such tensor."""
        with self._served():
            return self.session.read(name)

    @property
    def quality(self) -> Quality | None:
        """How far the last frame of this source, reference and clip can be trusted; None if there
        is no frame yet, or if the model does not say."""
        with self._served():
            if self._picture is None or self._clock.last is None:
                return None
            return judge_frame(self.session, self._picture.box)

    @property
    def letterbox(self) -> Letterbox:
        """Where the source image lies in the model's square; InputError if there is none yet."""
        return self._source_picture().box

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds of each per-frame stage in the last frame."""
        return self.session.backend.seconds

    def close(self) -> None:
        """Release the backend's memory and threads; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                del self._io
                self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _served(self) -> Iterator[None]:
        """Admit one caller at a time, and none after `close`."""
        with self._lock:
            if self._closed:
                raise BackendError("this Animator is closed", "open another one")
            yield

    def _source_picture(self) -> SourcePicture:
        if self._picture is None:
            raise InputError("there is no source image yet", "call set_source(image) first")
        return self._picture

    def _begin(self) -> None:
        """Restart the clock and fit the scale to the new pair; the session's states are fresh."""
        self._clock.last = None
        self._fit_scale()

    def _fit_scale(self) -> None:
        pair = self.session.has_reference and self._picture is not None
        if self._options["scale"] == "hull" and pair:
            fit_scale(self.session)
