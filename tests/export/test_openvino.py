"""OpenVINO reads what is exported, operators with bodies included."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from lively import SMALL, speckle

from sonomime.runtime.backends.onnx_file import has_functions
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.fastest import open_session
from sonomime.runtime.media.pixels import levels_apart, to_image, to_planes
from sonomime.runtime.support.errors import BackendError

pytest.importorskip("openvino")


def frames_of(bundle: Bundle, backend: str) -> list[np.ndarray]:
    with closing(open_session(bundle, backend, threads=1)) as session:
        size = bundle.manifest.image.size
        source, *driving = (to_planes(speckle(size, seed=seed)) for seed in range(4))
        session.set_source(source)
        session.set_reference(driving[0])
        return [to_image(session.animate(frame)).copy() for frame in driving]


@pytest.mark.parametrize("preset", ["ours-pt", "monkey-net"])
def test_keypoint_models_make_the_same_frames(bundles: Callable[..., Path], preset: str) -> None:
    bundle = Bundle.open(bundles(preset, "fp32", *SMALL))
    files = [bundle.read(stage.file) for stage in bundle.manifest.stages]
    assert sum(map(has_functions, files)) >= 1
    ours, theirs = (frames_of(bundle, backend) for backend in ("cpu", "openvino"))
    assert max(map(levels_apart, ours, theirs)) <= 1
    assert not np.array_equal(ours[0], ours[1])


def test_bodies_that_cannot_be_inlined_are_an_error_of_ours(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: object) -> None:
        raise ValueError("Cycle detected")

    monkeypatch.setattr("onnx.inliner.inline_local_functions", refuse)
    with pytest.raises(BackendError, match="Cycle detected"):  # so that auto takes another engine
        open_session(Bundle.open(small), "openvino", threads=1)


def test_without_onnx_it_is_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx.inliner", None)
    with pytest.raises(BackendError) as caught:
        open_session(Bundle.open(small), "openvino", threads=1)
    assert "onnx" in (caught.value.hint or "")
