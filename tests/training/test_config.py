"""Configuration: strict TOML, overrides, and a way to plain data and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sonomime.runtime.support.dataclass_parser import plain
from sonomime.runtime.support.errors import ConfigError
from sonomime.training.config_file import config_from_dict, load_config, preset_names
from sonomime.training.models.image_losses import Discriminator


def refused(named: str, *overrides: str, preset: str = "ours-ptg") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(preset, overrides)
    error = caught.value
    assert error.hint and error.exit_code == 2 and named in error.message + error.hint
    return error


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_whole_and_named(name: str) -> None:
    config = load_config(name, ["data.gain=[0.5, 2.0]"])
    model = config.model
    assert (config.preset, model.image_size, model.channels) == (name, 256, 1)
    assert model.geometry == "half_pixel"
    assert config_from_dict(json.loads(json.dumps(plain(config)))) == config


def test_the_papers_presets_grow_by_one_part_at_a_time() -> None:
    assert {"fomm", "ours-p", "ours-pt", "ours-ptg", "lite"} <= set(preset_names())
    rows = [load_config(name) for name in ("fomm", "ours-p", "ours-pt", "ours-ptg")]
    assert [c.model.keypoints.supervised for c in rows] == [0, 2, 2, 2]
    assert [c.model.generator.kind for c in rows] == ["single", "single", "dual", "dual"]
    assert [c.loss.supervision for c in rows] == [0, 200, 200, 200]
    assert [c.loss.content for c in rows] == [0, 0, 10, 10]
    assert [(c.loss.adversarial, c.loss.feature_matching) for c in rows] == [(0, 0)] * 3 + [(1, 10)]
    loss, train = rows[-1].loss, rows[-1].train
    assert (loss.equivariance_value, loss.equivariance_jacobian, loss.perceptual) == (10, 10, 10)
    assert (train.learning_rate, train.beta1, train.beta2) == (2e-4, 0.5, 0.999)
    assert (train.batch_size, train.grad_clip, rows[-1].model.keypoints.count) == (20, 10, 12)


def test_a_toml_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nmax_steps = 7\n[data]\nscale = [0.9, 1]\n")
    config = load_config(str(file))
    assert (config.preset, config.train.max_steps, config.data.scale) == ("mine", 7, (0.9, 1.0))
    file.write_text('preset = "named"\n')
    assert load_config(str(file)).preset == "named"
    file.write_text("[loss]\npixels = 1.0\n")
    refused("loss.pixels", preset=str(file))
    file.write_text('[model]\nfamily = "matching"\n[loss]\npixels = 1.0\n')
    assert load_config(str(file)).loss.pixels == 1.0
    assert "ours-ptg" in refused("ours-pgt", preset="ours-pgt").hint


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[train", ""),
        (b"\xff\xfe", ""),
        (b"a = " + b"[" * 3000 + b"]" * 3000, ""),
        (b"[loss]\na" + b".a" * 3000, ""),
        (b"[train]\nlearnign_rate = 1e-4\n", "learning_rate"),
        (b"[trian]\nmax_steps = 1\n", "train"),
        (b"[train]\nqqqqqq = 1\n", "max_steps"),
    ],
    ids=["cut off", "not text", "nested", "dots", "near", "near section", "unknown"],
)
def test_files_that_are_wrong_name_file_and_nearest_key(
    content: bytes, named: str, tmp_path: Path
) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    assert named in refused(str(file), preset=str(file)).hint


def test_overrides_of_every_kind() -> None:
    wanted = {
        "train.max_steps=5": 5,
        "train.learning_rate=1e-3": 1e-3,
        "train.grad_clip=3": 3.0,
        "train.precision=fp32": "fp32",
        'train.schedule="cosine"': "cosine",
        "data.flip=false": False,
        "data.gain=[0.5, 2]": (0.5, 2.0),
        "model.keypoints.supervised=0": 0,
        "loss.perceptual_weights=/some/where/vgg 19=x.pth": "/some/where/vgg 19=x.pth",
    }
    config = load_config("ours-pt", list(wanted))
    for override, value in wanted.items():
        found = config
        for name in override.partition("=")[0].split("."):
            found = getattr(found, name)
        assert found == value and type(found) is type(value)
    assert config.preset == "ours-pt"


NO_POINT = "model.keypoints.self_supervised=0"


@pytest.mark.parametrize(
    "overrides",
    [
        # not a setting
        "train.max_steps", "=3", "train.max_stesp=3", "max_steps=3", "train=3", "preset.name=3",
        "model.generator.kind.x=3", "data=[[1]]", "data=" + "[" * 3000,
        # another type
        "train.max_steps=1.5", "train.max_steps=true", "train.learning_rate=fast", "data.flip=1",
        "data.scale=1.0", "data.scale=[1.0]", "data.scale=[1.0,'x']", "loss.perceptual_weights=3",
        "model.generator.kind=triple",
        # out of range, or not fitting the others
        "model.image_size=250", "model.image_size=100000000", "model.channels=2",
        "model.motion.depth=1000000", "model.keypoints.supervised=-1", "loss.content=nan",
        "model.keypoints.temperature=0", "model.keypoints.head_kernel=4", "train.seed=-1",
        "model.generator.width=1", "loss.perceptual_network=vgg19", "train.batch_size=0",
        "train.ema=1.0", "data.synthetic=1.5", "data.scale=[1.2,0.8]", "data.gain=[0,1]",
        f"{NO_POINT} model.keypoints.supervised=0",
        f"{NO_POINT} loss.equivariance_on=self_supervised",
    ],
)  # fmt: skip
def test_overrides_that_make_no_sense_are_named(overrides: str) -> None:
    last = overrides.split()[-1].partition("=")[0].split(".")
    named = "keypoints" if last[-1:] == ["supervised"] else last[-1]
    error = refused(named, *overrides.split())
    assert "ours-ptg.toml" not in error.message  # the file is not to blame


SHALLOW = "model.keypoints.depth=1 model.motion.depth=1"
UNJUDGED = "loss.adversarial=0 loss.feature_matching=0"


@pytest.mark.parametrize(
    ("preset", "overrides", "named"),
    [
        # what cannot match
        ("lite", "model.image_size=160", "image_size"),
        ("lite", "model.geometry=fomm_aligned", "half_pixel"),
        ("ours-pt", "model.geometry=fomm", "fomm_unaligned"),
        ("lite", "model.matcher.grid=24", "grid must divide 32"),
        ("lite", "model.image_size=320 model.matcher.grid=16", "grid must divide 40"),
        ("lite", "model.matcher.grid=0", "grid"),
        ("lite", "model.matcher.stiff=12", "stiff"),
        ("lite", "model.matcher.shading=64", "shading"),
        ("lite", "model.matcher.fine=0", "fine"),
        ("lite", "model.image_size=320 model.matcher={grid=40,stiff=20,shading=20}", "passes 5200"),
        ("lite", "model.landmarks.count=-1", "model.landmarks"),
        # settings of another family, even at their default: who writes one expects an effect
        ("ours-pt", "loss.flow=1", "loss.flow is a setting of the family"),
        ("ours-pt", "loss.folding=0", "loss.folding is a setting of the family"),
        ("monkey-net", "loss.supervision=1", "loss.supervision is a setting of the family"),
        ("lite", "loss.adversarial=1", "loss.adversarial is a setting of the family"),
        ("monkey-net", "model.image_size=192", "multiple of 128"),
        ("monkey-net", "model.upsample=bilinear", "model.upsample is a setting of the family"),
        ("ours-pt", "model.generator.downs=8 model.image_size=128", "multiple of 256"),
        ("onuvs", f"{SHALLOW} model.image_size=32 {UNJUDGED}", "multiple of 64"),
        ("ours-ptg", f"{SHALLOW} model.image_size=56", "model.discriminator.blocks"),
        ("monkey-net", "model.discriminator.blocks=6 model.image_size=128", "blocks"),
        ("ours-pt", "data.flow=dis", "data.flow is a setting of the family"),
        ("fomm", "model.matcher.grid=16", "model.matcher.grid is a setting of the family"),
        ("lite", "loss.content=10.0", "loss.content is a setting of the family"),
        ("lite", "model.keypoints.width=4", "model.keypoints.width is a setting of the family"),
    ],
)
def test_settings_that_do_not_fit_the_model(preset: str, overrides: str, named: str) -> None:
    refused(named, *overrides.split(), preset=preset)


def test_small_pictures_that_fit() -> None:
    """Their networks run: the discriminator's last block norms two pixels a side or more."""
    for preset, size in (("ours-ptg", 64), ("monkey-net", 128)):
        model = load_config(preset, [*SHALLOW.split(), f"model.image_size={size}"]).model
        judge = Discriminator(model.discriminator, 1)
        assert judge(torch.zeros(1, 1, size, size)).score.numel() >= 1
    load_config("ours-ptg", [*SHALLOW.split(), *UNJUDGED.split(), "model.image_size=8"])


def test_grids_that_match() -> None:
    grids = {64: (8, 4, 8), 256: (32, 32, 0), 320: (20, 10, 5)}
    for size, (grid, stiff, shading) in grids.items():
        matcher = f"model.matcher={{grid={grid}, stiff={stiff}, shading={shading}}}"
        load_config("lite", [f"model.image_size={size}", matcher])
