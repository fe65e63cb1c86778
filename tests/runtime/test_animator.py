"""The Animator and its options, on a toy whose bright blob follows the driving blob."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arithmetic_chain import CHAIN, KEPT, SEEN, STATE, Arithmetic, tensor, with_stage
from toy_bundle import blob, centre, copy_bundle, edit_manifest, make_toy_bundle

from sonomime.runtime import Animator, Smoothing
from sonomime.runtime.bundle.manifest import Chain, ControlInput
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BackendError, ConfigError, InputError

CENTRE = blob(64, 0, 0)


def near(*place: float) -> Any:
    return pytest.approx(place, abs=0.02)


@pytest.fixture
def animator(toy_bundle: Path) -> Iterator[Animator]:
    with Animator.open(toy_bundle) as opened:
        opened.set_source(CENTRE)
        yield opened


def test_relative_motion_moves_the_source_as_the_driving_moved(animator: Animator) -> None:
    animator.set_source(blob(64, 0.1, -0.1))
    first = animator.animate(blob(64, -0.3, 0.2))
    kept = first.copy()
    assert centre(first) == near(0.1, -0.1), "the first is the reference"
    moved = animator.animate(blob(64, -0.1, 0.3))
    assert centre(moved) == near(0.3, 0.0)
    assert moved.shape == (64, 64) and moved.dtype == np.uint8
    assert np.array_equal(first, kept), "a frame belongs to the caller"
    moved[...] = 0
    assert animator.read("frame").any()
    assert list(animator.timings) == ["keypoints", "transfer", "motion", "generator"]
    assert all(seconds > 0 for seconds in animator.timings.values())
    assert animator.detect(blob(64, 0.25, 0)).mean(0) == near(0.25, 0)


def test_a_reference_that_was_set_stays_until_reset(animator: Animator) -> None:
    animator.set_reference(CENTRE)
    for _ in range(2):  # a new source keeps it
        animator.set_source(blob(64, 0.1, 0.1))
        assert centre(animator.animate(blob(64, 0.2, 0))) == near(0.3, 0.1)
    animator.reset()
    assert centre(animator.animate(blob(64, 0.2, 0))) == near(0.1, 0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_grey_and_colour(tmp_path: Path, channels: int) -> None:
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    with Animator.open(folder, motion="absolute") as animator:
        for height, width, colours in ((64, 64, 1), (40, 90, 3), (300, 200, 1), (8, 11, 3)):
            image = blob(width, 0, 0, colours, height=height, width=0.4)
            animator.set_source(image)
            made = animator.animate(image)
            assert made.shape == ((64, 64) if channels == 1 else (64, 64, 3))
            restored = animator.letterbox.restore(made)
            assert restored.shape[:2] == (height, width)
            assert centre(restored) == pytest.approx((0, 0), abs=0.05)
        image = blob(64, 0, 0, channels)
        animator.set_source(image)
        assert np.abs(animator.animate(image).astype(int) - image).max() <= 1, "channels in order"


def test_calls_without_a_source_and_after_closing(toy_bundle: Path) -> None:
    animator = Animator.open(toy_bundle)
    for early in (lambda: animator.animate(CENTRE), lambda: animator.letterbox):
        with pytest.raises(InputError):
            early()
    animator.set_source(CENTRE)
    with pytest.raises(InputError):
        animator.set_source(CENTRE.astype(np.float32))
    with pytest.raises(InputError):
        animator.animate(CENTRE)  # no half source is left
    animator.close()
    animator.close()
    calls: list[Callable[[], object]] = [
        lambda: animator.set_source(CENTRE), lambda: animator.set_reference(CENTRE),
        lambda: animator.animate(CENTRE), lambda: animator.detect(CENTRE), animator.reset,
        lambda: animator.read("frame"), animator.unalign, lambda: animator.find_landmarks(CENTRE),
        lambda: animator.quality,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(BackendError):
            call()


def test_time_increases(animator: Animator) -> None:
    animator.animate(CENTRE, 1.0)
    for timestamp in (1.0, 0.5, float("nan"), float("inf")):
        with pytest.raises(InputError):
            animator.animate(CENTRE, timestamp)
    for timestamp, step in ((1.5, 0.5), (None, 1 / 30)):
        animator.animate(CENTRE, timestamp)
        assert animator.read("dt_seconds")[0] == pytest.approx(step)


def test_threads_are_served_one_after_the_other(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, motion="absolute") as animator:
        animator.set_source(CENTRE)

        def work(x: float) -> float:
            return float(centre(animator.animate(blob(64, x, 0)))[0])

        xs = [-0.4, 0.4] * 20
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(work, xs)) == pytest.approx(xs, abs=0.03)


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "step"), [(1.0, 1.0), (0.1, 0.1), (None, 1 / 30)])
def test_smoothing_follows_slowly_and_by_real_time(
    toy_bundle: Path, seconds: float | None, step: float
) -> None:
    with Animator.open(toy_bundle, motion="absolute", smooth=(1.0, 0.0)) as animator:
        animator.set_source(CENTRE)
        animator.animate(CENTRE, None if seconds is None else 5.0)
        frame = animator.animate(blob(64, 0.4, 0), None if seconds is None else 5.0 + seconds)
    rate = 2 * np.pi * step
    assert centre(frame) == near(0.4 * rate / (rate + 1), 0)


def test_smoothing_starts_afresh_with_a_new_source_reference_or_clip(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, motion="absolute", smooth=True) as animator:
        begins: list[Callable[[], None]] = [
            lambda: animator.set_source(CENTRE),
            lambda: animator.set_reference(CENTRE),
            animator.reset,
        ]
        for begin in begins:
            begin()
            assert not animator.read("state").any()
            assert centre(animator.animate(blob(64, 0.4, 0))) == near(0.4, 0)
            assert centre(animator.animate(blob(64, -0.4, 0)))[0] > -0.3
            assert np.array_equal(animator.read("state"), animator.read("next_state"))


INPUTS = (KEPT, SEEN, STATE)
SHADE = ControlInput("shade", 0.25, (0.0, 1.0), "", "share of the shading")
SHADED = with_stage(CHAIN, "transfer", inputs=(*INPUTS, tensor("scale"), tensor("shade")))
SHADED = replace(SHADED, controls=(*CHAIN.controls, SHADE))
NO_CONTROLS = replace(with_stage(CHAIN, "transfer", inputs=INPUTS), controls=())


@pytest.mark.parametrize(
    ("chain", "options"),
    [
        (CHAIN, {"motion": "absolute"}), (CHAIN, {"smooth": True}), (CHAIN, {"smooth": (1.0, 2.0)}),
        (CHAIN, {"scale": "hull"}), (CHAIN, {"scale": "big"}), (NO_CONTROLS, {"scale": 2.0}),
        (CHAIN, {"shading": "off"}), (CHAIN, {"shading": "low"}), (SHADED, {"shading": "half"}),
        (None, {"motion": "sideways"}), (None, {"scale": 0.0}), (None, {"scale": float("nan")}),
        (None, {"smooth": (0, 1)}), (None, {"smooth": (1, -1)}), (None, {"smooth": (1,)}),
        (None, {"smooth": "yes"}), (None, {"threads": 0}), (None, {"backend": "tensor-rt"}),
    ],
)  # fmt: skip
def test_what_is_out_of_range_or_a_model_cannot_honour_is_refused(
    toy_bundle: Path, chain: Chain | None, options: dict[str, Any]
) -> None:
    """A chain of displacements has no absolute motion, no smoothing and no keypoints."""
    with pytest.raises(ConfigError):
        if chain is None:
            Animator.open(toy_bundle, **options)
        else:
            Animator(Session(chain, Arithmetic(chain)), **options)


def test_options_set_controls_whatever_the_models_defaults_are(
    toy_bundle: Path, tmp_path: Path
) -> None:
    folder = copy_bundle(toy_bundle, tmp_path / "toy")

    def change(data: dict[str, Any]) -> None:
        data["controls"][1]["default"], data["controls"][2]["default"] = 0.5, 1.5

    edit_manifest(folder, change)
    cases: list[tuple[dict[str, Any], list[float]]] = [
        ({}, [1, 1, 0, 0]), ({"smooth": False, "scale": 2}, [1, 2, 0, 0]),
        ({"smooth": True}, [1, 1, *Smoothing()]), ({"smooth": (2.0, 3.0)}, [1, 1, 2, 3]),
        ({"smooth": Smoothing(beta=1), "motion": "absolute"}, [0, 1, 1.5, 1]),
    ]  # fmt: skip
    for options, values in cases:
        with Animator.open(folder, **options) as animator:
            names = ("relative", "scale", "min_cutoff", "beta")
            assert [animator.read(name)[0] for name in names] == pytest.approx(values)
    shares: Any = {"full": 1, "low": 0.5, "off": 0}
    for shading, share in shares.items():
        with Animator(Session(SHADED, Arithmetic(SHADED)), shading=shading) as animator:
            assert animator.read("shade")[0] == share


def test_measured_values_stay_in_the_models_range(toy_bundle: Path, tmp_path: Path) -> None:
    """The time after a pause, and the scale by hull: the toy's hulls are equal, so it is 1."""
    folder = copy_bundle(toy_bundle, tmp_path / "toy")

    def change(data: dict[str, Any]) -> None:
        data["controls"][1].update(range=[1.1, 1.25], default=1.2)
        data["controls"][4].update(range=[0, 1])

    edit_manifest(folder, change)
    with pytest.raises(ConfigError):
        Animator.open(folder, scale=2.0)
    for bundle, scale, longest in ((folder, 1.1, 1), (toy_bundle, 1, 1e9)):
        with Animator.open(bundle, scale="hull") as animator:
            animator.set_source(CENTRE)
            for _ in range(2):  # with every reference again
                animator.animate(CENTRE, 0.0)
                assert animator.read("scale")[0] == pytest.approx(scale)
                animator.animate(CENTRE, 1.7e9)
                assert animator.read("dt_seconds")[0] == longest
                animator.reset()
                animator.session.backend.write("scale", 9)


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_another_shares_the_stages_and_nothing_else(toy_bundle: Path, backend: str) -> None:
    pytest.importorskip("openvino" if backend == "openvino" else "onnxruntime")
    with Animator.open(toy_bundle, backend, threads=1, scale=0.5) as one:
        other = one.another()
        one.set_source(blob(64, -0.3, 0))
        other.set_source(blob(64, 0.3, 0))

        def places(animator: Animator) -> list[Any]:
            return [centre(animator.animate(blob(64, 0.01 * i, 0))) for i in range(20)]

        with ThreadPoolExecutor(2) as pool:
            left, right = pool.map(places, (one, other))
        assert left[0] == near(-0.3, 0) and right[0] == near(0.3, 0)
        assert left[-1] == near(-0.205, 0) and right[-1] == near(0.395, 0)  # at half the scale
        other.adjust(scale=1.0)
        assert centre(one.animate(blob(64, 0.2, 0))) == near(-0.2, 0)
        one.close()
        assert centre(other.animate(blob(64, 0.2, 0))) == near(0.5, 0)
        with pytest.raises(BackendError):
            one.another()
        other.close()
