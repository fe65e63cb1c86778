"""Every stage of every preset, exported and built by TensorRT-RTX, which needs no GPU to build.

    python -m sonomime.benchmarks.engines -o docs/results/engines.md

Untrained weights at full size: what is built, its size and how long it takes do not depend on them.
A stage that cannot be parsed or built ends the run with what the parser said.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from ..export.engine import compile_stage
from ..runtime.engines.tensorrt_packages import load_flavour, rtx_targets
from ..runtime.support.atomic_files import atomic_write_text
from ..runtime.support.progress import progress
from .measure import cpu_name

if TYPE_CHECKING:
    from ..training.models.base import Precision, StageModule

# FOMM's public models are RGB; their geometry is their own.
VARIANTS: dict[str, tuple[str, ...]] = {
    "lite": (),
    "ours-p": (),
    "ours-pt": (),
    "ours-ptg": (),
    "fomm": ("model.geometry=fomm", "model.channels=3"),
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


@dataclass(frozen=True)
class Row:
    """One stage: bytes of its ONNX file and of its engine, seconds of parsing and building."""

    preset: str
    precision: str
    stage: str
    onnx: int
    engine: int
    seconds: float
    layers: int
    precisions: str


def main() -> None:
    """Build all and write the table, or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("presets", nargs="*", default=list(VARIANTS), metavar="PRESET")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.md")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another configuration"
    )
    args = parser.parse_args()
    rows = build_all(args.presets, args.set)
    text = "\n".join(page(rows, _version(), args.set)) + "\n"
    if args.output is None:
        print(text, end="")
    else:
        atomic_write_text(args.output, text)


def build_all(presets: Sequence[str], overrides: Sequence[str] = ()) -> list[Row]:
    """A row per stage of every preset in both precisions.

    Raises:
        BackendError: TensorRT-RTX is not installed, or a stage cannot be parsed or built.
    """
    flavour, trt = load_flavour("rtx")
    targets = rtx_targets(trt)
    rows = []
    work = [(preset, precision) for preset in presets for precision in PRECISIONS]
    for preset, precision in progress(work, label="bundles"):
        for stage in _stages(preset, precision, overrides):
            content = _onnx(stage)
            began = perf_counter()
            made = compile_stage(content, stage.name, flavour, trt, targets)
            seconds = perf_counter() - began
            kinds = ", ".join(f"{kind.layers} {kind.dtype}" for kind in made.precisions)
            rows.append(
                Row(
                    preset, precision, stage.name, len(content), len(made.content), seconds,
                    made.layers, kinds,
                )
            )  # fmt: skip
    return rows


def _stages(preset: str, precision: Precision, overrides: Sequence[str]) -> list[StageModule]:
    import torch

    from ..training.config import load_config
    from ..training.models.keypoints.model import AnimationModel
    from ..training.models.keypoints.stages import build_stages

    torch.manual_seed(0)
    config = load_config(preset, (*VARIANTS.get(preset, ()), *overrides))
    return build_stages(AnimationModel(config.model).eval(), precision)


def _onnx(stage: StageModule) -> bytes:
    from ..export.graphs import export_stage

    return export_stage(stage).SerializeToString(deterministic=True)


def _version() -> str:
    trt = load_flavour("rtx")[1]
    return f"TensorRT-RTX {trt.__version__} for {', '.join(rtx_targets(trt))}"


def page(rows: Sequence[Row], version: str, overrides: Sequence[str] = ()) -> Iterator[str]:
    """The table as Markdown."""
    bundles = len({(row.preset, row.precision) for row in rows})
    yield "# TensorRT-RTX builds without a GPU"
    yield ""
    yield "    python -m sonomime.benchmarks.engines -o docs/results/engines.md"
    yield ""
    yield (
        f"{len(rows)} stages of {bundles} bundles, untrained weights, parsed and built by "
        f"{version}, one after the other on {cpu_name()}, with other work beside them. "
        f"Building took {sum(row.seconds for row in rows):.1f} s in all; the engines have "
        f"{sum(row.engine for row in rows) / 1e6:.0f} MB."
    )
    if overrides:
        yield ""
        yield "Configuration changed: " + ", ".join(overrides)
    yield ""
    yield (
        "Built, and not run: TensorRT-RTX runs on a GPU only. Layers are those of the parsed "
        "network, before fusing, by the type of their first output; bool and integers are sizes "
        "and comparisons."
    )
    yield ""
    yield "| preset | precision | stage | ONNX, MB | engine, MB | seconds | layers |"
    yield "|---|---|---|---:|---:|---:|---|"
    for row in rows:
        yield (
            f"| {row.preset} | {row.precision} | {row.stage} | {row.onnx / 1e6:.2f} | "
            f"{row.engine / 1e6:.2f} | {row.seconds:.2f} | {row.layers}: {row.precisions} |"
        )


if __name__ == "__main__":
    main()
