"""Fine-tuning: a new run begins with another's weights, and says what those were trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sonomime.runtime.support.errors import CheckpointError, ConfigError
from sonomime.training.checkpoint import Checkpoint, load_checkpoint
from sonomime.training.config import (
    Config,
    CorrectorConfig,
    KeypointConfig,
    LandmarkConfig,
    MatcherConfig,
    ModelConfig,
    MotionConfig,
)
from sonomime.training.data.batch import PairBatch
from sonomime.training.loop import train
from sonomime.training.models.keypoints.model import AnimationModel
from sonomime.training.models.matching.model import MatchingModel
from sonomime.training.trainer import Trainer

POINTS = KeypointConfig(
    self_supervised=2, supervised=0, width=4, max_features=8, depth=2, head_kernel=3
)
MOTION = MotionConfig(width=4, max_features=8, depth=2, head_kernel=3)


def config() -> Config:
    generator = replace(ModelConfig().generator, width=4, blocks=1)
    base = Config(model=ModelConfig(image_size=64, keypoints=POINTS, motion=MOTION))
    base = replace(base, model=replace(base.model, generator=generator))
    return replace(
        base,
        loss=replace(base.loss, reconstruction=1.0),
        train=replace(
            base.train, max_steps=1, batch_size=1, precision="fp32", batchnorm_batches=1, ema=0.0
        ),
    )


def batch(step: int) -> PairBatch:
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(step))
    none = torch.zeros(1, 0, 2), torch.zeros(1, 0, 2)
    seen = torch.zeros(1, 0, dtype=torch.bool)
    real = torch.tensor([False])
    return PairBatch(image, image, *none, seen, seen, None, None, None, real, seen, seen)


def test_start_from_begins_with_the_weights_and_keeps_the_record(tmp_path: Path) -> None:
    torch.manual_seed(5)
    weights = AnimationModel(config().model).state_dict()
    Checkpoint(config(), 9, weights, data=[{"name": "first"}]).save(tmp_path / "old.pt")
    trainer = Trainer(config(), batch, tmp_path / "run", [], [{"name": "mine"}])
    before = trainer.model.state_dict()["keypoint_detector.heatmap.weight"].clone()
    trainer.start_from(load_checkpoint(tmp_path / "old.pt"))
    for model in (trainer.model, trainer.ema):
        for name, value in model.state_dict().items():
            assert torch.equal(value, weights[name]), name
    after = trainer.model.state_dict()["keypoint_detector.heatmap.weight"]
    assert not torch.equal(before, after)
    assert trainer.step == 0
    assert trainer.data == [{"name": "first"}, {"name": "mine"}]


def test_resuming_keeps_the_runs_own_weights(tmp_path: Path) -> None:
    Checkpoint(config(), 9, AnimationModel(config().model).state_dict()).save(tmp_path / "old.pt")
    said: list[str] = []
    old = tmp_path / "old.pt"
    train(Trainer(config(), batch, tmp_path / "run", [], []), True, None, said.append, old)
    assert any("starting from the weights" in line for line in said)
    said.clear()
    train(Trainer(config(), batch, tmp_path / "run", [], []), True, None, said.append, old)
    assert any("resuming at step 1" in line for line in said)
    assert not any("starting from" in line for line in said)


def test_the_record_outlives_resuming(tmp_path: Path) -> None:
    old, run = tmp_path / "old.pt", tmp_path / "run"
    weights = AnimationModel(config().model).state_dict()
    Checkpoint(config(), 9, weights, ["bladder_neck"], [{"name": "first"}]).save(old)
    for _ in range(2):
        mine = Trainer(config(), batch, run, [], [{"name": "mine"}])
        train(mine, True, None, lambda line: None, old)
    kept = load_checkpoint(run / "checkpoint.pt")
    assert kept.data == [{"name": "first"}, {"name": "mine"}]
    assert kept.supervised_names == ["bladder_neck"]


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    weights = AnimationModel(config().model).state_dict()
    weights.popitem()
    trainer = Trainer(config(), batch, tmp_path / "run", [], [])
    with pytest.raises(CheckpointError, match="do not fit"):
        trainer.start_from(Checkpoint(config(), 9, weights))


def test_another_model_is_refused(tmp_path: Path) -> None:
    other = replace(config(), model=replace(config().model, keypoints=replace(POINTS, width=8)))
    Checkpoint(other, 9, AnimationModel(other.model).state_dict()).save(tmp_path / "old.pt")
    trainer = Trainer(config(), batch, tmp_path / "run", [], [])
    with pytest.raises(ConfigError, match=r"model\.keypoints\.width differ"):
        trainer.start_from(load_checkpoint(tmp_path / "old.pt"))


def matching(count: int, width: int = 8) -> Config:
    """A tiny model of the other family, which finds so many landmarks."""
    model = ModelConfig(
        family="matching", image_size=64, matcher=MatcherConfig(8, 8, grid=8, stiff=4, shading=8),
        corrector=CorrectorConfig(4, 1), landmarks=LandmarkConfig(count, width),
    )  # fmt: skip
    loss = replace(config().loss, landmarks=1.0)
    return replace(config(), model=model, loss=loss)


LANDMARKS = ["apex", "neck"]


@pytest.mark.parametrize(
    ("old", "new", "mine", "kept", "names"),
    [
        (0, 2, LANDMARKS, False, LANDMARKS),
        (2, 1, ["other"], False, ["other"]),
        (2, 2, ["one", "other"], False, ["one", "other"]),
        (2, 2, LANDMARKS, True, LANDMARKS),
        (2, 2, [], True, LANDMARKS),
        (2, 0, [], None, []),
        (0, 0, [], None, []),
    ],
)
def test_landmarks_that_are_others_begin_untrained(
    tmp_path: Path, old: int, new: int, mine: list[str], kept: bool | None, names: list[str]
) -> None:
    torch.manual_seed(5)
    weights = MatchingModel(matching(old).model).state_dict()
    start = Checkpoint(matching(old), 9, weights, LANDMARKS[:old])
    trainer = Trainer(matching(new), batch, tmp_path / "run", mine, [])
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    said = trainer.start_from(start)
    assert bool(said) == (kept is False or old != new)
    assert trainer.supervised_names == names
    for model in (trainer.model, trainer.ema):
        for name, value in model.state_dict().items():
            loaded = kept or not name.startswith("landmarks.")
            assert torch.equal(value, weights[name] if loaded else before[name]), name


def test_a_landmark_detector_of_another_width_begins_untrained(tmp_path: Path) -> None:
    weights = MatchingModel(matching(2).model).state_dict()
    trainer = Trainer(matching(2, width=16), batch, tmp_path / "run", LANDMARKS, [])
    said = trainer.start_from(Checkpoint(matching(2), 9, weights, LANDMARKS))
    assert "apex" in said
    other = replace(matching(2).model, corrector=CorrectorConfig(8, 1))
    with pytest.raises(ConfigError, match=r"model\.corrector\.width differ"):
        trainer.start_from(Checkpoint(replace(matching(2), model=other), 9, weights, LANDMARKS))


def test_frozen_batchnorm_keeps_the_statistics_that_it_started_from(tmp_path: Path) -> None:
    frozen = replace(config(), train=replace(config().train, batchnorm="frozen", max_steps=2))
    torch.manual_seed(5)
    weights = AnimationModel(config().model).state_dict()
    for name in weights:
        if name.endswith("running_mean"):
            weights[name] = torch.rand_like(weights[name])
    Checkpoint(config(), 9, weights).save(tmp_path / "old.pt")
    trainer = Trainer(frozen, batch, tmp_path / "run", [], [])
    path = train(trainer, False, None, lambda line: None, tmp_path / "old.pt")
    made = load_checkpoint(path).weights
    kept = {name for name in weights if name.endswith(("running_mean", "running_var"))}
    assert kept and all(torch.equal(made[name], weights[name]) for name in kept)
    moved = [name for name in set(weights) - kept if not torch.equal(made[name], weights[name])]
    assert moved


def test_frozen_batchnorm_needs_weights_to_start_from(tmp_path: Path) -> None:
    frozen = replace(config(), train=replace(config().train, batchnorm="frozen"))
    trainer = Trainer(frozen, batch, tmp_path / "run", [], [])
    with pytest.raises(ConfigError, match="there are none") as raised:
        train(trainer, False, None, lambda line: None)
    assert "--from" in raised.value.hint
