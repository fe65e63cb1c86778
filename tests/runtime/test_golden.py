"""A bundle's golden frame, and what is said of one that differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_bundle import copy_bundle, edit_manifest

from sonomime.runtime.backends import open_backend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.bundle.manifest import Tolerances
from sonomime.runtime.golden import Agreement, agreement, golden_frame
from sonomime.runtime.media.frames import read_image
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BundleError


def found_in(folder: Path | None) -> Agreement:
    bundle = Bundle.open(folder)
    session = Session(bundle.manifest, open_backend("ort-cpu", bundle, threads=1))
    try:
        return agreement(golden_frame(session, bundle), bundle)
    finally:
        session.close()


def test_the_shipped_bundle_makes_its_golden_frame_on_the_cpu() -> None:
    bundle, found = Bundle.open(), found_in(None)
    assert found.within(bundle.manifest.tolerances)
    assert found.levels <= 2 and found.psnr_db > 70
    golden, still = (
        read_image(bundle.folder / each.file).astype(int)
        for each in (bundle.manifest.golden.output, bundle.manifest.golden.source)
    )
    assert np.abs(golden - still).mean() > 1, "or holding the still would do"


def test_the_golden_motion_is_the_one_that_is_made(toy_bundle: Path, tmp_path: Path) -> None:
    assert found_in(toy_bundle).psnr_db > 30
    other = copy_bundle(toy_bundle, tmp_path / "other")
    edit_manifest(other, lambda data: data["golden"].update(motion="absolute"))
    assert found_in(other).psnr_db < 25
    with pytest.raises(BundleError):
        agreement(np.zeros((32, 32), np.uint8), Bundle.open(toy_bundle))


def test_a_little_more_is_allowed_than_at_export() -> None:
    levels, decibels = Tolerances(1e-4, frame_levels=1), Tolerances(1.0, psnr_db=45)
    assert Agreement(2, 60).within(levels) and not Agreement(3, 60).within(levels)
    assert Agreement(90, 44.5).within(decibels) and not Agreement(90, 43.5).within(decibels)
