"""The training loop: read it from top to bottom."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import CheckpointError, ConfigError
from . import losses
from .checkpoint import Checkpoint
from .config import Config, config_to_dict
from .logbook import picture_grid
from .models.animator import AnimationModel, build_model
from .models.dense_motion import Motion
from .models.discriminator import Discriminator, Judgement
from .models.generator import Prediction
from .models.keypoint_detector import Keypoints
from .pairs import PairBatch
from .perceptual import FeatureNetwork
from .thin_plate import random_thin_plate_spline

Sampler = Callable[[int], PairBatch]  # a pure function of the step, so that resuming is exact


@dataclass
class StepResult:
    """One forward pass: weighted losses, and what the pictures show."""

    losses: dict[str, Tensor]
    prediction: Prediction
    motion: Motion
    source: Keypoints
    driving: Keypoints
    l1: float  # mean abs error of the prediction
    hold: float  # the same of the source itself: what standing still would cost


class Objective(nn.Module):
    """All losses of a configuration, weighted (METHOD, "Losses")."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        weights, model = config.loss, config.model
        self.pyramid = losses.Pyramid(model.channels, max(4, weights.perceptual_scales), model.geometry)
        self.features: FeatureNetwork | None = None
        if weights.perceptual > 0 and weights.perceptual_network != "none":
            self.features = FeatureNetwork(weights.perceptual_network, weights.perceptual_weights)

    def flow_weight(self, step: int) -> float:
        """The flow loss leads at first and has decayed to 0 at ``flow_until``."""
        w = self.config.loss
        return w.flow * max(0.0, 1 - step / w.flow_until) if w.flow_until > 0 else w.flow

    def forward(
        self, model: AnimationModel, batch: PairBatch, step: int, discriminator: Discriminator | None
    ) -> StepResult:
        """Weighted generator-side losses of one batch; images (B, C, S, S)."""
        w, geometry = self.config.loss, self.config.model.geometry
        size = batch.driving.shape[0]
        generator = torch.Generator().manual_seed(self.config.train.seed * 1_000_003 + step)
        spline = random_thin_plate_spline(size, generator)
        spline = type(spline)(*(t.to(batch.driving.device) for t in vars(spline).values()))
        transformed_image = spline.warp(batch.driving, geometry)

        # One batch of all three kinds: BatchNorm sees them alike.
        found = model.keypoint_detector(torch.cat([batch.source, batch.driving, transformed_image]))
        source, driving, transformed = (
            Keypoints(v, j) for v, j in zip(found.value.split(size), found.jacobian.split(size), strict=True)
        )
        prediction, motion = model.animate(model.encode(batch.source, source), driving)

        result: dict[str, Tensor] = {}
        held = model.config.keypoints.self_supervised if w.equivariance_on == "self_supervised" else None
        a, b = (Keypoints(k.value[:, :held], k.jacobian[:, :held]) for k in (driving, transformed))
        result["equivariance_value"] = w.equivariance_value * losses.equivariance_value(a, b, spline)
        result["equivariance_jacobian"] = w.equivariance_jacobian * losses.equivariance_jacobian(a, b, spline)
        if w.separation > 0:
            result["separation"] = w.separation * losses.separation(found.value)
        labels = batch.driving_points.shape[1]
        if labels and w.supervision > 0:
            result["supervision"] = w.supervision * losses.keypoint_supervision(
                torch.cat([source.value[:, -labels:], driving.value[:, -labels:]]),
                torch.cat([batch.source_points, batch.driving_points]),
                torch.cat([batch.source_visible, batch.driving_visible]),
                self.config.model.image_size // 4, w.supervision_variance, geometry,
            )
        real = self.pyramid(batch.driving)
        image = self.pyramid(prediction.image)
        if w.content > 0:
            content = self.pyramid(prediction.content)
            result["content"] = w.content * losses.pyramid_l1(content[:4], real[:4])
        if w.reconstruction > 0:
            result["reconstruction"] = w.reconstruction * losses.pyramid_l1(image[:4], real[:4])
        if self.features is not None:
            n = w.perceptual_scales
            result["perceptual"] = w.perceptual * losses.perceptual(self.features, image[:n], real[:n])
        if w.sharpness > 0:
            result["sharpness"] = w.sharpness * losses.sharpness(prediction.image, batch.driving)
        if batch.flow is not None and self.flow_weight(step) > 0:
            known = losses.flow(motion.deformation, batch.flow, batch.flow_valid)
            result["flow"] = self.flow_weight(step) * known
        if discriminator is not None:
            fake, truth = discriminator(prediction.image), judge_frozen(discriminator, batch.driving)
            result["adversarial"] = w.adversarial * losses.lsgan_generator(fake)
            result["feature_matching"] = w.feature_matching * losses.feature_matching(fake, truth)
        l1 = (prediction.image.detach() - batch.driving).abs().mean().item()
        hold = (batch.source - batch.driving).abs().mean().item()
        return StepResult(result, prediction, motion, source, driving, l1, hold)


def judge_frozen(discriminator: Discriminator, image: Tensor) -> Judgement:
    """The discriminator's view of a real image, without gradients."""
    with torch.no_grad():
        judgement: Judgement = discriminator(image)
    return judgement


class Trainer:
    """A model in training and everything that a checkpoint must keep."""

    def __init__(self, config: Config, sampler: Sampler, run: Path, supervised_names: list[str],
                 data: list[dict[str, str]]) -> None:
        if supervised_names and len(supervised_names) != config.model.keypoints.supervised:
            raise ConfigError(
                f"the data labels {len(supervised_names)} keypoints ({', '.join(supervised_names)}), the model has "
                f"{config.model.keypoints.supervised} supervised ones",
                f"--set model.keypoints.supervised={len(supervised_names)}",
            )
        self.config, self.sampler, self.run = config, sampler, run
        self.supervised_names, self.data = supervised_names, data
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.train.seed)
        train = config.train
        self.model = build_model(config.model).to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.objective = Objective(config).to(self.device)
        betas = (train.beta1, train.beta2)
        self.optimizer = torch.optim.Adam(self.model.parameters(), train.learning_rate, betas)
        self.discriminator: Discriminator | None = None
        if config.loss.adversarial > 0 or config.loss.feature_matching > 0:
            self.discriminator = Discriminator(config.model.discriminator, config.model.channels).to(self.device)
            self.discriminator_optimizer = torch.optim.Adam(
                self.discriminator.parameters(), train.learning_rate, betas
            )
        self.step = 0

    # -- one step ---------------------------------------------------------------------------------------------------

    def learning_rate(self) -> float:
        """The rate of the current step: linear warm-up, then constant or a cosine to 0 at ``max_steps``."""
        train = self.config.train
        rate = train.learning_rate * min(1.0, (self.step + 1) / max(1, train.warmup))
        if train.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / train.max_steps)))
        return rate

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16")

    def batch(self, step: int) -> PairBatch:
        return PairBatch(*(t.to(self.device) if isinstance(t, Tensor) else t for t in self.sampler(step)))

    def train_step(self) -> StepResult:
        """Draw the batch of this step and update every network once."""
        self.model.train()
        batch, rate = self.batch(self.step), self.learning_rate()
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        with self.autocast():
            result: StepResult = self.objective(self.model, batch, self.step, self.discriminator)
        total = torch.stack(list(result.losses.values())).sum()
        self.update(self.optimizer, rate, total, self.model.networks())
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            with self.autocast():
                fake = self.discriminator(result.prediction.image.detach())
                loss = losses.lsgan_discriminator(self.discriminator(batch.driving), fake)
            self.update(self.discriminator_optimizer, rate, loss, [self.discriminator])
            result.losses["discriminator"] = loss
        self.follow()
        self.step += 1
        return result

    def update(self, optimizer: torch.optim.Optimizer, rate: float, loss: Tensor, networks: list[nn.Module]) -> None:
        """Backward, clip each network's gradient by its largest element, step."""
        if not torch.isfinite(loss):
            raise CheckpointError(
                f"the loss became {loss.item()} at step {self.step}",
                "resume from the last checkpoint with a smaller train.learning_rate",
            )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for network in networks:
            nn.utils.clip_grad_norm_(network.parameters(), self.config.train.grad_clip, norm_type=math.inf)
        optimizer.step()

    @torch.no_grad()
    def follow(self) -> None:
        """EMA of weights and of BatchNorm's statistics; shorter at first, so that the start is forgotten."""
        decay = min(self.config.train.ema, (1 + self.step) / (10 + self.step))
        ours, theirs = self.ema.state_dict(), self.model.state_dict()
        floating = [k for k in ours if ours[k].is_floating_point()]
        torch._foreach_lerp_([ours[k] for k in floating], [theirs[k] for k in floating], 1 - decay)

    @torch.no_grad()
    def estimate_batchnorm(self) -> None:
        """Re-estimate BatchNorm's statistics for the EMA weights on batches of the data."""
        norms = [m for m in self.ema.modules() if isinstance(m, nn.BatchNorm2d)]
        count = self.config.train.batchnorm_batches
        if not norms or count < 1:
            return
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
        self.ema.train()
        for i in range(count):
            with self.autocast():
                self.objective(self.ema, self.batch(self.step + i), self.step, None)
        self.ema.eval()
        for norm in norms:
            norm.momentum = 0.1

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the whole state; ``weights`` are the EMA weights with re-estimated BatchNorm."""
        self.estimate_batchnorm()
        resume: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.discriminator is not None:
            resume["discriminator"] = self.discriminator.state_dict()
            resume["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        Checkpoint(
            self.config, self.step, self.ema.state_dict(), self.supervised_names, self.data, resume
        ).save(path)

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on where ``checkpoint`` stopped: same batches, same numbers."""
        differing = _differing(config_to_dict(checkpoint.config), config_to_dict(self.config))
        if differing:
            raise ConfigError(
                f"cannot resume: {', '.join(differing)} differ(s) from the checkpoint's",
                "resume with the same preset and --set values (train.max_steps and train.*_every may change)",
            )
        if not checkpoint.resume:
            raise CheckpointError("this checkpoint holds weights only", "it can be exported, not resumed")
        self.step = checkpoint.step
        self.ema.load_state_dict(checkpoint.weights)
        self.model.load_state_dict(checkpoint.resume["model"])
        self.optimizer.load_state_dict(checkpoint.resume["optimizer"])
        if self.discriminator is not None:
            self.discriminator.load_state_dict(checkpoint.resume["discriminator"])
            self.discriminator_optimizer.load_state_dict(checkpoint.resume["discriminator_optimizer"])

    @torch.no_grad()
    def picture(self, step: int, samples: int = 4) -> Any:
        """Picture grid of the EMA model on the batch of ``step``."""
        self.ema.eval()
        batch = PairBatch(*(t[:samples] if isinstance(t, Tensor) else t for t in self.batch(step)))
        source = self.ema.encode(batch.source)
        driving = self.ema.keypoint_detector(batch.driving)
        prediction, motion = self.ema.animate(source, driving)
        columns = {
            "source": batch.source, "driving": batch.driving, "deformation": motion.deformation,
            "occlusion": motion.occlusion_map, "content": prediction.content, "texture": prediction.texture,
            "prediction": prediction.image,
        }
        points = {"source": source.keypoints.value, "driving": driving.value}
        return picture_grid(
            {k: v.float().cpu().numpy() for k, v in columns.items()}, {k: v.cpu().numpy() for k, v in points.items()}
        )


#: Settings that a resumed run may change: they do not touch what a step computes (max_steps only under a constant rate).
FREE_ON_RESUME = ("train.max_steps", "train.log_every", "train.picture_every", "train.checkpoint_every")


def _differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [d for k in old.keys() | new.keys() for d in _differing(old.get(k), new.get(k), f"{prefix}{k}.")]
    name = prefix.rstrip(".")
    return [] if old == new or name in FREE_ON_RESUME else [name]
