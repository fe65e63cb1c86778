"""Frames of a stream, and what is said about each."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, NamedTuple

from ..media.frames import Image
from ..quality import Quality
from ..support.errors import InputError
from .errands import ENDED
from .feed import Arrival, Feed
from .pairs import Pair
from .renderer import Rendered
from .screen import Screen, State

log = logging.getLogger("sonomime")

LOST_AFTER = 2.0  # seconds without a frame of a live feed
LOST = "what makes the frames is lost: another one takes over"
DOUBT_SECONDS = 1.0  # doubtful: at least half of the frames of the last so many seconds are


class Shown(NamedTuple):
    """
    Attributes:
        number: from 0, without gaps; an outlet that drops frames shows gaps.
        image: uint8 (H, W) or (H, W, 3), always of one shape; marked.
        timestamp: seconds since the stream began; of a clip that is not paced, its own.
        made_at: seconds since 1970.
        state: whether the picture is live, and what it is if not.
        why: the reason in words; "" where it is live.
        latency: seconds since the driving frame came or was due; None for a frame shown again, and
            where nothing is due.
        model_seconds: how much of `latency` the model took.
        quality: of a new frame, if the model says.
        source: the source picture's name.
        spacing: (x, y) millimetres from pixel to pixel, if they are known.
        driving: the driving frame that it was made of, if there is one.
    """

    number: int
    image: Image
    timestamp: float
    made_at: float
    state: State
    why: str = ""
    latency: float | None = None
    model_seconds: float | None = None
    quality: Quality | None = None
    source: str = ""
    spacing: tuple[float, float] | None = None
    driving: Image | None = None

    def texts(self) -> dict[str, str]:
        """For the metadata of whatever carries the frame."""
        texts = {"State": self.state, "Source": self.source, "FrameIndex": str(self.number)}
        if self.why:
            texts["Why"] = self.why
        if self.quality is not None:
            texts["Confidence"] = f"{self.quality.confidence:.3f}"
        if self.latency is not None:
            texts["LatencyMilliseconds"] = f"{1000 * self.latency:.1f}"
        if self.model_seconds is not None:
            texts["ModelMilliseconds"] = f"{1000 * self.model_seconds:.2f}"
        return texts


class Showing:
    """Makes the frames, marked and all of one form."""

    def __init__(self, driving: Feed, mark: bool) -> None:
        self._driving, self._mark = driving, mark
        self._screen: Screen | None = None
        self._picture: Image | None = None  # the newest synthesized frame
        self._moved_by: Image | None = None  # what it was made of
        self._doubts: deque[tuple[float, str]] = deque()
        self._number, self._clock = 0, -1.0
        self._begin = time.perf_counter()

    def take_form(self, size: tuple[int, int], channels: int) -> None:
        """The form of all frames, which stays; before it, none is made."""
        if self._screen is None:
            self._screen = Screen(size, channels, self._mark)

    def take_pair(self) -> None:
        """Frames to come are of another source or reference."""
        self._doubts.clear()

    def moved(self, pair: Pair, arrival: Arrival) -> Shown | None:
        """The frame of a driving frame that has just come; None if that cannot be used.

        Raises:
            InputError: the frame of a clip cannot be used.
            BackendError: a stage failed.
            RendererLost: what makes the frames is gone.
        """
        begin = time.perf_counter()
        if (made := self._move(pair, arrival)) is None:
            return None
        took, quality = time.perf_counter() - begin, made.quality
        why = self._doubt(quality)
        unpaced = self._driving.pace == "unpaced"
        came = None if unpaced else arrival.came
        seconds = arrival.timestamp if unpaced else None
        state: State = "doubtful" if why else "live"
        more = {"quality": quality, "model_seconds": took}
        return self._shown(self._picture, state, why, pair, came, seconds, **more)

    def again(
        self, pair: Pair, arrival: Arrival, arrived: float, paused: bool, fresh: bool
    ) -> Shown | None:
        """A new pair in the pose of the last driving frame. `fresh`: that has come so recently that
        the picture is live; else as `same`."""
        if self._move(pair, arrival) is not None and fresh:
            return self._shown(self._picture, "live", "", pair)
        return self.same(pair, arrived, paused)

    def last(self) -> Shown | None:
        """A black frame for the end, so that no receiver keeps one that looks live."""
        return self._shown(None, "no signal", ENDED, None)

    def _move(self, pair: Pair, arrival: Arrival) -> Rendered | None:
        """Make the picture; None if it could not be made."""
        self._clock = max(arrival.timestamp, self._clock + 1e-4)  # an Animator's times increase
        try:
            made = pair.frame(arrival, self._clock)
        except InputError as error:
            if self._driving.pace != "live":
                raise
            log.warning("%s: %s", self._driving.name, error)
            return None
        self._picture, self._moved_by = made.image, arrival.image
        return made

    def same(self, pair: Pair | None, arrived: float, paused: bool) -> Shown | None:
        """The last frame again, or a black one, and why. `arrived`: when the last driving frame
        did, by time.perf_counter()."""
        driving, silent = self._driving, time.perf_counter() - arrived
        why = driving.problem or f"no driving frame for {silent:.0f} s"
        if paused:
            return self._shown(self._picture, "held", "paused", pair)
        if silent >= LOST_AFTER and driving.pace == "live":
            return self._shown(None, "no signal", why, pair)
        if pair is not None and pair.renderer.lost:
            why = driving.problem or LOST
        if pair is None or self._picture is None:
            why = driving.problem or "the model is being prepared"
            return self._shown(None, "warming up", why, pair)
        return self._shown(self._picture, "held", why, pair)

    def _doubt(self, quality: Quality | None) -> str:
        """Why the picture is doubtful now, "" if it is not: judged by the last DOUBT_SECONDS."""
        if quality is None:
            return ""
        self._doubts.append((self._clock, quality.why))
        while self._clock - self._doubts[0][0] > DOUBT_SECONDS:
            self._doubts.popleft()
        reasons = [why for _, why in self._doubts if why]
        if 2 * len(reasons) < len(self._doubts):
            return ""
        return max(reasons, key=reasons.count)

    def _shown(
        self, picture: Image | None, state: State, why: str, pair: Pair | None,
        came: float | None = None, seconds: float | None = None, **more: Any,
    ) -> Shown | None:  # fmt: skip
        if self._screen is None:
            return None
        if seconds is None:
            seconds = time.perf_counter() - self._begin
        number, self._number = self._number, self._number + 1
        image = self._screen.show(picture, state)
        latency = None if came is None else time.perf_counter() - came
        name, spacing = ("", None) if pair is None else (pair.still.name, pair.spacing)
        return Shown(
            number, image, seconds, time.time(), state, why, latency, source=name, spacing=spacing,
            driving=None if picture is None else self._moved_by, **more,
        )  # fmt: skip
