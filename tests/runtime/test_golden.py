"""The shipped bundle's golden frame, and what is said of one that differs."""

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


def found_in(bundle: Bundle) -> Agreement:
    session = Session(bundle.manifest, open_backend("ort-cpu", bundle, threads=1))
    try:
        return agreement(golden_frame(session, bundle), bundle)
    finally:
        session.close()


def test_the_shipped_bundle_makes_its_golden_frame_on_the_cpu() -> None:
    bundle = Bundle.open()
    found = found_in(bundle)
    assert found.within(bundle.manifest.tolerances)
    assert found.levels <= 2 and found.psnr_db > 70
    golden = read_image(bundle.folder / bundle.manifest.golden.output.file)
    still = read_image(bundle.folder / bundle.manifest.golden.source.file)
    assert np.abs(golden.astype(int) - still).mean() > 1, "or holding the still would do"


def test_the_golden_motion_is_the_one_that_is_made(toy_bundle: Path, tmp_path: Path) -> None:
    found = found_in(Bundle.open(toy_bundle))
    with pytest.raises(BundleError):
        agreement(np.zeros((32, 32), np.uint8), Bundle.open(toy_bundle))
    assert found.psnr_db > 30
    other = copy_bundle(toy_bundle, tmp_path / "other")
    edit_manifest(other, lambda data: data["golden"].update(motion="absolute"))
    assert found_in(Bundle.open(other)).psnr_db < 25


@pytest.mark.parametrize(
    ("found", "tolerances", "holds"),
    [
        (Agreement(2, 60), Tolerances(1e-4, frame_levels=1), True),
        (Agreement(3, 60), Tolerances(1e-4, frame_levels=1), False),
        (Agreement(90, 44.5), Tolerances(1.0, psnr_db=45), True),
        (Agreement(90, 43.5), Tolerances(1.0, psnr_db=45), False),
    ],
)
def test_a_little_more_is_allowed_than_at_export(
    found: Agreement, tolerances: Tolerances, holds: bool
) -> None:
    assert found.within(tolerances) is holds
