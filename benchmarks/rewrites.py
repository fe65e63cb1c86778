"""What export's rewrites gain: each per-frame stage as torch exports the model's own forward, and
as a bundle has it.

    python -m sonomime.benchmarks.rewrites lite --threads 2

Untrained weights; both run in turn, in one process. `wall` is the median of the time that passed,
`cpu` the least time that the calling thread computed, which other programs disturb less (compare it
at --threads 1).
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..training.config import ModelConfig, load_config

WARM_UP = 3


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("preset", nargs="?", default="lite", help="preset or TOML file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = measure(load_config(args.preset).model, args.threads, args.repeats)
    if args.json:
        print(json.dumps(rows))
        return
    print(f"{args.preset}, {args.threads} threads, ms of {args.repeats} frames")
    for row in rows:
        print(
            f"{row['stage']:10} wall {row['wall_before']:7.2f} -> {row['wall_after']:7.2f}"
            f"   cpu {row['cpu_before']:7.2f} -> {row['cpu_after']:7.2f}"
        )


def measure(
    config: ModelConfig,
    threads: int,
    repeats: int,
    stages: Sequence[str] = ("keypoints", "transfer", "motion", "generator"),
) -> list[dict[str, Any]]:
    """One row per stage, milliseconds."""
    import torch

    from ..export.graphs import export_stage
    from ..training.models.base import StageModule
    from ..training.models.keypoints.model import AnimationModel
    from ..training.models.keypoints.stages import build_stages

    torch.manual_seed(0)
    model = AnimationModel(config).eval()
    rows = []
    for stage in build_stages(model):
        if stage.name not in stages:
            continue
        module = _own_forward(copy.deepcopy(model), stage.name)
        plain = StageModule(
            stage.name, stage.role, stage.inputs, stage.outputs, module or stage.module
        )
        sessions = [_session(export_stage(one), threads) for one in (plain, stage)]
        feed = {tensor.name: _example(tensor) for tensor in stage.inputs}
        wall: list[list[float]] = [[], []]
        cpu: list[list[float]] = [[], []]
        for i in range(repeats + WARM_UP):
            for which, session in enumerate(sessions):
                began, worked = time.perf_counter(), time.thread_time()
                session.run(None, feed)
                if i >= WARM_UP:
                    cpu[which].append(time.thread_time() - worked)
                    wall[which].append(time.perf_counter() - began)
        rows.append(
            {
                "stage": stage.name,
                **{
                    f"{kind}_{when}": 1e3 * float(summary(times))
                    for kind, pair, summary in (("wall", wall, np.median), ("cpu", cpu, np.min))
                    for when, times in zip(("before", "after"), pair, strict=True)
                },
            }
        )
    return rows


def _own_forward(model: Any, stage: str) -> Any:
    """A stage that is the model's own forward and nothing more; None where there is no such."""
    from torch import Tensor, nn

    from ..training.models.keypoints.dense_motion import Motion
    from ..training.models.keypoints.keypoint_detector import Keypoints
    from ..training.models.keypoints.stages import as_frame, normalised

    class Keypoint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detector = model.keypoint_detector

        def forward(self, driving_frame: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.detector(normalised(driving_frame)))

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.motion = model.dense_motion

        def forward(self, small: Tensor, *points: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.motion(small, Keypoints(*points[:2]), Keypoints(*points[2:])))

    class Generate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = model.generator

        def forward(self, *tensors: Tensor) -> Tensor:
            *features, deformation, occlusion_map = tensors
            motion = Motion(deformation, occlusion_map)
            return as_frame(self.generator.decode(tuple(features), motion).image)

    kinds = {"keypoints": Keypoint, "motion": Dense, "generator": Generate}
    return kinds[stage]().eval() if stage in kinds else None


def _session(graph: Any, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    content = graph.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _example(tensor: Any) -> Any:
    rng = np.random.default_rng(0)
    if tensor.dtype == "uint8":
        return rng.integers(0, 256, tensor.shape, dtype=np.uint8)
    if tensor.name.endswith("jacobian"):
        return np.broadcast_to(np.eye(2, dtype=np.float32), tensor.shape).copy()
    return rng.uniform(-0.9, 0.9, tensor.shape).astype(tensor.dtype)


if __name__ == "__main__":
    main()
