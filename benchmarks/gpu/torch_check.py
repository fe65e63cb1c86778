"""A model's chain in torch, in every way that the device allows: right, and how fast."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Self

import torch

from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.manifest import Motion
from ...runtime.media.pixels import levels_apart, psnr, to_image, to_planes
from ...runtime.session import Session
from ...runtime.support.progress import progress
from ...training.models.base import Model, ModuleChain, Precision
from ...training.models.families import family_of
from ...training.torch_backend import TorchBackend
from .child import Message
from .clock import median_seconds
from .graph_nodes import count_launches
from .kernels import Kernels
from .png_reader import read_png
from .rows import Row, said, spoils, table, timed
from .stage_chain import DeviceChain, Image, plain_loop

LEAST_PSNR = {"fp32": 60.0, "fp16": 45.0}
"""dB to the model in float32 on the CPU. TF32 is held to fp16's."""


@dataclass(frozen=True)
class Variant:
    """A way to compute the frame."""

    precision: Precision
    graph: bool = False
    compiled: bool = False
    channels_last: bool = False
    kernels: bool = False
    tf32: bool = False
    plain: bool = False  # the loop that stages are commonly chained by, see `plain_loop`

    @property
    def name(self) -> str:
        if self.plain:
            return f"plain loop, {self.precision}"
        words = ["compiled" if self.compiled else "eager", self.precision]
        words += ["TF32"] if self.tf32 else []
        words += ["channels last"] if self.channels_last else []
        words += ["our kernels"] if self.kernels else []
        words += ["CUDA graph"] if self.graph else []
        return ", ".join(words)


def variants(gpu: bool, compiled: bool = True, kernels: bool = True) -> list[Variant]:
    """What is worth running on this device, what matters most first: time may run out. The compiled
    ones take minutes and come last."""
    if not gpu:
        found = [Variant("fp32"), Variant("fp32", kernels=True), Variant("fp32", plain=True)]
    else:
        found = [
            Variant("fp16", graph=True, channels_last=True, kernels=True),
            Variant("fp16", graph=True, kernels=True),
            Variant("fp32", graph=True, kernels=True),
            Variant("fp16", plain=True),
            Variant("fp32", plain=True),
            Variant("fp16", graph=True),
            Variant("fp32", graph=True),
            Variant("fp16"),
            Variant("fp32"),
            Variant("fp16", graph=True, channels_last=True),
            Variant("fp32", graph=True, tf32=True),
            Variant("fp16", compiled=True, graph=True),
            Variant("fp16", compiled=True, graph=True, channels_last=True),
            Variant("fp32", compiled=True, graph=True),
        ]
    return [v for v in found if (compiled or not v.compiled) and (kernels or not v.kernels)]


@dataclass(frozen=True)
class Pictures:
    """Source, reference and driving frames at the model's size; `golden` is what motion makes of
    the first driving frame, where that is known."""

    source: Image
    reference: Image
    driving: tuple[Image, ...]
    golden: Image | None = None
    motion: Motion = "relative"

    @classmethod
    def of_bundle(cls, bundle: Bundle, known: bool = False) -> Self:
        """The golden ones. `known`: the model is the one that made the golden frame."""
        golden = bundle.manifest.golden
        files = golden.source, golden.reference, golden.driving, golden.output
        source, reference, driving, made = (read_png(bundle.folder / each.file) for each in files)
        shots = (driving, source, driving)
        return cls(source, reference, shots, made if known else None, golden.motion)

    def begin(self, chain: ModuleChain, backend: TorchBackend) -> Session:
        """A session with source and reference."""
        session = Session(chain, backend)
        if session.has_control("relative"):
            session.set_control("relative", float(self.motion == "relative"))
        session.set_source(to_planes(self.source))
        session.set_reference(to_planes(self.reference))
        return session


def expected_frames(model: Model, pictures: Pictures) -> list[Image]:
    """The frames by float32 on the CPU, which all else is held against."""
    chain = family_of(model.config).chain(model)
    session = pictures.begin(chain, TorchBackend(chain))
    return [animate(session, frame) for frame in pictures.driving]


def animate(session: Session, frame: Image) -> Image:
    """One frame from host memory to host memory."""
    return to_image(session.animate(to_planes(frame)))


def time_frames(session: Session, frames: Sequence[Image], count: int) -> list[float]:
    """Seconds of `count` frames, each from host memory to host memory."""
    seconds = []
    for i in range(count):
        began = perf_counter()
        animate(session, frames[i % len(frames)])
        seconds.append(perf_counter() - began)
    return seconds


def check_variant(
    model: Model,
    variant: Variant,
    device: torch.device,
    pictures: Pictures,
    expected: Sequence[Image],
    kernels: Kernels | None,
    count: int,
) -> Row:
    """One variant: cold, right, warm. A variant that does not run says why and stops nothing."""
    row: Row = {"variant": variant.name}
    try:
        with _cudnn(variant):
            return row | _checked(model, variant, device, pictures, expected, kernels, count)
    except Exception as error:  # torch's, CUDA's, the compiler's: the next variant may run
        return row | {"failed": said(error)}


@contextmanager
def _cudnn(variant: Variant) -> Iterator[None]:
    """cuDNN's settings, the same for the plain loop as for what is held against it."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    # TF32 would be quicker and no float32; the choice among cuDNN's kernels is part of cold.
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = variant.tf32, True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


def _checked(
    model: Model,
    variant: Variant,
    device: torch.device,
    pictures: Pictures,
    expected: Sequence[Image],
    kernels: Kernels | None,
    count: int,
) -> Row:
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    began = perf_counter()
    if variant.compiled:
        # What others compiled counts towards torch's limit, beyond which it computes eagerly.
        torch.compiler.reset()
    stages = family_of(model.config).chain(model, variant.precision)
    kernels = kernels if variant.kernels else None
    chain = DeviceChain(stages, device, variant.compiled, variant.channels_last, kernels)
    session = pictures.begin(stages, chain)
    if variant.plain:
        loop = partial(plain_loop, chain, pictures.source, pictures.driving)
        return timed(loop, max(3, count // 3), gpu)
    if variant.graph:
        chain.capture()
        session.restart()
    frames = [animate(session, pictures.driving[0])]
    row: Row = {"cold_ms": 1e3 * (perf_counter() - began)}
    frames += [animate(session, frame) for frame in pictures.driving[1:]]
    row |= _agreement(frames, expected)
    least = LEAST_PSNR["fp16" if variant.tf32 else variant.precision]
    row["finite"] = chain.finite()
    row["agrees"] = row["finite"] and row["psnr_db"] >= least
    if pictures.golden is not None:
        row["golden"] = _agreement(frames[:1], [pictures.golden])
        row["agrees"] &= row["golden"]["psnr_db"] >= LEAST_PSNR["fp16"]
    spans = chain.time_stages(max(3, count // 10)) if not variant.graph else {}
    row |= timed(partial(time_frames, session, pictures.driving), count, gpu)
    row["stages_ms"] = {name: 1e3 * median(values) for name, values in spans.items()}
    if gpu:
        row["device_ms"] = 1e3 * median_seconds(chain.enqueue, device, max(3, count // 4))
        row["memory_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
        row["launches"] = count_launches(chain, variant.graph)
    return row


def _agreement(frames: Sequence[Image], expected: Sequence[Image]) -> Row:
    pairs = list(zip(frames, expected, strict=True))
    decibels = min(psnr(*pair) for pair in pairs)
    # JSON has no infinity; equal frames are as good as one level in one pixel of a large picture.
    return {
        "levels_apart": max(levels_apart(*pair) for pair in pairs),
        "psnr_db": min(decibels, 120.0),
    }


def check_model(
    model: Model,
    device: torch.device,
    pictures: Pictures,
    kernels: Kernels | None,
    count: int,
    todo: Sequence[Variant],
) -> Iterator[Message]:
    """The variants' rows, each told when it begins and when it is there; on a GPU none after one
    that spoils this process."""
    if not todo:
        return
    expected = expected_frames(model, pictures)
    gpu = device.type == "cuda"
    if gpu:
        _wake(device)
    for variant in progress(todo, label="ways"):
        yield {"begin": variant.name}
        row = check_variant(model, variant, device, pictures, expected, kernels, count)
        yield {"row": row}
        if device.type == "cuda":
            if spoils(row):
                return
            gc.collect()
            torch.cuda.empty_cache()


def _wake(device: torch.device) -> None:
    """Start CUDA and cuDNN, or the first way would count them among its own cold milliseconds."""
    ones = torch.ones(1, 8, 8, 8, device=device)
    torch.nn.functional.conv2d(ones, ones)
    torch.cuda.synchronize(device)


def torch_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The rows for a person, each beside the plain loop of its precision."""
    plain = {
        row["variant"].rpartition(" ")[2]: row["frame_ms"]["p50"]
        for row in rows
        if row["variant"].startswith("plain loop") and "frame_ms" in row
    }

    def beside(row: Row) -> Row:
        slow = plain.get(next((p for p in plain if f" {p}" in row["variant"]), ""))
        return {"gain": slow / row["frame_ms"]["p50"]} if slow and "frame_ms" in row else {}

    columns = {
        "p50 ms": ("8.2f", "frame_ms.p50"),
        "p99": ("8.2f", "frame_ms.p99"),
        "device": ("8.2f", "device_ms"),
        "cold": ("9.0f", "cold_ms"),
        "dB": ("7.1f", "psnr_db"),
        "kernels": ("9.0f", "launches.kernels"),
        "plain/this": ("12.1f", "gain"),
    }
    return table([row | beside(row) for row in rows], "variant", "way", 52, columns)
