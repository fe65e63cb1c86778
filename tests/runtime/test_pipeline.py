"""Files in, a file out: sizes, marks, times, references."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from toy_bundle import blob
from toy_displacement import CELLS

from sonomime import __version__
from sonomime.runtime import Animator
from sonomime.runtime.media.frames import Crop, read_image
from sonomime.runtime.media.mark import draw_mark
from sonomime.runtime.media.video import open_source
from sonomime.runtime.pipeline import Job, animate_files
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import ConfigError, InputError, OutputError

XS = (0.0, 0.1, 0.3, -0.2, 0.0)


@pytest.fixture
def animator(toy_bundle: Path) -> Any:
    with Animator.open(toy_bundle) as opened:
        yield opened


@pytest.fixture
def still(tmp_path: Path) -> Path:
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), blob(101, 0.1, 0.0, height=77, width=0.2))
    return path


@pytest.fixture
def driving(tmp_path: Path) -> Path:
    folder = tmp_path / "driving"
    folder.mkdir()
    for i, x in enumerate(XS):
        cv2.imwrite(str(folder / f"frame{i}.png"), blob(80, x, 0, width=0.2))
    return folder


def horizontal(image: np.ndarray) -> float:
    grey = image.astype(np.float64)
    xs = (2 * np.arange(image.shape[1]) + 1) / image.shape[1] - 1
    return float((grey * xs).sum() / grey.sum())


def test_the_result_has_the_sources_size_the_driving_motion_and_the_mark(
    animator: Animator, still: Path, driving: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marked = animate_files(animator, Job(still, driving, tmp_path / "marked"))
    again = animate_files(animator, Job(still, driving, tmp_path / "again"))
    assert not caplog.records
    plain = animate_files(animator, Job(still, driving, tmp_path / "plain", mark=False))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert (plain.frames, plain.size, plain.reference) == (len(XS), (101, 77), 0)
    files = [sorted(done.output.iterdir()) for done in (plain, marked, again)]
    for x, one, other, third in zip(XS, *files, strict=True):
        image = read_image(one)
        assert image.shape == (77, 101)
        assert horizontal(image) == pytest.approx(0.1 + x, abs=0.05)
        assert np.array_equal(draw_mark(image), read_image(other))
        assert other.read_bytes() == third.read_bytes(), "one Animator makes clips alike"


@pytest.mark.parametrize("mark", [True, False])
def test_times_are_kept_and_metadata_call_it_synthetic(
    animator: Animator, still: Path, tmp_path: Path, make_video: Callable[..., Path], mark: bool
) -> None:
    import av

    times = [0.0, 0.05, 0.25, 0.3, 0.7]
    clip = make_video(tmp_path / "vfr.mkv", [blob(64, x, 0) for x in XS], times=times)
    done = animate_files(animator, Job(still, clip, tmp_path / "out.mkv", mark=mark))
    assert [f.timestamp for f in open_source(done.output)] == pytest.approx(times, abs=0.002)
    with av.open(str(done.output)) as container:
        texts = {key.lower(): text for key, text in container.metadata.items()}
    assert "Synthetic" in texts["title"] and f"sonomime {__version__}" in texts["comment"]
    assert "For training and simulation only; not a medical device." in texts["comment"]


def test_references(
    animator: Animator, toy_bundle: Path, still: Path, driving: Path, tmp_path: Path
) -> None:
    chosen = animate_files(animator, Job(still, driving, tmp_path / "two", reference=2, mark=False))
    assert chosen.reference == 2
    first = read_image(sorted(chosen.output.iterdir())[0])
    assert horizontal(first) == pytest.approx(0.1 - 0.3, abs=0.05)
    for wrong, kind in ((9, InputError), ("last", ConfigError), (-1, ConfigError)):
        with pytest.raises(kind, match=str(wrong)):
            animate_files(animator, Job(still, driving, tmp_path / "none", reference=wrong))
    assert not (tmp_path / "none").exists()
    with Animator.open(toy_bundle, motion="absolute") as absolute:
        assert animate_files(absolute, Job(still, driving, tmp_path / "out")).reference is None


@pytest.fixture
def matching(displacement_toy: Path) -> Any:
    with Animator.open(displacement_toy, threads=1) as opened:
        yield opened


def test_a_pair_is_aligned_before_it_is_animated(
    matching: Animator, still: Path, driving: Path, tmp_path: Path
) -> None:
    """By what the model finds, by a file in pixels before the crops, or not at all."""
    table = tmp_path / "landmarks.csv"
    table.write_text("image,keypoint,x,y\nsource,a,30,40\nreference,a,50,40\n")
    shifts, drawn = [], []
    for choice, reference, crop in (
        ("auto", "best", None), ("none", "best", None), (table, 1, Crop(10, 10, 60, 60))
    ):  # fmt: skip
        job = Job(
            still, driving, tmp_path / "out.mkv", reference, crop, landmarks=choice,
            debug_picture=tmp_path / "debug.png",
        )  # fmt: skip
        done = animate_files(matching, job)
        assert done.alignment and done.reference in range(len(XS))
        shifts.append((matching.read("alignment") - own_places(CELLS, CELLS))[0, 0, 0, 0])
        drawn.append((tmp_path / "debug.png").read_bytes())
    assert len(set(drawn)) == 3
    best = XS[4]  # two are at 0: any of those in the middle
    assert shifts[0] == pytest.approx(best - 0.1, abs=0.12) and shifts[1] == 0
    assert shifts[2] == pytest.approx((40.5 / 60 - 30.5 / 101) * 2, abs=1e-5)


def test_a_model_without_an_alignment_has_nothing_to_say_or_draw(
    animator: Animator, still: Path, driving: Path, tmp_path: Path
) -> None:
    assert animate_files(animator, Job(still, driving, tmp_path / "out")).alignment == ""
    for options in ({"landmarks": tmp_path / "l.csv"}, {"debug_picture": tmp_path / "d.png"}):
        with pytest.raises(ConfigError) as caught:
            animate_files(animator, Job(still, driving, tmp_path / "none", **options))
        assert caught.value.hint and not (tmp_path / "none").exists()
    assert not (tmp_path / "d.png").exists()


def test_a_debug_picture_is_a_png_file_of_its_own(
    matching: Animator, still: Path, driving: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out.png", tmp_path / "frames"
    for output, picture, error in (
        (out, tmp_path / "debug.jpg", ConfigError), (out, out, ConfigError),
        (folder, folder / "debug.png", ConfigError), (out, still, OutputError),
        (out, driving / "frame0.png", OutputError),
    ):  # fmt: skip
        before = [each.read_bytes() for each in (still, driving / "frame0.png")]
        with pytest.raises(error):
            animate_files(matching, Job(still, driving, output, debug_picture=picture))
        assert before == [each.read_bytes() for each in (still, driving / "frame0.png")]
        assert not output.exists()


def test_a_clip_as_source_and_crops(animator: Animator, driving: Path, tmp_path: Path) -> None:
    job = Job(
        driving, driving, tmp_path / "out", crop=Crop(10, 10, 60, 60), mark=False,
        source_crop=Crop(0, 20, 80, 40), source_frame=2,
    )  # fmt: skip
    done = animate_files(animator, job)
    assert done.size == (80, 40)
    first = read_image(sorted(done.output.iterdir())[0])
    assert horizontal(first) == pytest.approx(XS[2], abs=0.05)


def test_a_clip_that_one_image_is_to_drive_seems_swapped(
    animator: Animator, still: Path, driving: Path, tmp_path: Path, make_video: Callable[..., Path],
) -> None:  # fmt: skip
    video = make_video(tmp_path / "clip.mkv", [blob(64, x, 0) for x in XS])
    for clip in (driving, video):
        with pytest.raises(ConfigError) as caught:
            animate_files(animator, Job(clip, still, tmp_path / "out"))
        assert "--source-frame" in caught.value.hint and not (tmp_path / "out").exists()
    chosen = Job(video, still, tmp_path / "out.mkv", source_frame=0)
    assert animate_files(animator, chosen).frames == 1


@pytest.mark.parametrize(("name", "warnings"), [("one.png", 0), ("one.mkv", 1)])
def test_a_result_of_one_frame_is_warned_of_unless_its_name_says_so(
    animator: Animator, still: Path, tmp_path: Path, make_video: Callable[..., Path],
    caplog: pytest.LogCaptureFixture, name: str, warnings: int,
) -> None:  # fmt: skip
    short = make_video(tmp_path / "short.mkv", [blob(64, 0.2, 0)])
    for image in (still, short):
        caplog.clear()
        assert animate_files(animator, Job(still, image, tmp_path / name)).frames == 1
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings


def test_side_by_side(animator: Animator, still: Path, driving: Path, tmp_path: Path) -> None:
    done = animate_files(animator, Job(still, driving, tmp_path / "out", side_by_side=True))
    image = read_image(sorted(done.output.iterdir())[1])
    assert image.shape[::-1] == done.size
    heading = image.shape[0] - 192
    source, shown, made = np.split(image[heading:], [252 + 2, 252 + 4 + 192 + 2], axis=1)
    assert horizontal(source[:, :252]) == pytest.approx(0.1, abs=0.05)
    assert horizontal(shown[:, 2:194]) == pytest.approx(XS[1], abs=0.05)
    assert made[-9:, -55:].max() > 200 > source[-9:, -55:].max()
    for column in (0, 256, 452):
        assert image[:heading, column : column + 190].max() > 100, "a caption"


def test_an_input_is_not_overwritten(animator: Animator, still: Path, driving: Path) -> None:
    frame = driving / "frame0.png"
    for job in (Job(still, driving, still), Job(still, driving, frame), Job(driving, still, frame)):
        before = job.output.read_bytes()
        with pytest.raises(OutputError):
            animate_files(animator, job)
        assert job.output.read_bytes() == before
