"""Sinks keep grey levels, times and texts, and leave nothing half-written behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonomime.runtime.media import sinks
from sonomime.runtime.media.sinks import open_sink
from sonomime.runtime.media.video import open_source
from sonomime.runtime.support.errors import ConfigError, InputError, OutputError

RunPython = Callable[..., tuple[int, str, str]]

LEVELS = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 8, 0), 8, 1)
FILES = ["out.mp4", "out.mkv", "folder"]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, frames: list[np.ndarray], **options: object) -> Path:
    height, width = frames[0].shape[:2]
    channels = 1 if frames[0].ndim == 2 else 3
    with open_sink(path, (width, height), channels, **options) as sink:  # type: ignore[arg-type]
        for frame in frames:
            sink.write(frame)
    return path


@pytest.mark.parametrize("shape", [(64, 64), (193, 255), (9, 8), (64, 64, 3), (33, 77, 3)])
def test_matroska_and_folders_are_exact(tmp_path: Path, shape: tuple[int, ...]) -> None:
    frames = [noise(*shape, seed=seed) for seed in range(4)]
    channels = 1 if len(shape) == 2 else 3
    for name in ("out.mkv", "folder"):
        read = list(open_source(write(tmp_path / name, frames), channels=channels))
        assert len(read) == 4
        assert all(np.array_equal(r.image, f) for r, f in zip(read, frames, strict=True))


def test_mp4_keeps_every_grey_level_within_two(tmp_path: Path) -> None:
    frames = [np.roll(LEVELS, 8 * shift, axis=1) for shift in range(4)]
    read = list(open_source(write(tmp_path / "out.mp4", frames)))
    for frame, original in zip(read, frames, strict=True):
        assert np.abs(frame.image.astype(int) - original).max() <= 2


def test_mp4_keeps_smooth_speckle_within_two_on_average_one(tmp_path: Path) -> None:
    # Speckle as a scanner shows it: noise smoothed to a few pixels, dark at the sides.
    grain = np.random.default_rng(3).normal(size=(5, 128, 128))
    for axis in (1, 2):
        grain = sum(np.roll(grain, shift, axis) for shift in (-2, -1, 0, 1, 2)) / 2.2
    envelope = np.hanning(128)[None, None, :]
    frames = list(np.clip((70 + 35 * grain) * envelope, 0, 255).astype(np.uint8))
    read = list(open_source(write(tmp_path / "out.mp4", frames)))
    errors = [
        np.abs(frame.image.astype(int) - original)
        for frame, original in zip(read, frames, strict=True)
    ]
    assert np.mean(errors) < 0.6
    assert np.percentile(errors, 99) <= 2
    # The means do not move: no range is stretched or squeezed.
    assert (
        abs(np.mean([f.image.mean() - o.mean() for f, o in zip(read, frames, strict=True)])) < 0.1
    )


def test_mp4_says_that_its_range_is_full(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", [LEVELS])
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        # The j stands for full range: how FFmpeg's decoder repeats it.
        assert context.name == "h264" and context.pix_fmt in ("yuv420p", "yuvj420p")
        assert context.color_range == 2
        assert next(container.decode(video=0)).color_range == 2


@pytest.mark.parametrize("size", [(65, 64), (64, 65), (9, 13)])
def test_mp4_extends_odd_sides_by_their_edge(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    image = np.tile(np.linspace(20, 220, width).astype(np.uint8), (height, 1))
    (frame,) = open_source(write(tmp_path / "out.mp4", [image]))
    assert frame.image.shape == (height + height % 2, width + width % 2)
    assert np.abs(frame.image[:height, :width].astype(int) - image).max() <= 3
    assert np.abs(frame.image[:, -1].astype(int) - image[0, -1]).max() <= 3


def test_mp4_keeps_colours(tmp_path: Path) -> None:
    colour = np.kron(noise(4, 4, 3), np.ones((16, 16, 1), np.uint8))
    (frame,) = open_source(write(tmp_path / "out.mp4", [colour]), channels=3)
    inside = np.abs(frame.image.astype(int) - colour).reshape(4, 16, 4, 16, 3)[:, 4:12, :, 4:12]
    assert inside.max() <= 4  # at the edges 4:2:0 mixes neighbouring colours


@pytest.mark.parametrize("name", [name for name, _ in sinks.MP4_ENCODERS])
def test_every_encoder_that_may_serve_keeps_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name not in av.codec.codecs_available:
        pytest.skip(f"this PyAV was built without {name}")
    chosen = tuple(encoder for encoder in sinks.MP4_ENCODERS if encoder[0] == name)
    monkeypatch.setattr(sinks, "MP4_ENCODERS", chosen)
    times = [0.0, 0.1, 0.15, 0.4]
    with open_sink(tmp_path / "out.mp4", (128, 128)) as sink:
        for time in times:
            sink.write(LEVELS, time)
    read = list(open_source(tmp_path / "out.mp4"))
    assert np.allclose([frame.timestamp for frame in read], times, atol=1e-4)
    for frame in read:
        assert np.abs(frame.image.astype(int) - LEVELS).max() <= 2


def test_without_an_encoder_the_error_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "MP4_ENCODERS", (("no_such_encoder", {}),))
    with pytest.raises(OutputError) as caught:
        open_sink(tmp_path / "out.mp4", (64, 64))
    assert ".mkv" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=10)
@given(gaps=st.lists(st.floats(0.002, 3.0), min_size=1, max_size=8), start=st.floats(-5, 1e5))
def test_times_are_kept(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[float], start: float
) -> None:
    times = np.cumsum([start, *gaps])
    folder = tmp_path_factory.mktemp("times")
    for name, tolerance in (("out.mp4", 1e-4), ("out.mkv", 6e-4)):
        with open_sink(folder / name, (16, 16)) as sink:
            for time in times:
                sink.write(LEVELS[:16, :16], time)
        read = [frame.timestamp for frame in open_source(folder / name)]
        assert np.allclose(read, times - start, atol=tolerance)


def test_a_clock_that_stops_or_turns_back_still_gives_increasing_times(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.mp4", (16, 16), fps=10) as sink:
        for time in (1.0, 1.0, 0.5, None, 2.0):
            sink.write(LEVELS[:16, :16], time)
    read = [frame.timestamp for frame in open_source(tmp_path / "out.mp4")]
    assert len(read) == 5
    assert all(np.diff(read) > 0)
    assert read[-1] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_frames_closer_than_a_tick_are_all_written(tmp_path: Path, name: str) -> None:
    with open_sink(tmp_path / name, (16, 16)) as sink:
        for i in range(20):  # MPEG's clock of 90 kHz is finer than the file's
            sink.write(LEVELS[:16, :16], i / 90_000)
    read = [frame.timestamp for frame in open_source(tmp_path / name)]
    assert len(read) == 20 and all(np.diff(read) > 0)


@pytest.mark.parametrize("fps", [None, 12.5, Fraction(30000, 1001), 60])
def test_without_times_the_frame_rate_counts(tmp_path: Path, fps: Fraction | float | None) -> None:
    path = write(tmp_path / "out.mp4", [LEVELS] * 5, fps=fps)
    source = open_source(path)
    assert source.fps == pytest.approx(float(fps or 30), rel=1e-4)
    step = 1 / float(fps or 30)
    assert np.allclose([f.timestamp for f in source], np.arange(5) * step, atol=1e-4)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_texts_are_kept(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, [LEVELS], metadata={"title": "Grüße", "comment": "two, too"})
    with av.open(str(tmp_path / name)) as container:
        texts = {key.lower(): value for key, value in container.metadata.items()}
    assert (texts["title"], texts["comment"]) == ("Grüße", "two, too")


def test_a_png_holds_one_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "out.png", [LEVELS], metadata={"comment": "synthetic"})
    (frame,) = open_source(path)
    assert np.array_equal(frame.image, LEVELS)
    assert b"synthetic" in path.read_bytes()
    with pytest.raises(OutputError, match="one frame") as caught:
        write(tmp_path / "two.png", [LEVELS] * 2)
    assert ".mp4" in caught.value.hint
    assert not (tmp_path / "two.png").exists()


def test_frames_are_converted_to_the_sinks_channels(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.mkv", (64, 64), channels=1) as sink:
        sink.write(np.repeat(noise(64, 64)[..., None], 3, axis=2))
    (frame,) = open_source(tmp_path / "out.mkv")
    assert np.array_equal(frame.image, noise(64, 64))


def test_a_name_without_a_writer_is_a_usage_error(tmp_path: Path) -> None:
    for name in ("out.wmv", "out.dcm", "out.jpg"):
        with pytest.raises(ConfigError, match=name) as caught:
            open_sink(tmp_path / name, (64, 64))
        assert ".mp4" in caught.value.hint
    with pytest.raises(ConfigError, match="positive"):
        open_sink(tmp_path / "out.mp4", (64, 64), fps=0)
    with pytest.raises(InputError, match="too small"):
        open_sink(tmp_path / "out.mp4", (4, 64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("image", "time"),
    [(LEVELS[:32], None), (LEVELS.astype(np.float32), None), (LEVELS, float("nan"))],
)
def test_a_frame_that_does_not_fit_is_refused(
    tmp_path: Path, image: np.ndarray, time: float | None
) -> None:
    with (
        pytest.raises(InputError),
        open_sink(tmp_path / "out.mp4", (128, 128)) as sink,
    ):
        sink.write(image, time)
    assert list(tmp_path.iterdir()) == []


def test_nothing_appears_before_the_end(tmp_path: Path) -> None:
    for name in FILES:
        with open_sink(tmp_path / name, (128, 128)) as sink:
            sink.write(LEVELS)
            assert not (tmp_path / name).exists()
        assert (tmp_path / name).exists()
        assert sink.count == 1
        sink.close()  # a second time does nothing
        sink.abort()
        assert (tmp_path / name).exists()
        with pytest.raises(OutputError, match="closed"):
            sink.write(LEVELS)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("count", [0, 3])
def test_an_error_or_ctrl_c_leaves_nothing(
    tmp_path: Path, name: str, failure: type[BaseException], count: int
) -> None:
    with pytest.raises(failure), open_sink(tmp_path / name, (128, 128)) as sink:
        for _ in range(count):
            sink.write(LEVELS)
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_survives_a_failed_new_one(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    with pytest.raises(ValueError), open_sink(tmp_path / "out.mp4", (128, 128)) as sink:
        sink.write(LEVELS)
        raise ValueError
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", [*FILES, "out.png"])
def test_no_frames_make_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="no frames"), open_sink(tmp_path / name, (64, 64)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    with pytest.raises(OutputError, match="not empty"):
        open_sink(tmp_path / "folder", (64, 64))
    assert [entry.name for entry in (tmp_path / "folder").iterdir()] == ["mine"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from sonomime.runtime.support.errors import OutputError
from sonomime.runtime.media.sinks import open_sink

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
random = np.random.default_rng(0)
written = 0
try:
    with open_sink(path, (128, 128)) as sink:
        for written in range(1 if path.suffix == ".png" else 400):
            size = 128 if path.suffix else 200
            sink.write(random.integers(0, 256, (128, 128), dtype=np.uint8))
except OutputError as error:
    assert str(path) in error.message, error.message
    assert "limit" in error.hint, error.hint
    assert list(path.parent.iterdir()) == [], "something was left behind"
    print("refused after", written)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_disk_that_fills_up_is_an_output_error_and_leaves_nothing(
    tmp_path: Path, run_python: RunPython, name: str
) -> None:
    status, output, errors = run_python(FULL_DISK, str(tmp_path / name))
    assert status == 7, errors
    assert output.startswith("refused after")
    assert errors == ""


@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_is_full_at_the_very_end_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sink = open_sink(tmp_path / name, (128, 128))
    sink.write(LEVELS)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=name) as caught:
        sink.close()
    assert "space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


CTRL_C = """
import os, signal, sys
import numpy as np
from sonomime.runtime.media.sinks import open_sink

with open_sink(sys.argv[1], (64, 64)) as sink:
    for index in range(1000):
        sink.write(np.full((64, 64), index % 256, np.uint8))
        if index == 20:
            os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_leaves_nothing(tmp_path: Path, run_python: RunPython) -> None:
    status, _, errors = run_python(CTRL_C, str(tmp_path / "out.mp4"))
    assert status != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert list(tmp_path.iterdir()) == []
