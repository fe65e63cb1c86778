"""Presets at other sizes and widths."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.scale import load_scaled


@pytest.mark.parametrize(
    ("preset", "size", "near"),
    [
        ("fomm", 100, 128),
        ("monkey-net", 192, 128),
        ("lite", 16, 64),
        ("lite", 100, 128),
        ("lite", 512, 256),  # the grids would pass too many numbers
        ("onuvs", 5000, 4096),
        ("ours-p", -1, 128),
    ],
)
def test_a_size_that_a_preset_cannot_have_names_one_that_it_can(
    preset: str, size: int, near: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_scaled(preset, [], size, None)
    assert f"--size {size}" in caught.value.message and f"--size {near}" in caught.value.hint
    assert load_scaled(preset, [], near, None).model.image_size == near


def test_another_fault_is_not_the_sizes() -> None:
    with pytest.raises(ConfigError) as caught:
        load_scaled("ours-p", ["train.max_stesp=3"], 128, None)
    assert "max_stesp" in caught.value.message and "--size" not in str(caught.value)


def test_overrides_and_files_need_to_fit_at_the_new_scale_alone(tmp_path: Path) -> None:
    matcher = load_scaled("lite", ["model.matcher.grid=8"], 128, None).model.matcher
    assert (matcher.grid, matcher.stiff, matcher.shading) == (8, 8, 8)
    file = tmp_path / "mine.toml"
    file.write_text('[loss]\nperceptual_network = "vgg19"\n')
    weights = "loss.perceptual_weights=vgg19.pth"
    assert load_scaled(str(file), [weights], 128, 0.25).model.generator.width == 16


@pytest.mark.parametrize("preset", ["fomm", "monkey-net", "ours-ptg", "onuvs", "lite"])
def test_every_width_that_is_allowed_fits(preset: str) -> None:
    for width in (1e-3, 0.3, 4.0):
        load_scaled(preset, [], None, width)
    with pytest.raises(ConfigError):
        load_scaled(preset, [], None, 4.1)
