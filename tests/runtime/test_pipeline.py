"""Files in, a file out: sizes, colours, marks, times, references, what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from toy_bundle import blob, centre, make_toy_bundle
from toy_displacement import CELLS

from sonomime import __version__
from sonomime.runtime import Animator
from sonomime.runtime.compose import MOST_SIDE
from sonomime.runtime.media.frames import Crop
from sonomime.runtime.media.mark import draw_mark
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.pipeline import Done, Job, animate_files
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.readers.stills import read_image
from sonomime.runtime.session import own_places

pytestmark = pytest.mark.usefixtures("blobs_are_whole_pictures")

XS = (0.0, 0.1, 0.3, -0.2, 0.0)


@pytest.fixture
def animator(toy_bundle: Path) -> Any:
    with Animator.open(toy_bundle) as opened:
        yield opened


@pytest.fixture
def matching(displacement_toy: Path) -> Any:
    with Animator.open(displacement_toy, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def composing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bundles") / "layered"
    with Animator.open(make_toy_bundle(folder, layers=True), threads=1) as opened:
        yield opened


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with still.png, marks.csv and a folder driving."""
    put(tmp_path / "still.png", blob(101, 0.1, 0.0, height=77, width=0.2))
    for i, x in enumerate(XS):
        put(tmp_path / "driving" / f"frame{i}.png", blob(80, x, 0, width=0.2))
    marks = "image,keypoint,x,y\nsource,a,30,40\nreference,a,50,40\n"
    (tmp_path / "marks.csv").write_text(marks)
    return tmp_path


def put(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), image if image.ndim == 2 else image[..., ::-1])


def make(animator: Animator, folder: Path, output: str, **options: Any) -> Done:
    job = {
        "source": folder / "still.png", "driving": folder / "driving",
        "read_driving": Reading(fps=Fraction(30)), **options,
    }  # fmt: skip
    return animate_files(animator, Job(output=folder / output, **job))


def frame(done: Done, index: int = 0) -> np.ndarray:
    return read_image(sorted(done.output.iterdir())[index])


def horizontal(image: np.ndarray) -> float:
    return float(centre(image)[0])


def levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records]


def test_the_result_has_the_sources_size_the_driving_motion_and_the_mark(
    animator: Animator, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marked, again = make(animator, files, "marked"), make(animator, files, "again")
    assert not caplog.records
    plain = make(animator, files, "plain", mark=False)
    assert levels(caplog) == [logging.WARNING]
    assert (plain.frames, plain.size, plain.reference) == (len(XS), (101, 77), 0)
    assert plain.alignment == "" and plain.quality == []
    for i, x in enumerate(XS):
        image = frame(plain, i)
        assert image.shape == (77, 101)
        assert horizontal(image) == pytest.approx(0.1 + x, abs=0.05)
        assert np.array_equal(draw_mark(image), frame(marked, i))
        assert np.array_equal(frame(marked, i), frame(again, i)), "one Animator makes clips alike"


def test_times_are_kept_and_metadata_call_it_synthetic(
    animator: Animator, files: Path, make_video: Callable[..., Path]
) -> None:
    import av

    times = [0.0, 0.05, 0.25, 0.3, 0.7]
    clip = make_video(files / "vfr.mkv", [blob(64, x, 0) for x in XS], times=times)
    done = make(animator, files, "out.mkv", driving=clip, read_driving=Reading(), mark=False)
    assert [f.timestamp for f in open_source(done.output)] == pytest.approx(times, abs=0.002)
    with av.open(str(done.output)) as container:
        texts = {key.lower(): text for key, text in container.metadata.items()}
    assert "Synthetic" in texts["title"] and f"sonomime {__version__}" in texts["comment"]
    assert "For training and simulation only; not a medical device." in texts["comment"]


def test_references_crops_and_a_clip_as_source(
    animator: Animator, toy_bundle: Path, files: Path
) -> None:
    chosen = make(animator, files, "two", reference=2, mark=False)
    assert chosen.reference == 2
    assert horizontal(frame(chosen)) == pytest.approx(0.1 - 0.3, abs=0.05)
    crops = {
        "read_driving": Reading(Crop(10, 10, 60, 60)), "read_source": Reading(Crop(0, 20, 80, 40)),
    }  # fmt: skip
    done = make(
        animator, files, "out", source=files / "driving", source_frame=2, mark=False, **crops
    )
    assert done.size == (80, 40) and horizontal(frame(done)) == pytest.approx(XS[2], abs=0.05)
    with Animator.open(toy_bundle, motion="absolute") as absolute:
        assert make(absolute, files, "absolute").reference is None


def test_a_pair_is_aligned_before_it_is_animated(matching: Animator, files: Path) -> None:
    """By what the model finds, by a file in pixels before the crops, or not at all."""
    shifts, drawn = [], []
    crops = {
        "read_driving": Reading(Crop(10, 10, 60, 60)), "read_source": Reading(Crop(10, 20, 80, 40)),
    }  # fmt: skip
    for landmarks, reference, options in (
        ("auto", "best", {}), ("none", "best", {}), (files / "marks.csv", 1, crops)
    ):  # fmt: skip
        options = {**options, "reference": reference, "debug_picture": files / "debug.png"}
        done = make(matching, files, "out.mkv", landmarks=landmarks, **options)
        assert done.alignment and done.reference in range(len(XS))
        shifts.append((matching.read("alignment") - own_places(CELLS, CELLS))[0, 0, 0, 0])
        drawn.append((files / "debug.png").read_bytes())
    assert len(set(drawn)) == 3
    best = XS[4]  # two are at 0: any of those in the middle
    assert shifts[0] == pytest.approx(best - 0.1, abs=0.12) and shifts[1] == 0
    assert shifts[2] == pytest.approx((40.5 / 60 - 20.5 / 80) * 2, abs=1e-5)


def test_a_result_of_one_frame_is_warned_of_unless_its_name_says_so(
    animator: Animator, files: Path, make_video: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    video = make_video(files / "clip.mkv", [blob(64, x, 0) for x in XS])
    short = make_video(files / "short.mkv", [blob(64, 0.2, 0)])
    for output, warnings in (("one.png", 0), ("one.mkv", 1)):
        for one in (files / "still.png", short):
            caplog.clear()
            done = make(animator, files, output, source=video, source_frame=0, driving=one)
            assert done.frames == 1 and levels(caplog) == [logging.WARNING] * warnings


def test_side_by_side(animator: Animator, files: Path) -> None:
    done = make(animator, files, "out", side_by_side=True)
    image = frame(done, 1)
    assert image.shape[::-1] == done.size
    heading = image.shape[0] - 192
    source, shown, made = np.split(image[heading:], [252 + 2, 252 + 4 + 192 + 2], axis=1)
    assert horizontal(source[:, :252]) == pytest.approx(0.1, abs=0.05)
    assert horizontal(shown[:, 2:194]) == pytest.approx(XS[1], abs=0.05)
    assert made[-9:, -55:].max() > 200 > source[-9:, -55:].max()
    for column in (0, 256, 452):
        assert image[:heading, column : column + 190].max() > 100, "a caption"


# -- of a bundle with layers -----------------------------------------------------------------------


def test_files_are_composed_unless_asked_otherwise(
    composing: Animator, animator: Animator, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(files / "still.png", blob(400, 0, 0, height=300))
    for size, shown in (("source", (400, 300)), ("model", (64, 48)), ((200, 150), (200, 150))):
        done = make(composing, files, f"out{shown[0]}", size=size, mark=False)
        wanted = cv2.resize(blob(400, XS[1], 0, height=300), shown, interpolation=cv2.INTER_AREA)
        assert done.size == shown and levels_apart(frame(done, 1), wanted) <= 5
        if isinstance(size, str):
            assert make(animator, files, f"enlarged{shown[0]}", size=size).size == shown
    put(files / "still.png", blob(2400, 0, 0, height=300))
    caplog.clear()
    assert make(composing, files, "smaller").size == (MOST_SIDE, 240)
    assert levels(caplog) == [logging.WARNING]


@pytest.mark.parametrize("side_by_side", [False, True])
def test_colours_reach_the_file(composing: Animator, files: Path, side_by_side: bool) -> None:
    put(files / "still.png", blob(120, 0, 0, channels=3, height=91))
    done = make(composing, files, "out", side_by_side=side_by_side, mark=False)
    assert (done.size == (120, 91)) is not side_by_side
    first = frame(done)[20:]  # below the captions
    spread = np.ptp(first.astype(int), axis=2)
    assert spread.max() > 150, "the blob is orange"
    white = (spread <= 2) & (first[..., 0] > 230)
    assert white.any() == side_by_side, "the driving blob is grey"
    put(files / "still.png", np.repeat(blob(120, 0, 0)[..., None], 3, axis=2))
    assert frame(make(composing, files, "grey", mark=False)).ndim == 2, "grey in a file of colours"
