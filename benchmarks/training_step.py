"""Our training step against the plainest loop of the same networks.

    python -m sonomime.benchmarks.training_step ours-ptg --size 128 --width 0.25

The plain loop draws its batch, runs the objective in the same precision, goes backward and lets
torch's Adam step; then the discriminator, if there is one. It upsamples before it convolves, and
has torch's own InstanceNorm, l1_loss and average pooling. It has no channels_last, no fused Adam,
no batches prepared ahead, no EMA, no clipping, no check for what is not finite, and does not flush
denormal numbers to zero. Both see the same batches of the same clips, in turns.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.still import SAMPLES
from ..training.config import Config
from ..training.data.batch import Sampler
from ..training.data.clip_frames import ClipFrames, load_clip
from ..training.data.dataset import find_clips
from ..training.data.pairs import PairSampler, prefetched
from ..training.models import image_losses
from ..training.models.families import family_of
from ..training.models.keypoints.motion import Up
from ..training.optimisation import with_steps
from ..training.scale import load_scaled
from ..training.trainer import Trainer


class PlainDiscriminator(image_losses.Discriminator):
    """The same, written as one would at first."""

    def forward(self, image: Tensor) -> image_losses.Judgement:
        x, features = image, []
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if i > 0:
                norm = self.norms[i - 1]
                x = F.instance_norm(x, weight=norm.weight, bias=norm.bias)
            x = F.leaky_relu(x, 0.2)
            x = F.avg_pool2d(x, 2) if i < self.pooled else x
            features.append(x)
        return image_losses.Judgement(self.final(x), tuple(features))


def plain_l1(predicted: Tensor, real: Tensor) -> Tensor:
    """As `image_losses.l1`."""
    return F.l1_loss(predicted.float(), real.float())


def plain_box(image: Tensor) -> Tensor:
    """As `image_losses.box`."""
    return F.avg_pool2d(image, 3, 1, 1)


def plain_loop(trainer: Trainer, draw: Sampler) -> Callable[[int], None]:
    """A step of the plain loop, with copies of the trainer's networks."""
    device, plain = trainer.device, torch.contiguous_format
    model = copy.deepcopy(trainer.model).to(memory_format=plain).train()
    objective = copy.deepcopy(trainer.objective).to(memory_format=plain)
    for module in model.modules():
        if isinstance(module, Up):
            module.quick = False
    judge = copy.deepcopy(trainer.discriminator)
    if judge:
        judge.to(memory_format=plain).__class__ = PlainDiscriminator
    adam = torch.optim.Adam(model.parameters())
    judges_adam = torch.optim.Adam(judge.parameters()) if judge else None

    def step(number: int) -> None:
        batch = draw(number).map(lambda tensor: tensor.to(device))
        plainly = {"l1": plain_l1, "box": plain_box}
        with trainer.autocast(), patch.multiple(image_losses, **plainly):
            result = objective(model, batch, number, judge)
        adam.zero_grad()
        sum(result.losses.values()).backward()
        adam.step()
        if judge and judges_adam:
            judges_adam.zero_grad()
            with trainer.autocast():
                judged = (judge(each.detach()) for each in result.judged)
                loss = image_losses.lsgan_discriminator(*judged)
            loss.backward()
            judges_adam.step()

    return step


def seconds_of(step: Callable[[int], object], begin: int, count: int) -> float:
    """Seconds of a step, the mean over `count` from number `begin` on."""
    start = perf_counter()
    for number in range(begin, begin + count):
        step(number)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (perf_counter() - start) / count


def compare(config: Config, clips: list[ClipFrames], rounds: int, count: int, begin: int) -> str:
    """The line of a preset: seconds of either step, and the ratio of each round."""
    train = config.train
    sampler = PairSampler(
        clips, config.data, train.seed, batch_size=train.batch_size, loss=config.loss
    )
    labels = list(clips[0].clip.keypoint_names)
    with prefetched(sampler.batch) as batch:
        trainer = Trainer(with_steps(config, len(clips))[0], batch, Path(), labels, [])
        plain = plain_loop(trainer, sampler.batch)

        def ours(number: int) -> None:
            trainer.step = number
            trainer.train_step()

        taken: list[tuple[float, float]] = []
        for i in range(rounds + 1):  # the first round prepares every layer
            at = begin + i * count
            turns = [partial(seconds_of, step, at, count) for step in (ours, plain)]
            pair = {}
            for which in (0, 1) if i % 2 else (1, 0):
                torch.set_flush_denormal(which == 0)
                pair[which] = turns[which]()
            taken.append((pair[0], pair[1]))
    torch.set_flush_denormal(False)
    low, *_, high = ratios = sorted(mine / theirs for mine, theirs in taken[1:])
    mine, theirs = (median(each) for each in zip(*taken[1:], strict=True))
    return (
        f"| {config.preset} | {config.model.image_size} | {train.batch_size} | {train.precision} | "
        f"{mine:.3f} | {theirs:.3f} | {median(ratios):.2f} ({low:.2f}-{high:.2f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("preset")
    parser.add_argument("--data", nargs="+", action="extend", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=7, help="at least 2")
    parser.add_argument("--steps", type=int, default=4, help="of either in a round")
    text = "number of the first step; some losses begin later"
    parser.add_argument("--begin", type=int, default=2000, help=text)
    parser.add_argument("--size", type=int, metavar="N", help="as of sonomime train")
    parser.add_argument("--width", type=float, metavar="W", help="as of sonomime train")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    threads, device = torch.get_num_threads(), "GPU" if torch.cuda.is_available() else "CPU"
    print(f"{device}, {threads} threads, {args.rounds} rounds of {args.steps} steps in turns\n")
    print("| preset | pixels | pairs | precision | ours, s | plain, s | ours / plain (range) |")
    print("|" + " --- |" * 7)
    config = load_scaled(args.preset, args.set, args.size, args.width)
    config = family_of(config.model).with_labels(config, [])
    found = find_clips(args.data or [SAMPLES]).clips
    clips = [load_clip(clip, config.model.image_size, config.model.channels) for clip in found]
    print(compare(config, clips, args.rounds, args.steps, args.begin))


if __name__ == "__main__":
    main()
