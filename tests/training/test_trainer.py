"""The trainer: resuming is exact, every loss reaches what it should, nothing spoils the weights."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sonomime.runtime.animator import Animator
from sonomime.runtime.support.errors import CheckpointError, ConfigError, OutputError
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.config import Config, config_from_dict, load_config
from sonomime.training.data.batch import PairBatch, flow_weights
from sonomime.training.logbook import Logbook
from sonomime.training.loop import train
from sonomime.training.models.matching import losses
from sonomime.training.torch_backend import open_session
from sonomime.training.trainer import Trainer

SIZE = 64
SMALLEST_LITE = (
    f"model.image_size={SIZE}",
    "model.matcher.fine=8",
    "model.matcher.coarse=8",
    "model.matcher.grid=8",
    "model.matcher.stiff=4",
    "model.matcher.shading=4",
    "model.corrector.width=8",
)


def config(**sections: dict[str, object]) -> Config:
    """A model small enough to train in a test."""
    small = {"width": 4, "max_features": 8, "depth": 2, "head_kernel": 3}
    table: dict[str, object] = {
        "preset": "tiny",
        "model": {
            "image_size": SIZE,
            "keypoints": {**small, "self_supervised": 3, "supervised": 1},
            "motion": small,
            "generator": {"width": 4, "blocks": 1},
            "discriminator": {"width": 4},
        },
        "loss": {
            "reconstruction": 1.0,
            "adversarial": 1.0,
            "feature_matching": 1.0,
        },
        "train": {
            "max_steps": 4,
            "batch_size": 2,
            "precision": "fp32",
            "batchnorm_batches": 2,
            "log_every": 1,
        },
    }
    for name, values in sections.items():
        table[name] = {**table[name], **values}  # type: ignore[dict-item]
    return config_from_dict(table)


def batch(step: int) -> PairBatch:
    """Two pairs, a pure function of the step; the second driving frame has no label."""
    random = torch.Generator().manual_seed(step)
    images = [torch.rand(2, 1, SIZE, SIZE, generator=random) for _ in range(2)]
    points = [torch.rand(2, 1, 2, generator=random) - 0.5 for _ in range(2)]
    seen = torch.tensor([[True], [False]])
    flow = torch.rand(2, SIZE // 4, SIZE // 4, 2, generator=random) * 2 - 1
    valid = torch.ones(2, SIZE // 4, SIZE // 4, dtype=torch.bool)
    real = torch.tensor([False, False])
    return PairBatch(*images, *points, seen, seen, flow, valid, real, real, ~seen, ~seen)


def make(run: Path, settings: Config) -> Trainer:
    torch.set_num_threads(1)
    return Trainer(settings, batch, run, ["bladder_neck"], [{"name": "noise"}])


def silent(line: str) -> None:
    """Report nowhere."""


def test_two_runs_of_two_steps_are_one_of_four(tmp_path: Path) -> None:
    whole = train(make(tmp_path / "whole", config()), False, None, silent)
    half = make(tmp_path / "parts", config(train={"max_steps": 2}))
    train(half, False, None, silent)
    parts = train(make(tmp_path / "parts", config()), True, None, silent)
    one, two = load_checkpoint(whole), load_checkpoint(parts)
    assert one.step == two.step == 4
    assert one.weights.keys() == two.weights.keys()
    for key, value in one.weights.items():
        assert torch.equal(value, two.weights[key]), key
    assert all(
        torch.equal(v, two.resume["discriminator"][k])
        for k, v in one.resume["discriminator"].items()
    )
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    for a, b in zip(*logs, strict=True):
        first, second = (
            {k: v for k, v in json.loads(x).items() if k != "seconds_per_step"} for x in (a, b)
        )
        assert first == second


def test_all_losses_are_logged_and_the_pictures_drawn(tmp_path: Path) -> None:
    train(make(tmp_path, config()), False, None, silent)
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    wanted = {
        "equivariance_value",
        "equivariance_jacobian",
        "supervision",
        "content",
        "reconstruction",
        "adversarial",
        "feature_matching",
        "discriminator",
        "l1",
        "step",
    }
    assert wanted <= line.keys()
    picture = cv2.imread(str(tmp_path / "pictures" / "0000004.png"))
    assert picture.shape == (22 + 2 * SIZE, 7 * SIZE, 3)
    assert picture[22:].std() > 5


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    train(make(tmp_path, config(train={"max_steps": 1})), False, None, silent)
    with pytest.raises(ConfigError, match=r"train\.seed"):
        train(make(tmp_path, config(train={"seed": 7})), True, None, silent)


def test_labels_must_match_the_supervised_keypoints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labels 2 keypoints"):
        Trainer(config(), batch, tmp_path, ["a", "b"], [])


def test_a_loss_that_is_no_number_stops_before_it_spoils_the_weights(tmp_path: Path) -> None:
    def broken(step: int) -> PairBatch:
        whole = batch(step)
        return whole._replace(driving=whole.driving * float("nan"))

    trainer = Trainer(config(), broken, tmp_path, ["bladder_neck"], [])
    with pytest.raises(CheckpointError, match="nan at step 0"):
        train(trainer, False, None, silent)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_gradient_that_is_no_number_stops_before_it_spoils_the_weights(tmp_path: Path) -> None:
    trainer = make(tmp_path, config())
    before = [p.detach().clone() for p in trainer.model.parameters()]
    bias = trainer.model.generator.content.final.bias
    assert bias is not None
    bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(CheckpointError, match="gradient became") as error:
        trainer.train_step()
    assert "last checkpoint" in error.value.hint
    assert all(map(torch.equal, before, trainer.model.parameters()))


def test_a_model_that_would_learn_no_image_is_refused(tmp_path: Path) -> None:
    blind = config(loss={"content": 0.0, "reconstruction": 0.0, "adversarial": 0.0})
    with pytest.raises(ConfigError, match="no loss sees the image") as error:
        make(tmp_path, blind)
    assert "perceptual_network" in error.value.hint


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.matcher.grid=7", "grid"),
        ("model.matcher.stiff=3", "stiff"),
        ("model.matcher.shading=-1", "shading"),
        ("model.matcher.grid=16", "grid must divide 8"),
    ],
)
def test_a_matcher_that_fits_no_picture_is_refused(
    override: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named) as error:
        make(tmp_path, load_config("lite", [*SMALLEST_LITE, override]))
    assert error.value.hint


@pytest.mark.parametrize("labels", [1, 14])
def test_labels_are_nothing_to_a_model_without_supervised_keypoints(
    tmp_path: Path, labels: int
) -> None:
    def labelled(step: int) -> PairBatch:
        points, seen = torch.zeros(2, labels, 2), torch.ones(2, labels, dtype=torch.bool)
        return batch(step)._replace(
            source_points=points, driving_points=points, source_visible=seen, driving_visible=seen
        )

    small = {"width": 4, "max_features": 8, "depth": 2, "head_kernel": 3, "supervised": 0}
    settings = config(model={"keypoints": small})
    result = Trainer(settings, labelled, tmp_path, [], []).train_step()
    assert "supervision" not in result.losses


def test_batchnorm_is_estimated_without_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, config())
    trainer.train_step()
    norm = trainer.ema.generator.first.norm
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.running_mean is not None
    followed = norm.running_mean.clone()

    def refuse(*args: object) -> None:
        raise AssertionError("a feature network at four scales costs more than the model")

    monkeypatch.setattr(trainer.objective, "forward", refuse)
    trainer.estimate_batchnorm()
    assert not torch.allclose(norm.running_mean, followed)


def test_batchnorm_is_the_mean_over_batches_each_with_its_own_spline(tmp_path: Path) -> None:
    trainer = make(tmp_path, config(train={"batchnorm_batches": 3}))
    trainer.train_step()
    wanted: dict[str, list[torch.Tensor]] = {}
    for step in (1, 2, 3):
        one = copy.deepcopy(trainer.ema).train()
        for norm in one.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0  # what is left is this batch alone
        with torch.no_grad():
            trainer.objective.run(one, batch(step), step)
        for name, value in one.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                wanted.setdefault(name, []).append(value)
    trainer.estimate_batchnorm()
    found = trainer.ema.state_dict()
    assert wanted
    for name, values in wanted.items():
        assert torch.allclose(found[name], torch.stack(values).mean(0), rtol=1e-4, atol=1e-6), name


def test_what_cannot_be_resumed_is_a_checkpoint_error(tmp_path: Path) -> None:
    path = train(make(tmp_path, config(train={"max_steps": 1})), False, None, silent)
    whole = load_checkpoint(path)
    spoilt = {"model": {}, "optimizer": {}}, {**whole.resume, "discriminator": None}, {"model": 3}
    for resume in spoilt:
        whole.resume = resume
        with pytest.raises(CheckpointError, match="does not fit"):
            make(tmp_path, config()).load(whole)


def test_a_picture_that_the_disk_refuses_is_an_error(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Logbook(tmp_path, 0) as book:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            with pytest.raises(OutputError, match=r"0000001\.png"):
                book.picture(1, noise)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "pictures").iterdir()) == []


def test_the_flow_loss_decays_and_exact_flow_may_stay(tmp_path: Path) -> None:
    loss = config(loss={"flow": 8.0, "flow_until": 4, "flow_exact": 3.0}).loss
    weights = [flow_weights(loss, step) for step in (0, 2, 3, 4, 9)]
    assert weights == [(8, 8), (4, 4), (2, 3), (0, 3), (0, 3)]
    loss = config(loss={"flow": 8.0, "flow_until": 4}).loss
    assert [flow_weights(loss, step) for step in (0, 4)] == [(8, 8), (0, 0)]
    model = load_config("lite", SMALLEST_LITE).model
    for kept in (0.0, 3.0):
        settings = config(loss={"flow": 8.0, "flow_until": 4, "flow_exact": kept})
        trainer = make(tmp_path, dataclasses.replace(settings, model=model))
        exact = torch.tensor([False, True])
        pairs = batch(0)._replace(flow_exact=exact, bent=~exact)
        result = trainer.objective(trainer.model, pairs, 9, None)
        match = trainer.objective.run(trainer.model, pairs, 9).match
        weights = torch.tensor([0.0, kept])
        error, _ = losses.endpoint(match, pairs.flow, pairs.flow_valid, weights)
        assert (error > 0) == (kept > 0)
        assert result.losses["flow"].item() == pytest.approx(error.item(), rel=1e-5)


def test_the_rate_warms_up_and_follows_its_cosine(tmp_path: Path) -> None:
    trainer = make(
        tmp_path,
        config(train={"schedule": "cosine", "warmup": 2, "max_steps": 10, "learning_rate": 1.0}),
    )
    rates = []
    for step in (0, 1, 5, 10):
        trainer.step = step
        rates.append(trainer.learning_rate())
    assert rates == pytest.approx([0.5, 0.5 * (1 + np.cos(np.pi / 10)), 0.5, 0.0])


def test_the_log_gives_the_rate_that_the_step_had(tmp_path: Path) -> None:
    cosine = config(train={"schedule": "cosine", "max_steps": 2, "learning_rate": 0.001})
    train(make(tmp_path, cosine), False, None, silent)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["rate"] for line in lines] == [0.001, 0.0005]


def test_the_log_drops_what_is_run_again(tmp_path: Path) -> None:
    book = Logbook(tmp_path, 0)
    for step in (1, 2, 3):
        book.write(step, {"l1": 0.5})
    book.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "l1"')  # killed while writing
    Logbook(tmp_path, 2).close()
    assert [
        json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ] == [1, 2]


def test_a_checkpoint_animates(tmp_path: Path) -> None:
    path = train(make(tmp_path, config(train={"max_steps": 1})), False, None, silent)
    checkpoint = load_checkpoint(path)
    animator = Animator(open_session(checkpoint))
    random = np.random.default_rng(0)
    source, driving = (random.integers(0, 255, (48, 70), dtype=np.uint8) for _ in range(2))
    animator.set_source(source)
    frame = animator.animate(driving)
    assert frame.shape == (SIZE, SIZE)
    assert frame.dtype == np.uint8
    assert animator.read("deformation").shape == (1, SIZE // 4, SIZE // 4, 2)
    # The first frame is its own reference: the source's own pose.
    image = torch.tensor(animator.read("source_image")) / 255
    detected = checkpoint.model().keypoint_detector(image)
    assert np.allclose(animator.read("target_kp_value"), detected.value.detach().numpy(), atol=1e-5)
