"""One training step, and everything that a checkpoint must keep."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..runtime.support.dataclass_parser import plain
from ..runtime.support.errors import ConfigError
from ..runtime.support.progress import progress
from .checkpoint import Checkpoint
from .config import Config
from .data.batch import PairBatch, Sampler
from .distributed import ALONE, Processes
from .models import image_losses
from .models.base import StepResult
from .models.families import family_of
from .models.image_losses import Discriminator
from .optimisation import NotFinite, learning_rate, of_the_whole, update
from .probe import Look, look

PROBE = 4  # pairs that are looked at again and again


class Trainer:
    """A model in training.

    Args:
        config: with the run's number of steps (`with_steps`).
        sampler: gives this process's share of the batch of a step.

    Raises:
        ConfigError: labels do not fit the model, the batch cannot be cut, fp16 without a GPU.
    """

    def __init__(
        self,
        config: Config,
        sampler: Sampler,
        run: Path,
        supervised_names: Sequence[str] | Mapping[str, int],
        data: list[dict[str, Any]],
        processes: Processes = ALONE,
    ) -> None:
        self.family = family_of(config.model)
        self.family.check_labels(config.model, supervised_names)
        self.config, self.sampler, self.run = config, sampler, run
        self.supervised_names, self.data = list(supervised_names), data
        self.labels = supervised_names  # with counts, where they are known
        self.processes, self.device = processes, processes.device()
        processes.share(config.train.batch_size, config.train.accumulate)
        fp16 = config.train.precision == "fp16"
        if fp16 and self.device.type != "cuda":
            hint = "--set train.precision=bf16, or fp32"
            raise ConfigError("train.precision=fp16 needs a GPU, and torch finds none", hint)
        torch.manual_seed(config.train.seed)
        model = self.family.model(config.model)
        if processes.count > 1 and self.device.type == "cuda":  # torch has none for a CPU
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        objective = self.family.objective(config)
        self.objective = objective.to(self.device, memory_format=torch.channels_last)
        self.optimizer = self._adam(self.model)
        #: What a checkpoint keeps for resuming, beside the EMA weights.
        self.parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        if fp16:
            self.parts["scaler"] = self.scaler
        self.discriminator: Discriminator | None = None
        if config.loss.adversarial > 0 or config.loss.feature_matching > 0:
            seen = self.family.judged_channels(config.model)
            judge = Discriminator(config.model.discriminator, seen)
            self.discriminator = judge.to(self.device, memory_format=torch.channels_last)
            self.discriminator_optimizer = self._adam(self.discriminator)
            self.parts["discriminator"] = self.discriminator
            self.parts["discriminator_optimizer"] = self.discriminator_optimizer
        self.step, self.saved = 0, -1  # saved: the step that the run's checkpoint holds
        self._probe: PairBatch | None = None
        self.waited = 0.0  # seconds, for batches
        self.forward_seconds: deque[float] = deque(maxlen=9)  # of steps, the batch included

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        train = self.config.train
        betas = (train.beta1, train.beta2)
        return torch.optim.Adam(network.parameters(), train.learning_rate, betas, fused=True)

    def autocast(self) -> torch.autocast:
        """The context of the forward passes: ``train.precision``."""
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        half = dtypes.get(self.config.train.precision)
        return torch.autocast(self.device.type, half, enabled=half is not None)

    def batch(self, step: int) -> PairBatch:
        """This process's share of the batch of a step, on the device."""
        batch = self.sampler(step).map(lambda each: each.to(self.device, non_blocking=True))
        if step == 0:
            self._probe = batch.map(lambda tensor: tensor[:PROBE])
        return batch

    def train_step(self) -> StepResult:
        """Draw the batch of this step and update every network once.

        Raises:
            NotFinite: a loss or a gradient is not finite; no network was updated with it.
        """
        train = self.config.train
        self.model.train()
        for norm in _norms(self.model):
            norm.train(train.batchnorm != "frozen")
        start = time.monotonic()
        parts = self.batch(self.step).parts(train.accumulate)
        waited = time.monotonic() - start
        self.waited += waited
        self.forward_seconds.append(waited)
        results: list[StepResult] = []
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        self._update(self.optimizer, self._forward(parts, results), self.model.networks())
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            losses = self._judge(results)
            self._update(self.discriminator_optimizer, losses, [self.discriminator])
        self._average()
        self.step += 1
        return _mean(results)

    def _forward(
        self, parts: list[PairBatch], results: list[StepResult]
    ) -> Iterator[dict[str, Tensor]]:
        """The losses of the batch's parts, each made when asked for; `results` takes the rest."""
        cut = self.config.train.accumulate * self.processes.count > 1
        totals = [self.objective.totals(part, self.step) if cut else {} for part in parts]
        for part, factors in zip(parts, of_the_whole(totals, self.processes), strict=True):
            start = time.monotonic()
            with self.autocast():
                result: StepResult = self.objective(self.model, part, self.step, self.discriminator)
            self.forward_seconds[-1] += time.monotonic() - start
            for name in factors.keys() & result.losses.keys():
                result.losses[name] = factors[name] * result.losses[name]
            results.append(result)
            yield result.losses

    def _judge(self, results: list[StepResult]) -> Iterator[dict[str, Tensor]]:
        """The same of the discriminator."""
        for result in results:
            with self.autocast():
                judged = (self.discriminator(each.detach()) for each in result.judged)
                loss = image_losses.lsgan_discriminator(*judged)
            result.losses["discriminator"] = loss
            yield {"discriminator": loss}

    def _update(
        self,
        optimizer: torch.optim.Optimizer,
        losses: Iterator[dict[str, Tensor]],
        networks: list[nn.Module],
    ) -> None:
        """Let an optimizer step with this step's rate and the losses of the batch's parts."""
        train = self.config.train
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, self.step)
        scaler, clip = self.scaler, train.grad_clip
        parts, step = train.accumulate, self.step
        update(optimizer, losses, parts, networks, clip, scaler, self.processes, step)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the EMA of weights and BatchNorm's statistics; faster at first, to forget the start.
        (torch's AveragedModel copies at its first update, and prefixes every weight's name.)"""
        # Each process's BatchNorm saw its own pairs.
        self.processes.average(_statistics(self.model))
        decay = min(self.config.train.ema, (1 + self.step) / (10 + self.step))
        ours, theirs = self.ema.state_dict(), self.model.state_dict()
        floating = [k for k in ours if ours[k].is_floating_point()]
        torch._foreach_lerp_([ours[k] for k in floating], [theirs[k] for k in floating], 1 - decay)

    def batches_to_estimate(self) -> int:
        """How many batches :meth:`estimate_batchnorm` wants; 0 where there is nothing to do."""
        train = self.config.train
        return train.batchnorm_batches if train.batchnorm == "batch" and _norms(self.ema) else 0

    def seconds_to_estimate(self) -> float:
        """How long that will take, by the forward passes of the last steps; 0 before the first."""
        return self.batches_to_estimate() * median(self.forward_seconds or [0.0])

    @torch.no_grad()
    def estimate_batchnorm(self, deadline: float = math.inf) -> int:
        """Re-estimate BatchNorm's statistics for the EMA weights; how many batches were seen: at
        least one, even after the deadline (of time.monotonic())."""
        if (count := self.batches_to_estimate()) == 0:
            return 0
        for norm in _norms(self.ema):
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
        self.ema.train()
        steps = range(self.step, self.step + count)
        first = self.processes.first
        for step in progress(steps, label="estimating BatchNorm") if first else steps:
            for part in self.batch(step).parts(self.config.train.accumulate):
                with self.autocast():
                    self.objective.run(self.ema, part, step)
            if self.processes.largest(time.monotonic() >= deadline):
                break
        self.processes.average(_statistics(self.ema))
        self.ema.eval()
        return step + 1 - self.step

    def save(self, path: Path) -> None:
        """Write the whole state, if this is the first process; ``weights`` are the EMA weights.

        Raises:
            NotFinite: a number in it is not; what the file held before stays.
            OutputError: as `Checkpoint.save`.
        """
        if not self.processes.first:
            self.saved = self.step
            return
        resume = {name: part.state_dict() for name, part in self.parts.items()}
        weights, names = self.ema.state_dict(), self.supervised_names
        for part, state in {"EMA weights": weights, **resume}.items():
            if (name := _not_finite(state)) is not None:
                fault = f"{part}: {name} is not finite at step {self.step}, so it is not saved"
                raise NotFinite(fault)
        Checkpoint(self.config, self.step, weights, names, self.data, resume).save(path)
        self.saved = self.step

    @torch.no_grad()
    def look(self) -> Look:
        """What the EMA model makes of the probe: the first pairs of the run, always the same, so
        that looks can be compared."""
        probe = self._probe or self.batch(0).map(lambda tensor: tensor[:PROBE])
        self.ema.eval()
        return look(self.family.columns(self.ema, probe), self.config.model.geometry)

    def facts(self) -> dict[str, Any]:
        """What is trained, for run.json: plain JSON types. Of the data no names of subjects."""
        cuda = self.device.type == "cuda"
        count = torch.get_num_threads()
        threads = f"CPU, {count} thread{'s' if count > 1 else ''}"
        data = [
            {
                "name": each["name"],
                "clips": sum(map(len, each.get("clips", {}).values())),
                "subjects": len(each.get("clips", {})),
            }
            for each in self.data
        ]
        return {
            "sonomime": __version__,
            "device": torch.cuda.get_device_name() if cuda else threads,
            "weights": sum(p.numel() for p in self.model.parameters()),
            "labels": self.supervised_names,
            "data": data,
            "config": plain(self.config),
        }


def _mean(parts: list[StepResult]) -> StepResult:
    """The result of a batch, from those of its parts. A loss that a part lacks counts as zero, the
    prediction is the last part's."""
    whole, count = parts[-1], len(parts)
    names = dict.fromkeys(name for part in parts for name in part.losses)
    held = {name: [p.losses[name].detach() for p in parts if name in p.losses] for name in names}
    whole.losses = {name: torch.stack(each).sum() / count for name, each in held.items()}
    whole.l1 = sum(part.l1 for part in parts) / count
    whole.hold = sum(part.hold for part in parts) / count
    return whole


def _norms(model: nn.Module) -> list[nn.Module]:
    kinds = nn.BatchNorm2d | nn.SyncBatchNorm
    return [m for m in model.modules() if isinstance(m, kinds)]


def _statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances of BatchNorm."""
    return [t for norm in _norms(model) for t in (norm.running_mean, norm.running_var)]


def _not_finite(state: Any) -> str | None:
    """Where in a state of nested dicts and lists a tensor has a number that is not finite."""
    if isinstance(state, Tensor):
        return None if torch.isfinite(state).all() else ""
    for key, value in state.items() if isinstance(state, dict) else enumerate(state):
        if isinstance(value, dict | list | Tensor) and (below := _not_finite(value)) is not None:
            return f"{key}.{below}".rstrip(".")
    return None
