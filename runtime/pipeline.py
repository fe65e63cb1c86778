"""Animate files: a source picture and a driving clip become an animated clip."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

from .animator import Animator
from .compose import Size
from .driving import Options, open_driving
from .landmarks import Picture, check_landmarks_fit
from .media.frames import resize
from .media.mark import draw_mark, metadata
from .media.panels import Panels
from .quality import Quality, summary
from .readers.reading import AS_IS, Facts, Reading
from .readers.source import FrameSource
from .sinks.dicom import may_show_somebody
from .sinks.open_sink import open_sink
from .still import made_size, read_still, spacing_at
from .support.errors import ConfigError, OutputError, output_errors
from .support.progress import progress

log = logging.getLogger("sonomime")

CAPTIONS = ("source", "driving", "synthesized")


@dataclass(frozen=True)
class Job:
    """What to animate.

    `reference` is `first`, `best` or the index of a driving frame; `source_frame` the frame of a
    source that is a clip, None for the first; `read_source` and `read_driving` say how the two are
    read; `landmarks` as for `align_pair`; `debug_picture` a PNG file that shows the alignment;
    `keep_colour` refuses what would lose the source's colours; `allow_burned_in` lets DICOM be
    written of a source that says it shows who was examined.
    """

    source: Path
    driving: Path
    output: Path
    reference: str | int = "first"
    read_source: Reading = AS_IS
    read_driving: Reading = AS_IS
    source_frame: int | None = None
    side_by_side: bool = False
    mark: bool = True
    landmarks: str | Path = "auto"
    debug_picture: Path | None = None
    size: Size = "source"
    keep_colour: bool = False
    allow_burned_in: bool = False


@dataclass(frozen=True)
class Done:
    """What was made: frames written, the reference's index (None for absolute motion), the size
    (width, height), seconds from the first frame to the closed file, how source and reference were
    aligned (empty if the model cannot), each frame's quality, if the model says, and a line about
    doubtful ones ("" if none); what was read, and whether it was damaged."""

    output: Path
    frames: int
    reference: int | None
    size: tuple[int, int]
    seconds: float
    alignment: str
    quality: list[Quality]
    doubts: str
    read_source: Facts
    read_driving: Facts
    damaged: bool


def animate_files(
    animator: Animator, job: Job, say: Callable[[str], object] = lambda line: None
) -> Done:
    """Animate a source file with a driving file, frame by frame; videos are never read whole.
    `say` gets a line about each of the two before work starts.

    The result's metadata call it synthetic. If the bundle can compose, the picture is as sharp as
    the source and has its colours; else the model's frame is enlarged.

    Raises:
        ConfigError: what the job asks for makes no sense, or the model cannot do it.
        InputError: the source or the driving clip cannot be used, or lacks the frame asked for.
        OutputError: the output cannot be written; nothing is left under its name.
        BackendError: a stage failed.
    """
    _check(job)
    chain = animator.session.chain
    channels, composes = chain.image.channels, chain.layers is not None
    source, still = read_still(
        job.source, job.read_source, chain, job.source_frame or 0, job.keep_colour
    )
    driving = open_driving(job.driving, job.read_driving, channels)
    source.warn_of_clutter()
    source.announce(lambda line: say(f"source {line}"))
    driving.announce(lambda line: say(f"driving {line}"))
    if driving.has_one_frame() and not driving.damaged:
        _check_one_frame(job, source)
    animator.reset()
    animator.set_source(still)
    size = shown = made_size(animator.letterbox, job.size, chain)
    burned_in = None
    if _is_dicom(job):
        burned_in = may_show_somebody(source.facts, job.allow_burned_in)
        if burned_in is None:
            log.warning("whether %s shows who was examined is not known: look at it", job.source)
    options = Options(job.reference, job.landmarks, job.debug_picture, job.side_by_side)
    index, alignment = driving.begin(animator, Picture(still, source.crop), options)
    channels = 3 if still.ndim == 3 else channels
    panels = None
    if job.side_by_side and driving.size is not None:
        panels = Panels(CAPTIONS, (still.shape[1::-1], driving.size, size), channels)
        panels.compose((still, None, None))
        shown = panels.size
    if not job.mark:
        log.warning("the synthetic mark is left out of %s, as asked", job.output)
    judged: list[Quality] = []
    begin = time.perf_counter()
    with open_sink(
        job.output, shown, channels, driving.fps, metadata(),
        None if job.side_by_side else spacing_at(source, size), burned_in,
    ) as sink:  # fmt: skip
        steps = driving.steps(animator, size if composes else None)
        for picture, timestamp, shown_frame in progress(steps, driving.count, "animate"):
            if not composes:
                picture = resize(animator.letterbox.inside(picture), *size)
            if (quality := animator.quality) is not None:
                judged.append(quality)
            if job.mark:
                picture = draw_mark(picture)
            if panels is not None:
                picture = panels.compose((None, shown_frame, picture))
            sink.write(picture, timestamp)
    seconds = time.perf_counter() - begin
    driving.facts.frames = sink.count
    return Done(
        job.output, sink.count, index, shown, seconds, alignment, judged,
        summary(judged, [*driving.ruled_out, *["--reference best"] * (job.reference == "best")]),
        source.facts, driving.facts, driving.damaged,
    )  # fmt: skip


def _is_dicom(job: Job) -> bool:
    return job.output.suffix.lower() == ".dcm"


def _check(job: Job) -> None:
    check_landmarks_fit(job.landmarks, job.reference)
    if job.side_by_side and _is_dicom(job):
        hint = "leave out --side-by-side, or write .mp4"
        raise ConfigError("a DICOM file holds the synthesized picture alone", hint)
    for index in (job.source_frame, job.reference):
        if isinstance(index, int) and index < 0:
            raise ConfigError(f"there is no frame {index}", "frames are counted from 0")
    outputs = {"-o": job.output}
    if (picture := job.debug_picture) is not None:
        outputs["--debug-picture"] = picture
        there = picture.resolve()
        # A folder that is written holds only frames.
        if picture.suffix.lower() != ".png" or job.output.resolve() in (there, *there.parents):
            hint = "give --debug-picture NAME.png of its own, outside of the output"
            raise ConfigError(f"the debug picture cannot be {picture}", hint)
    for option, output in outputs.items():
        with output_errors(output):
            if not output.exists():
                continue
        # A picture in a folder that is read would be one of its frames.
        places = (output, output.parent) if output.suffix.lower() == ".png" else (output,)
        for file, place in product((job.source, job.driving), places):
            if file.exists() and file.samefile(place):
                hint = f"choose another name with {option}"
                raise OutputError(f"{output} is an input of this run", hint)


def _check_one_frame(job: Job, source: FrameSource) -> None:
    """Refuse a source that is a clip if the driving clip has one frame: they are likely swapped."""
    if job.source_frame is None and not _has_one_frame(source):
        raise ConfigError(
            f"the source {job.source} is a clip, the driving input {job.driving} one image",
            "if they are swapped, put the still first; to animate one frame of the clip, "
            "choose it with --source-frame N",
        )
    if job.output.suffix.lower() != ".png":
        log.warning("%s has one frame, and so has %s", job.driving, job.output)


def _has_one_frame(source: FrameSource) -> bool:
    return next(islice(source, 1, 2), None) is None
