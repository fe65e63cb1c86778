"""Fine-tuning: a new run begins with another's weights, and says what those were trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sonomime.runtime.support.errors import CheckpointError, ConfigError
from sonomime.training.checkpoint import Checkpoint, load_checkpoint
from sonomime.training.config import Config
from sonomime.training.loop import train
from sonomime.training.models.families import family_of
from sonomime.training.trainer import Trainer

from .small_runs import batch, config, make, silent, unlabelled

ONE_STEP = config("train.max_steps=1", preset="ours-p")


def weights_of(settings: Config) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    state: dict[str, torch.Tensor] = family_of(settings.model).model(settings.model).state_dict()
    return state


def test_a_run_begins_with_the_weights_and_keeps_the_record(tmp_path: Path) -> None:
    weights, run = weights_of(ONE_STEP), tmp_path / "run"
    Checkpoint(ONE_STEP, 9, weights, ["neck"], [{"name": "first"}]).save(tmp_path / "old.pt")
    trainer = Trainer(ONE_STEP, batch, run, [], [{"name": "mine"}])
    trainer.start_from(load_checkpoint(tmp_path / "old.pt"))
    for model in (trainer.model, trainer.ema):
        assert all(torch.equal(value, weights[k]) for k, value in model.state_dict().items())
    assert trainer.step == 0
    said: list[str] = []
    for steps in (1, 2):  # the second time it resumes with its own weights
        longer = config(f"train.max_steps={steps}", preset="ours-p")
        trainer = Trainer(longer, batch, run, [], [{"name": "mine"}])
        train(trainer, True, None, said.append, tmp_path / "old.pt")
    assert sum("starting from the weights" in line for line in said) == 1
    assert any("resuming at step 1" in line for line in said)
    kept = load_checkpoint(run / "checkpoint.pt")
    assert kept.step == 2
    assert kept.data == [{"name": "first"}, {"name": "mine"}]
    assert kept.supervised_names == ["neck"]


def test_weights_or_a_model_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    weights = weights_of(ONE_STEP)
    trainer = make(tmp_path / "run", ONE_STEP)
    other = config("model.keypoints.width=8", preset="ours-p")
    with pytest.raises(ConfigError) as error:
        trainer.start_from(Checkpoint(other, 9, weights_of(other)))
    assert "model.keypoints.width" in error.value.message
    weights.popitem()
    with pytest.raises(CheckpointError):
        trainer.start_from(Checkpoint(ONE_STEP, 9, weights))


def lite(settings: str, *more: str) -> Config:
    """A model with these settings of its landmarks."""
    own = [f"model.landmarks.{each}" for each in settings.split()]
    return config(*own, *more, preset="lite")


@pytest.mark.parametrize(
    ("old", "new", "mine", "kept", "names"),
    [
        (0, "count=2", "apex neck", False, "apex neck"),
        (2, "count=1", "other", False, "other"),
        (2, "count=2", "one other", False, "one other"),
        (2, "count=2 width=16", "apex neck", False, "apex neck"),
        (2, "count=2", "", True, "apex neck"),
        (2, "count=0", "", None, ""),
    ],
)
def test_landmarks_that_differ_begin_untrained(
    tmp_path: Path, old: int, new: str, mine: str, kept: bool | None, names: str
) -> None:
    theirs = lite(f"count={old}")
    weights = weights_of(theirs)
    ours = lite(new, "model.matcher.stiff=8")  # which has no weights
    trainer = Trainer(ours, unlabelled, tmp_path / "run", mine.split(), [])
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    said = trainer.start_from(Checkpoint(theirs, 9, weights, ["apex", "neck"][:old]))
    assert bool(said) == (kept is not True)
    assert trainer.supervised_names == names.split()
    for model in (trainer.model, trainer.ema):
        for name, value in model.state_dict().items():
            loaded = kept or not name.startswith("landmarks.")
            assert torch.equal(value, weights[name] if loaded else before[name]), name


def test_frozen_batchnorm_keeps_the_statistics_that_it_started_from(tmp_path: Path) -> None:
    frozen = config("train.batchnorm=frozen", "train.max_steps=2", preset="ours-p")
    with pytest.raises(ConfigError) as error:
        train(make(tmp_path / "run", frozen), False, None, silent)
    assert "--from" in error.value.hint
    weights = weights_of(ONE_STEP)
    for name in weights:
        if name.endswith("running_mean"):
            weights[name] = torch.rand_like(weights[name])
    Checkpoint(ONE_STEP, 9, weights).save(tmp_path / "old.pt")
    path = train(make(tmp_path / "run", frozen), False, None, silent, tmp_path / "old.pt")
    made = load_checkpoint(path).weights
    kept = {name for name in weights if name.endswith(("running_mean", "running_var"))}
    assert kept and all(torch.equal(made[name], weights[name]) for name in kept)
    assert any(not torch.equal(made[name], weights[name]) for name in set(weights) - kept)
