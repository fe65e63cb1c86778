"""What drives a source from a file: a clip, frame by frame, or a motion template."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from .animator import Animator
from .bundle.manifest import ALIGNMENT
from .compose import Size
from .debug_picture import write_debug_picture
from .landmarks import Given, Landmarks, Picture, align_pair, places_in, sure_of
from .media.frames import Crop, Image
from .outlines import warn_of_outlines
from .player import Player
from .readers.open_source import open_source
from .readers.reading import Facts, Frame, Reading, mean_rate
from .reference import choose_reference, nth_frame
from .support.errors import ConfigError, InputError
from .template import Template, shipped, template_file

log = logging.getLogger("sonomime")


class Step(NamedTuple):
    """A synthesized frame, its time in seconds, and the driving frame, if there is one."""

    picture: Image
    timestamp: float
    driving: Image | None


@dataclass(frozen=True)
class Options:
    """How the reference is chosen and aligned with the source: as in `pipeline.Job`."""

    reference: str | int
    landmarks: str | Path
    debug_picture: Path | None
    side_by_side: bool


class DrivingClip:
    """A clip. `count`: how many frames, as far as known; `size`: theirs, (width, height)."""

    def __init__(self, path: Path, how: Reading, channels: int) -> None:
        self._clip = open_source(path, how, channels, announce=False)
        self.facts, self.fps, self.count = self._clip.facts, self._clip.fps, self._clip.count_hint
        self.size: tuple[int, int] | None = self._clip.size
        self.ruled_out: list[str] = []

    def announce(self, say: Callable[[str], object]) -> None:
        self._clip.warn_of_clutter()
        self._clip.announce(say)

    @property
    def damaged(self) -> bool:
        return self._clip.damage is not None

    def has_one_frame(self) -> bool:
        return next(islice(self._clip, 1, 2), None) is None

    def begin(
        self, animator: Animator, source: Picture, options: Options
    ) -> tuple[int | None, str]:
        """Set reference and alignment of an animator whose source is set.

        Returns:
            The reference's index, if there is one; by what the two are aligned, "" where the model
            cannot.
        """
        index, image = choose_reference(animator, self._clip, options.reference)
        landmarks, debug_picture = options.landmarks, options.debug_picture
        if not animator.session.can_align or image is None:
            for option, given in (("landmarks", landmarks), ("debug-picture", debug_picture)):
                if isinstance(given, Path):
                    what = f"this model cannot align source and reference: --{option} has no effect"
                    hint = "leave it out; it is for models that move by displacements"
                    raise ConfigError(what, hint)
            return index, ""
        warn_of_outlines(source.image, image)
        reference = Picture(image, self._clip.crop)
        alignment = align_pair(animator, landmarks, source, reference)
        if debug_picture is not None:
            write_debug_picture(
                debug_picture, (source.image, image), animator.read(ALIGNMENT),
                alignment.points, alignment.names, animator.session.chain.image.size,
            )  # fmt: skip
        return index, alignment.said

    @property
    def crop(self) -> Crop | None:
        """The part of whole frames that is read."""
        return self._clip.crop

    def nth(self, index: int) -> Image:
        """A frame; InputError if there are fewer."""
        return nth_frame(self._clip, index)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._clip)

    def steps(self, animator: Animator, size: Size | None) -> Iterator[Step]:
        """Animate all frames; `size` as for `Animator.animate`."""
        for frame in self:
            picture = animator.animate(frame.image, frame.timestamp, size=size)
            yield Step(picture, frame.timestamp, frame.image)


class DrivingTemplate:
    """A motion template, from its first frame to its last."""

    size: tuple[int, int] | None = None
    damaged = False

    def __init__(self, path: Path, how: Reading) -> None:
        for option in ("crop", "window", "region", "fps"):
            if getattr(how, option) is not None:
                hint = "leave it out: a template has no pictures"
                raise ConfigError(f"--{option} is for driving clips, {path} is a template", hint)
        self._template = Template.load(path)
        self.count: int | None = len(self._template.times)
        self.fps: Fraction | None = mean_rate(self._template.times.tolist())
        fps = float(self.fps) if self.fps else None
        # Advice about doubtful frames that cannot help.
        self.ruled_out = ["--reference best", "one scene per clip"]
        self.ruled_out += [] if self._template.landmarks else ["--landmarks"]
        self.facts = Facts("motion template", frames=self.count, fps=fps)
        self._player: Player | None = None

    @property
    def seconds(self) -> float:
        return self._template.seconds

    @property
    def landmarks(self) -> list[str]:
        """Names of the places in its reference that are known."""
        return list(self._template.landmarks)

    def announce(self, say: Callable[[str], object]) -> None:
        title = self._template.about.get("title", "")
        named = f" ({title})" if title else ""
        say(f"motion template{named}: {self.count} frames, {self._template.seconds:.3g} s")

    def has_one_frame(self) -> bool:
        return False

    def begin(
        self, animator: Animator, source: Picture, options: Options
    ) -> tuple[int | None, str]:
        """As of `DrivingClip`. Aligned by the template's landmarks alone: there is no picture."""
        for option, wrong in (
            ("--reference", options.reference != "first"),
            ("--debug-picture", options.debug_picture is not None),
            ("--side-by-side", options.side_by_side),
        ):
            if wrong:
                hint = "leave it out: a template has one reference, and no pictures"
                raise ConfigError(f"{option} has no effect with a motion template", hint)
        self._player, said = self.player(animator, source, options.landmarks)
        return None, said

    def player(
        self, animator: Animator, source: Picture, landmarks: Landmarks
    ) -> tuple[Player, str]:
        """A player for an animator whose source is set, and by what the two are aligned, "" where
        the model cannot. `landmarks` as for `align_pair`."""
        known = self._template.landmarks
        places: Mapping[str, tuple[float, float]] | None = None
        if isinstance(landmarks, Given):
            places = landmarks.source
        elif isinstance(landmarks, Path):
            places = places_in(landmarks, "source", source)
        elif landmarks == "auto" and known and animator.session.landmarks:
            found = sure_of(animator, source)
            places = {name: place for name, place in found.items() if name in known} or None
        player = Player(animator, self._template, places)
        if not animator.session.can_align:
            said = ""
        elif places is not None:
            said = f"aligned by {', '.join(player.aligned_by)}"
        elif landmarks == "none":
            said = "not aligned, as asked"
        elif not known:
            said = "not aligned: this template has no landmarks"
        else:
            said = f"not aligned; landmarks can align it: {', '.join(known)}"
        return player, said

    def steps(self, animator: Animator, size: Size | None) -> Iterator[Step]:
        assert self._player is not None
        for seconds in self._template.times.tolist():
            yield Step(self._player.frame(seconds, size), seconds, None)


def open_driving(path: Path, how: Reading, channels: int) -> DrivingClip | DrivingTemplate:
    """Open a clip, a template's file, or a template that comes with the package, by its name.

    Raises:
        InputError: it cannot be read; see `open_source` and `Template.load`.
        ConfigError: options of clips, given for a template.
    """
    if (template := template_file(path)) is not None:
        return DrivingTemplate(template, how)
    if not path.exists() and not path.suffix and path.name == str(path):
        known = ", ".join(shipped())
        what = f"{path} is neither a file nor a motion template of the package"
        raise InputError(what, f"check the path; the templates are {known}")
    return DrivingClip(path, how, channels)
