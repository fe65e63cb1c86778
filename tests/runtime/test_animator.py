"""The Animator on a toy whose bright blob follows the driving blob."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator, Smoothing
from sonomime.runtime.support.errors import BackendError, ConfigError, InputError

Image = NDArray[np.uint8]


def centre(image: Image) -> tuple[float, float]:
    """Where the brightness of a picture lies, (x, y) in [-1, 1]."""
    grey = image if image.ndim == 2 else image.sum(-1)
    height, width = grey.shape
    xs = (2 * np.arange(width) + 1) / width - 1
    ys = (2 * np.arange(height) + 1) / height - 1
    total = grey.sum()
    return float((grey * xs).sum() / total), float((grey * ys[:, None]).sum() / total)


def test_relative_motion_moves_the_source_as_the_driving_moved(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle) as animator:
        animator.set_source(blob(64, 0.1, -0.1))
        first = animator.animate(blob(64, -0.3, 0.2))
        assert centre(first) == pytest.approx((0.1, -0.1), abs=0.02), "the first is the reference"
        moved = animator.animate(blob(64, -0.1, 0.3))
        assert centre(moved) == pytest.approx((0.3, 0.0), abs=0.02)
        assert moved.shape == (64, 64) and moved.dtype == np.uint8


def test_absolute_motion_takes_the_driving_s_place(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, motion="absolute") as animator:
        animator.set_source(blob(64, 0.1, -0.1))
        moved = animator.animate(blob(64, -0.3, 0.2))
        assert centre(moved) == pytest.approx((-0.3, 0.2), abs=0.02)


def test_a_reference_that_was_set_stays_until_reset(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle) as animator:
        animator.set_reference(blob(64, 0, 0))
        for _ in range(2):  # a new source keeps it
            animator.set_source(blob(64, 0.1, 0.1))
            assert centre(animator.animate(blob(64, 0.2, 0))) == pytest.approx((0.3, 0.1), abs=0.02)
        animator.reset()
        assert centre(animator.animate(blob(64, 0.2, 0))) == pytest.approx((0.1, 0.1), abs=0.02)


def test_scale_multiplies_relative_motion(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, scale=0.5) as animator:
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0))
        assert centre(animator.animate(blob(64, 0.4, 0))) == pytest.approx((0.2, 0), abs=0.02)
    with Animator.open(toy_bundle, scale="hull") as animator:
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0))
        assert animator.read("scale")[0] == pytest.approx(1, abs=1e-5), "the toy's hulls are equal"
        animator.reset()
        animator.session.backend.write("scale", 9)
        animator.animate(blob(64, 0, 0))
        assert animator.read("scale")[0] == pytest.approx(1, abs=1e-5), "with every reference anew"


def test_smoothing_follows_slowly_and_by_real_time(toy_bundle: Path) -> None:
    def second_frame(seconds: float | None) -> float:
        with Animator.open(toy_bundle, motion="absolute", smooth=(1.0, 0.0)) as animator:
            animator.set_source(blob(64, 0, 0))
            animator.animate(blob(64, 0, 0), None if seconds is None else 5.0)
            frame = animator.animate(blob(64, 0.4, 0), None if seconds is None else 5.0 + seconds)
            return centre(frame)[0]

    def expected(seconds: float) -> float:
        rate = 2 * np.pi * seconds
        return float(0.4 * rate / (rate + 1))

    assert second_frame(1.0) == pytest.approx(expected(1.0), abs=0.02)
    assert second_frame(0.1) == pytest.approx(expected(0.1), abs=0.02)
    assert second_frame(None) == pytest.approx(expected(1 / 30), abs=0.02)


def test_smoothing_starts_afresh_with_a_new_source_reference_or_clip(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, motion="absolute", smooth=True) as animator:
        begins: list[Callable[[], None]] = [
            lambda: animator.set_source(blob(64, 0, 0)),
            lambda: animator.set_reference(blob(64, 0, 0)),
            animator.reset,
        ]
        for begin in begins:
            begin()
            for x in (0.4, -0.4):
                frame = animator.animate(blob(64, x, 0))
                if x == 0.4:
                    assert centre(frame)[0] == pytest.approx(0.4, abs=0.02)
                else:
                    assert centre(frame)[0] > -0.3


def test_the_state_advances_with_every_frame(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle) as animator:
        animator.set_source(blob(64, 0, 0))
        assert not animator.read("state").any()
        animator.animate(blob(64, 0, 0))
        first = animator.read("state")
        assert first[0, 0] == 1
        animator.animate(blob(64, 0.3, 0))
        assert not np.array_equal(animator.read("state"), first)
        assert np.array_equal(animator.read("state"), animator.read("next_state"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(64, 64), (40, 90), (91, 37), (300, 200), (8, 11)])
@pytest.mark.parametrize("colour", [False, True])
def test_images_of_any_size_grey_and_colour(
    tmp_path_factory: pytest.TempPathFactory, channels: int, shape: tuple[int, int], colour: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"toy-c{channels}"
    if not folder.exists():
        make_toy_bundle(folder, channels=channels)
    height, width = shape
    image = blob(width, 0, 0, 3 if colour else 1, height=height, width=0.4)
    with Animator.open(folder, motion="absolute") as animator:
        animator.set_source(image)
        made = animator.animate(image)
        assert made.shape == ((64, 64) if channels == 1 else (64, 64, 3))
        restored = animator.letterbox.restore(made)
        assert restored.shape[:2] == shape
        x, y = centre(restored)
        assert abs(x) < 0.05 and abs(y) < 0.05


def test_colour_planes_keep_their_order(tmp_path: Path) -> None:
    make_toy_bundle(tmp_path / "rgb", channels=3)
    image = blob(64, 0, 0, 3)
    with Animator.open(tmp_path / "rgb") as animator:
        animator.set_source(image)
        made = animator.animate(image)
        assert np.abs(made.astype(int) - image).max() <= 1
        assert np.array_equal(animator.read("source_image")[0], image.transpose(2, 0, 1))


def test_a_frame_belongs_to_the_caller(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle) as animator:
        animator.set_source(blob(64, 0, 0))
        first = animator.animate(blob(64, 0, 0))
        kept = first.copy()
        animator.animate(blob(64, 0.5, 0))
        assert np.array_equal(first, kept)
        first[...] = 0
        assert animator.read("frame").any()


def test_read_and_timings(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle) as animator:
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0))
        assert animator.read("deformation").shape == (1, 64, 64, 2)
        assert list(animator.timings) == ["keypoints", "transfer", "motion", "generator"]
        assert all(seconds > 0 for seconds in animator.timings.values())
        with pytest.raises(ConfigError, match="no tensor 'flow'"):
            animator.read("flow")
        assert animator.detect(blob(64, 0.25, 0)).mean(0) == pytest.approx((0.25, 0), abs=0.01)


def test_calls_out_of_order_say_what_is_missing(toy_bundle: Path) -> None:
    animator = Animator.open(toy_bundle)
    with pytest.raises(InputError) as caught:
        animator.animate(blob(64, 0, 0))
    assert "no source" in caught.value.message and "set_source" in caught.value.hint
    with pytest.raises(InputError, match="no source"):
        _ = animator.letterbox
    animator.set_source(blob(64, 0, 0))
    animator.close()
    animator.close()
    for call in (
        lambda: animator.animate(blob(64, 0, 0)),
        lambda: animator.set_source(blob(64, 0, 0)),
        lambda: animator.set_reference(blob(64, 0, 0)),
        lambda: animator.read("frame"),
        animator.reset,
    ):
        with pytest.raises(BackendError, match="closed"):
            call()


def test_a_source_that_fails_leaves_no_half_source(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle) as animator:
        animator.set_source(blob(64, 0, 0))
        with pytest.raises(InputError):
            animator.set_source(blob(64, 0, 0).astype(np.float32))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="no source"):
            animator.animate(blob(64, 0, 0))


@pytest.mark.parametrize("timestamp", [1.0, 0.5, float("nan"), float("inf")])
def test_time_increases(toy_bundle: Path, timestamp: float) -> None:
    with Animator.open(toy_bundle) as animator:
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0), 1.0)
        with pytest.raises(InputError):
            animator.animate(blob(64, 0, 0), timestamp)
        animator.animate(blob(64, 0, 0), 1.5)
        assert animator.read("dt_seconds")[0] == pytest.approx(0.5)
        animator.animate(blob(64, 0, 0))
        assert animator.read("dt_seconds")[0] == pytest.approx(1 / 30)


@pytest.mark.parametrize(
    "arguments",
    [
        {"motion": "sideways"},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"scale": "big"},
        {"smooth": (0.0, 1.0)},
        {"smooth": (1.0, -1.0)},
        {"smooth": (1.0,)},
        {"smooth": "yes"},
        {"threads": 0},
        {"backend": "tensor-rt"},
    ],
)
def test_arguments_out_of_range(toy_bundle: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Animator.open(toy_bundle, **arguments)  # type: ignore[arg-type]


def test_smoothing_by_name_pair_and_default(toy_bundle: Path) -> None:
    for smooth, expected in (
        (True, Smoothing()),
        ((2.0, 3.0), Smoothing(2, 3)),
        (Smoothing(beta=1), Smoothing(beta=1)),
    ):
        with Animator.open(toy_bundle, smooth=smooth) as animator:
            assert animator.read("min_cutoff")[0] == np.float32(expected.min_cutoff)
            assert animator.read("beta")[0] == np.float32(expected.beta)
    with Animator.open(toy_bundle, smooth=False) as animator:
        assert animator.read("min_cutoff")[0] == 0


def test_threads_are_served_one_after_the_other(toy_bundle: Path) -> None:
    results: list[bool] = []
    with Animator.open(toy_bundle, motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))

        def work(x: float) -> None:
            for _ in range(20):
                made = animator.animate(blob(64, x, 0))
                results.append(abs(centre(made)[0] - x) < 0.03)

        threads = [threading.Thread(target=work, args=(x,)) for x in (-0.4, 0.4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 40 and all(results)


def test_the_runtime_needs_neither_torch_nor_onnx(
    toy_bundle: Path, run_python: Callable[..., tuple[int, str, str]]
) -> None:
    code = """
import sys
import sonomime
import sonomime.runtime
early = {"torch", "onnx", "cv2", "av", "onnxruntime"} & sys.modules.keys()
import numpy as np
with sonomime.runtime.Animator.open(sys.argv[1]) as animator:
    image = np.random.default_rng(0).integers(0, 255, (90, 120), np.uint8)
    animator.set_source(image)
    animator.animate(image)
late = {"torch", "onnx", "onnxscript"} & sys.modules.keys()
rooms = {name for name in sys.modules if name.startswith(("sonomime.training", "sonomime.export"))}
print(sorted(early), sorted(late), sorted(rooms))
"""
    status, output, errors = run_python(code, str(toy_bundle))
    assert (status, output.strip()) == (0, "[] [] []"), errors
