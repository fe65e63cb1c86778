"""Configuration: strict TOML, overrides, and a way to plain data and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    check,
    config_from_dict,
    config_to_dict,
    load_config,
    preset_names,
)


def refused(message: str, *overrides: str, preset: str = "ours-ptg") -> ConfigError:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(preset, overrides)
    assert caught.value.hint and caught.value.exit_code == 2
    return caught.value


# -- presets ---------------------------------------------------------------------------------------


def test_the_papers_family_and_lite_are_there() -> None:
    assert {"fomm", "ours-p", "ours-pt", "ours-ptg", "lite"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_whole_and_named(name: str) -> None:
    config = load_config(name)
    assert config.preset == name and config.model.image_size == 256 and config.model.channels == 1
    assert config.model.geometry == "half_pixel"


def test_the_family_grows_by_one_part_at_a_time() -> None:
    rows = [load_config(name) for name in ("fomm", "ours-p", "ours-pt", "ours-ptg")]
    assert [c.model.keypoints.supervised for c in rows] == [0, 2, 2, 2]
    assert [c.model.generator.kind for c in rows] == ["single", "single", "dual", "dual"]
    assert [c.loss.supervision for c in rows] == [0, 100, 100, 100]
    assert [c.loss.content for c in rows] == [0, 0, 10, 10]
    assert [(c.loss.adversarial, c.loss.feature_matching) for c in rows] == [(0, 0)] * 3 + [(1, 10)]


def test_the_paper_systems_weights_and_optimizer() -> None:
    config = load_config("ours-ptg")
    loss, train = config.loss, config.train
    assert (loss.equivariance_value, loss.equivariance_jacobian, loss.perceptual) == (10, 10, 10)
    assert loss.reconstruction == 0
    assert (train.learning_rate, train.beta1, train.beta2, train.batch_size) == (
        2e-4,
        0.5,
        0.999,
        20,
    )
    assert (train.grad_clip, config.model.keypoints.count) == (10, 12)


# -- files -----------------------------------------------------------------------------------------


def test_a_toml_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nmax_steps = 7\n[data]\nscale = [0.9, 1]\n")
    config = load_config(str(file))
    assert (config.preset, config.train.max_steps, config.data.scale) == ("mine", 7, (0.9, 1.0))
    file.write_text('preset = "named"\n')
    assert load_config(str(file)).preset == "named"


def test_files_that_are_none(tmp_path: Path) -> None:
    error = refused("no preset or TOML file named 'ours-pgt'", preset="ours-pgt")
    assert "ours-ptg" in error.hint
    file = tmp_path / "broken.toml"
    for content in (b"[train", b"\xff\xfe", b"a = 1\na = 2"):
        file.write_bytes(content)
        assert str(file) in refused("not a readable TOML file", preset=str(file)).message
    refused("no preset or TOML file", preset=str(tmp_path))


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nlearnign_rate = 1e-4\n")
    error = refused("unknown key 'learnign_rate'", preset=str(file))
    assert "'learning_rate'" in error.hint and str(file) in error.message
    file.write_text("[trian]\nmax_steps = 1\n")
    assert "'train'" in refused("unknown key 'trian'", preset=str(file)).hint
    file.write_text("[train]\nqqqqqq = 1\n")
    assert "max_steps" in refused("unknown key 'qqqqqq'", preset=str(file)).hint


# -- overrides -------------------------------------------------------------------------------------


def test_overrides_of_every_kind() -> None:
    config = load_config(
        "ours-pt",
        [
            "train.max_steps=5",
            "train.learning_rate=1e-3",
            "train.grad_clip=3",
            "train.precision=fp32",
            'train.schedule="cosine"',
            "data.flip=false",
            "data.gain=[0.5, 2]",
            "model.keypoints.supervised=0",
            "loss.perceptual_weights=/some/where/vgg 19=x.pth",
            "train.max_steps=6",
        ],
    )
    assert config.train.max_steps == 6  # the last one counts
    assert (config.train.learning_rate, config.train.grad_clip) == (1e-3, 3.0)
    assert type(config.train.grad_clip) is float
    assert (config.train.precision, config.train.schedule) == ("fp32", "cosine")
    assert config.data.flip is False and config.data.gain == (0.5, 2.0)
    assert config.model.keypoints.supervised == 0
    assert config.loss.perceptual_weights == "/some/where/vgg 19=x.pth"
    assert config.preset == "ours-pt"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_steps", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("train.max_stesp=3", "unknown key 'max_stesp'"),
        ("max_steps=3", "unknown key 'max_steps'"),
        ("train=3", "expected a table"),
        ("preset.name=3", "preset"),
        ("model.generator.kind.x=3", "is not a section"),
    ],
)
def test_overrides_that_fit_nothing(override: str, message: str) -> None:
    refused(message, override)


@pytest.mark.parametrize(
    "override",
    [
        "train.max_steps=1.5",
        "train.max_steps=true",
        "train.max_steps=many",
        "train.learning_rate=fast",
        "train.learning_rate=true",
        "data.flip=1",
        "data.scale=1.0",
        "data.scale=[1.0]",
        "data.scale=[1.0, 'x']",
        "loss.perceptual_weights=3",
        "model.generator.kind=triple",
        "model.geometry=half-pixel",
        "train.precision=16",
    ],
)
def test_wrong_types_and_choices(override: str) -> None:
    key = override.partition("=")[0].rpartition(".")[2]
    refused(key, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.image_size=250", "multiple of 128"),
        ("model.image_size=0", "multiple of 128"),
        ("model.channels=2", "1 or 3"),
        ("model.keypoints.depth=0", "depth"),
        ("model.motion.depth=1000000", "multiple of"),
        ("model.keypoints.supervised=-1", "counts of keypoints"),
        ("model.keypoints.temperature=0", "temperature"),
        ("model.keypoints.temperature=nan", "temperature"),
        ("model.keypoints.head_kernel=4", "odd"),
        ("model.motion.variance=-0.01", "variance"),
        ("model.generator.kind=lite", "kind"),
        ("model.generator.width=1", "width"),
        ("loss.content=-1", "weights of losses"),
        ("loss.content=nan", "content: expected a finite number"),
        ("data.shift=nan", "shift: expected a finite number"),
        ("model.discriminator.blocks=0", "discriminator"),
        ("train.seed=-1", "seed"),
        ("loss.supervision_variance=0", "supervision_variance"),
        ("loss.perceptual_network=vgg19", "perceptual_weights must give the path of the vgg19"),
        ("loss.perceptual_scales=0", "perceptual_scales"),
        ("train.batch_size=0", "batch_size"),
        ("train.learning_rate=nan", "learning_rate"),
        ("train.ema=1.0", "ema"),
        ("train.beta1=1.0", "beta1"),
        ("train.grad_clip=0", "grad_clip"),
        ("train.log_every=0", "every"),
        ("train.warmup=-1", "warmup"),
    ],
)
def test_values_that_make_no_sense(override: str, message: str) -> None:
    refused(message, override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("model.image_size=160", "multiple of 64"),
        ("model.image_size=-64", "multiple of 64"),
        ("model.geometry=fomm", "half_pixel"),
        ("model.matcher.grid=24", "grid must divide 32"),
        ("model.image_size=320 model.matcher.grid=16", "grid must divide 40"),
        ("model.matcher.grid=2", "4 is the least"),
        ("model.matcher.grid=0", "grid must divide"),
        ("model.matcher.stiff=12", "stiff must divide"),
        ("model.matcher.stiff=0", "stiff must divide"),
        ("model.matcher.shading=64", "shading must divide"),
        ("model.matcher.shading=-1", "shading must divide"),
        ("model.matcher.fine=0", "fine"),
        ("model.corrector.blocks=-1", "blocks"),
        ("model.matcher.shading=32 loss.folding=-1", "weights of losses"),
        ("model.matcher.grid=64", "grid must divide 32"),
        (
            "model.image_size=320 model.matcher.grid=40 model.matcher.stiff=20 "
            "model.matcher.shading=20",
            "passes 5200 numbers a frame, 4096 are allowed",
        ),
        ("model.image_size=128", "grid must divide 16"),
        ("loss.pixels=0", "loss.pixels must be positive"),
        ("loss.flow_exact=-1", "weights of losses"),
        ("model.channels=2", "1 or 3"),
    ],
)
def test_settings_that_do_not_fit_a_match(overrides: str, message: str) -> None:
    refused(message, *overrides.split(), preset="lite")


@pytest.mark.parametrize(
    "overrides",
    [
        "model.image_size=64 model.matcher.grid=8 model.matcher.stiff=4 model.matcher.shading=8",
        "model.matcher.shading=0 model.matcher.stiff=32",
        "model.matcher.shading=8 model.matcher.grid=8 model.matcher.stiff=1",
        "model.image_size=320 model.matcher.grid=20 model.matcher.stiff=10 model.matcher.shading=5",
    ],
)
def test_a_match_may_have_other_grids(overrides: str) -> None:
    assert load_config("lite", overrides.split()).model.family == "matching"


@pytest.mark.parametrize(
    ("preset", "override"),
    [
        ("ours-pt", "loss.flow=1"),
        ("ours-pt", "loss.sharpness=0"),
        ("ours-pt", "data.flow=dis"),
        ("fomm", "model.matcher.grid=16"),
        ("lite", "loss.content=10.0"),
        ("lite", "model.keypoints.width=4"),
    ],
)
def test_settings_of_another_family_are_refused(preset: str, override: str) -> None:
    """Even at their defaults: whoever writes one down expects something of it."""
    section = ".".join(override.partition("=")[0].split(".")[:2])
    error = refused("is a setting of the family", override, preset=preset)
    assert section in error.message


def test_a_file_with_settings_of_another_family(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[loss]\npixels = 1.0\n")
    assert "loss.pixels" in refused("family 'matching'", preset=str(file)).message
    file.write_text('[model]\nfamily = "matching"\n[loss]\npixels = 1.0\n')
    assert load_config(str(file)).loss.pixels == 1.0


def test_every_loss_belongs_to_a_family() -> None:
    owners = {f.metadata.get("family") for f in dataclasses.fields(LossConfig)}
    assert owners == {"keypoints", "matching"}


def test_no_keypoint_at_all_is_refused() -> None:
    refused("at least one", "model.keypoints.supervised=0", "model.keypoints.self_supervised=0")


# -- plain data and back ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_round_trip(name: str) -> None:
    config = load_config(name, ["data.gain=[0.5, 2.0]"])
    plain = config_to_dict(config)
    assert config_from_dict(plain) == config
    assert config_from_dict(json.loads(json.dumps(plain))) == config


@settings(max_examples=30)
@given(
    steps=st.integers(1, 10**9),
    rate=st.floats(1e-9, 1.0),
    gain=st.tuples(st.floats(0.1, 1.0), st.floats(1.0, 9.0)),
    channels=st.sampled_from([1, 3]),
    name=st.text(min_size=1, max_size=20),
)
def test_round_trip_of_any_values(
    steps: int, rate: float, gain: tuple[float, float], channels: int, name: str
) -> None:
    config = Config(preset=name, model=ModelConfig(channels=channels), data=DataConfig(gain=gain))
    train = dataclasses.replace(config.train, max_steps=steps, learning_rate=rate)
    config = dataclasses.replace(config, train=train)
    check(config)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_plain_data_holds_every_setting() -> None:
    def leaves(value: Any) -> int:
        return sum(map(leaves, value.values())) if isinstance(value, dict) else 1

    def fields(value: Any) -> int:
        if not dataclasses.is_dataclass(value):
            return 1
        return sum(fields(getattr(value, f.name)) for f in dataclasses.fields(value))

    assert leaves(config_to_dict(Config())) == fields(Config()) > 50


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().preset = "other"  # type: ignore[misc]


def test_landmarks_are_counted_from_0() -> None:
    refused(r"model\.landmarks", "model.landmarks.count=-1", preset="lite")
    refused(r"model\.landmarks", "model.landmarks.width=0", preset="lite")
    assert load_config("lite", ["model.landmarks.count=3"]).model.landmarks.count == 3
    assert Config().model.landmarks.count == 0 and Config().loss.landmarks == 0


def test_a_wrong_override_is_not_blamed_on_the_file() -> None:
    with pytest.raises(ConfigError, match="--set train") as error:
        load_config("lite", ["train.max_stepz=3"])
    assert "lite.toml" not in error.value.message
    assert "max_steps" in error.value.hint
