"""Fixtures that all tests share: small media made on the fly, the larger data set if there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported: small models run faster on one thread, and a busy machine stalls two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts us in the background ignores these on our behalf, and what we start would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

Image = npt.NDArray[np.uint8]

# The same examples on every machine and run; how long one takes is nobody's business.
settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("house")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def denormals_are_kept() -> Iterator[None]:
    """Training treats the smallest numbers as zero. A signal, which some tests send, can come
    before it takes that back; Hypothesis would refuse to draw numbers in the tests after it."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def auto_is_onnx_runtime() -> Iterator[None]:
    """Whichever other engines are installed: measuring which one is faster takes time."""
    from sonomime.runtime import fastest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastest, "installed", lambda module: module == "onnxruntime")
        yield


@pytest.fixture
def blobs_are_whole_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs on black look like a small ultrasound picture on a screen, which should be cropped."""
    from sonomime.runtime.readers.source import FrameSource

    monkeypatch.setattr(FrameSource, "warn_of_clutter", lambda source: None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The larger data set, which is not part of the product."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data set is not beside this checkout (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def blob_frames() -> Callable[..., list[Image]]:
    """Make frames with a bright blob that moves over speckle: (count, width, height) -> list."""

    def make(count: int = 8, width: int = 64, height: int = 64) -> list[Image]:
        speckle = np.random.default_rng(7).integers(0, 60, (height, width))
        ys, xs = np.mgrid[:height, :width]
        frames = []
        for index in range(count):
            x = width * (0.3 + 0.4 * index / max(count - 1, 1))
            distance = ((xs - x) ** 2 + (ys - height / 2) ** 2) / (2 * (width / 10) ** 2)
            frames.append(np.clip(speckle + 180 * np.exp(-distance), 0, 255).astype(np.uint8))
        return frames

    return make


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Write a video through PyAV alone, so that readers are not tested against our own writer."""

    def make(
        path: Path, frames: Sequence[Image], codec: str = "libx264", pix_fmt: str = "yuv420p",
        times: Sequence[float] | None = None, color_range: int = 2,
        format_options: dict[str, str] | None = None, options: dict[str, str] | None = None,
    ) -> Path:  # fmt: skip
        import av

        height, width = frames[0].shape[:2]
        with av.open(str(path), "w", options=format_options or {}) as container:
            stream: Any = container.add_stream(codec, rate=25, options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.color_range = color_range
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 60_000)
            for index, image in enumerate(frames):
                if pix_fmt == "yuv420p" and image.ndim == 2:  # luma as it is, no conversion
                    planes = np.full((height * 3 // 2, width), 128, np.uint8)
                    planes[:height] = image
                    frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
                else:
                    given = "gray" if image.ndim == 2 else "rgb24"
                    frame = av.VideoFrame.from_ndarray(image, given).reformat(format=pix_fmt)
                frame.color_range = color_range
                if times is not None:
                    frame.pts, frame.time_base = round(times[index] * 60_000), Fraction(1, 60_000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def run_python() -> Callable[..., tuple[int, str, str]]:
    """Run code in a fresh interpreter, away from the checkout: (exit status, output, errors)."""

    def run(code: str, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            cwd=sys.prefix, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle of real stages, 64 x 64 grey; copy it before changing it."""
    from toy_bundle import make_toy_bundle

    return make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="session")
def displacement_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but moved by a grid of displacements, and with a detector of landmarks."""
    from toy_displacement import make_displacement_toy

    return make_displacement_toy(tmp_path_factory.mktemp("bundles") / "displacement")
