"""Sinks keep grey levels, times and texts, and leave nothing half-written behind."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media_files import LEVELS, apart, noise
from PIL import Image as PillowImage

from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.sinks import video as sinks
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.support.errors import ConfigError, InputError, OutputError


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float | None] | None = None,
    **options: object,
) -> Path:
    height, width = frames[0].shape[:2]
    channels = 1 if frames[0].ndim == 2 else 3
    with open_sink(path, (width, height), channels, **options) as sink:  # type: ignore[arg-type]
        for frame, time in zip(frames, times or [None] * len(frames), strict=True):
            sink.write(frame, time)
    return path


def times_of(path: Path) -> list[float]:
    return [frame.timestamp for frame in open_source(path)]


@pytest.mark.parametrize("shape", [(9, 8), (64, 64, 3), (33, 77, 3)])
@pytest.mark.parametrize("name", ["out.mkv", "out.mha", "folder"])
def test_all_but_mp4_are_exact(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    frames = [noise(*shape, seed=seed) for seed in range(4)]
    channels = 1 if len(shape) == 2 else 3
    with open_sink(tmp_path / name, shape[1::-1], channels) as sink:
        for frame in frames:
            # Frames are converted to the channels of the sink.
            sink.write(frame[..., None].repeat(3, axis=2) if channels == 1 else frame)
        assert not (tmp_path / name).exists()
    assert sink.count == 4
    read = open_source(tmp_path / name, channels=channels)
    assert all(np.array_equal(r.image, f) for r, f in zip(read, frames, strict=True))


def test_mp4_keeps_smooth_speckle_within_two_on_average_one(tmp_path: Path) -> None:
    # Speckle as a scanner shows it: noise smoothed to a few pixels, dark at the sides.
    grain = np.random.default_rng(3).normal(size=(5, 128, 128))
    for axis in (1, 2):
        grain = sum(np.roll(grain, shift, axis) for shift in (-2, -1, 0, 1, 2)) / 2.2
    envelope = np.hanning(128)[None, None, :]
    frames = np.clip((70 + 35 * grain) * envelope, 0, 255).astype(np.uint8)
    read = np.stack([f.image for f in open_source(write(tmp_path / "out.mp4", list(frames)))])
    assert apart(read, frames).mean() < 0.6
    assert np.percentile(apart(read, frames), 99) <= 2
    assert abs(read.mean() - frames.mean()) < 0.1  # no range is stretched or squeezed


def test_mp4_extends_odd_sides_by_their_edge_and_keeps_colours(tmp_path: Path) -> None:
    for width, height in ((65, 64), (64, 65), (9, 13)):
        image = np.tile(np.linspace(20, 220, width).astype(np.uint8), (height, 1))
        (frame,) = open_source(write(tmp_path / "out.mp4", [image]))
        extended = np.pad(image, ((0, height % 2), (0, width % 2)), mode="edge")
        assert apart(frame.image, extended).max() <= 3
    colour = noise(4, 4, 3).repeat(16, 0).repeat(16, 1)
    (frame,) = open_source(write(tmp_path / "out.mp4", [colour]), channels=3)
    inside = apart(frame.image, colour).reshape(4, 16, 4, 16, 3)[:, 4:12, :, 4:12]
    assert inside.max() <= 4  # at the edges 4:2:0 mixes neighbouring colours


@pytest.mark.parametrize("name", [name for name, _ in sinks.MP4_ENCODERS])
def test_every_encoder_keeps_levels_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name not in av.codec.codecs_available:
        pytest.skip(f"this PyAV was built without {name}")
    chosen = tuple(encoder for encoder in sinks.MP4_ENCODERS if encoder[0] == name)
    monkeypatch.setattr(sinks, "MP4_ENCODERS", chosen)
    times = [-1.5, -1.4, -1.35, 8.6]
    path = write(tmp_path / "out.mp4", [LEVELS] * 4, times)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.color_range == 2  # full
    assert np.allclose(times_of(path), np.array(times) + 1.5, atol=1e-4)
    assert all(apart(frame.image, LEVELS).max() <= 2 for frame in open_source(path))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_texts_are_kept_and_times_increase_whatever_the_clock_does(
    tmp_path: Path, name: str
) -> None:
    times = [9e4, 9e4, 8e4, None, 9e4 + 1, *(9e4 + 1 + i / 90_000 for i in range(20)), 9e4 + 30.7]
    texts = {"title": "Grüße", "comment": "two, too"}
    path = write(tmp_path / name, [LEVELS[:16, :16]] * 26, times, fps=10, metadata=texts)
    read = times_of(path)
    assert len(read) == 26 and all(np.diff(read) > 0)
    assert np.allclose((read[4], read[-1]), (1.0, 30.7), atol=6e-4)
    with av.open(str(path)) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert texts.items() <= found.items()


def test_without_times_the_frame_rate_counts(tmp_path: Path) -> None:
    for fps in (None, 12.5, Fraction(30000, 1001)):
        path = write(tmp_path / "out.mp4", [LEVELS] * 5, fps=fps)
        assert open_source(path).fps == pytest.approx(float(fps or 30), rel=1e-4)
        assert np.allclose(times_of(path), np.arange(5) / float(fps or 30), atol=1e-4)


@pytest.mark.parametrize("fps", [29.97, 120, 5000])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mha", "folder"])
def test_fast_frames_keep_their_order_and_times(tmp_path: Path, name: str, fps: float) -> None:
    frames = [np.full((32, 32), 4 * level, np.uint8) for level in range(60)]
    path = write(tmp_path / name, frames, fps=fps)
    read = list(open_source(path))
    assert [round(float(frame.image.mean()) / 4) for frame in read] == list(range(60))
    assert np.allclose(np.diff([frame.timestamp for frame in read]), 1 / fps, rtol=0.01)
    assert open_source(path).fps == pytest.approx(fps, rel=1e-4)
    if path.suffix == ".mkv":  # what another program sees, which may make it again
        with av.open(str(path)) as container:
            assert container.duration == pytest.approx(60 / fps * 1e6, rel=0.01)
            times = [float(frame.time) for frame in container.decode(video=0)]
        assert np.allclose(times, np.arange(60) / fps, atol=0.01 / fps)
        # A checksum before the clock would be wrong.
        assert b"\xbf\x84" not in path.read_bytes().partition(b"\x2a\xd7\xb1")[0]


def test_a_folder_keeps_uneven_times(tmp_path: Path) -> None:
    path = write(tmp_path / "folder", [LEVELS] * 3, [5.0, 5.25, 6.0])
    assert (path / "frames.csv").read_text().splitlines()[:2] == [
        "frame,seconds",
        "frame_000000.png,0.000000000",
    ]
    assert times_of(path) == [0, 0.25, 1]


def test_a_png_holds_one_frame(tmp_path: Path) -> None:
    texts = {"title": "Grüße", "comment": "two"}
    path = write(tmp_path / "out.png", [LEVELS], metadata=texts)
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), LEVELS)
    with PillowImage.open(path) as picture:
        assert picture.text == {"Title": "Grüße", "Comment": "two"}
    assert b"iTXtTitle\0" in path.read_bytes()
    with pytest.raises(OutputError, match="one frame") as caught:
        write(tmp_path / "two.png", [LEVELS] * 2)
    assert ".mp4" in caught.value.hint and not (tmp_path / "two.png").exists()


@pytest.mark.parametrize(
    ("name", "size", "fps", "kind", "says"),
    [
        ("out.jpg", (64, 64), None, ConfigError, r"out\.jpg"),
        ("out.mp4", (64, 64), 0, ConfigError, "positive"),
        ("out.mp4", (4, 64), None, InputError, "too small"),
        ("full", (64, 64), None, OutputError, "not empty"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_first_frame(
    tmp_path: Path, name: str, size: tuple[int, int], fps: float | None, kind: type, says: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(kind, match=says), open_sink(tmp_path / name, size, fps=fps):
        raise AssertionError("the block must not be entered")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["full", "mine"]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.dcm", "out.mha", "folder", "out.png"])
def test_whatever_fails_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "out.dcm":
        pytest.importorskip("pydicom")
    fails: list[tuple[list[np.ndarray], float | None, type[BaseException]]] = [
        ([], None, OutputError),  # a sink without frames
        ([], None, KeyboardInterrupt),
        ([LEVELS], None, ValueError),
        ([LEVELS], float("nan"), InputError),
        ([LEVELS[:32]], None, InputError),
        ([LEVELS.astype(np.float32)], None, InputError),
    ]
    for frames, time, failure in fails:
        with pytest.raises(failure), open_sink(tmp_path / name, (128, 128)) as sink:
            for frame in frames:
                sink.write(frame, time)
            if failure in (KeyboardInterrupt, ValueError):
                raise failure
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(sinks, "MP4_ENCODERS", (("no_such_encoder", {}),))
    if name == "out.mp4":
        with pytest.raises(OutputError) as caught:
            write(tmp_path / name, [LEVELS])
        assert ".mkv" in caught.value.hint and list(tmp_path.iterdir()) == []
