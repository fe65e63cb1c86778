"""`sonomime bench --backend torch`: the bundle's model in torch, the ways its device allows.

On a GPU eager, compiled and as a CUDA graph, with the kernels of the plugin where nvcc is there; on
a CPU eager alone. A bundle holds no weights that torch could load: a checkpoint gives them, else
the model is untrained, which changes no time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from ..runtime.bundle.bundle import Bundle
from ..runtime.support.errors import BackendError, ConfigError
from ..training.checkpoint import load_checkpoint
from ..training.config import load_config
from .gpu import torch_check
from .gpu.kernels import Kernels
from .lively import lively_model


def measure_torch(
    bundle: Bundle, checkpoint: Path | None, frames: int, threads: int
) -> dict[str, Any]:
    """A row per way, as plain data.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ConfigError: no checkpoint, and no preset of the bundle's name.
    """
    torch.set_num_threads(threads)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
    model, weights = _model(bundle, checkpoint)
    report: dict[str, Any] = {
        "device": (torch.cuda.get_device_name() if gpu else "CPU") + f", torch {torch.__version__}",
        "backend": "torch",
        "weights": weights,
    }
    kernels = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            kernels = Kernels.build("cuda", Path(folder)) if gpu else None
        except BackendError as error:
            report["kernels"] = {"absent": error.message}
        todo = torch_check.variants(gpu, kernels=kernels is not None)
        pictures = torch_check.Pictures.of_bundle(bundle)
        messages = torch_check.check_model(model, device, pictures, kernels, frames, todo)
        rows = report["ways"] = [message["row"] for message in messages if "row" in message]
    rows += [
        {"variant": way.name, "left_out": "the way before has failed and may spoil this process"}
        for way in todo[len(rows) :]
    ]
    return report


def _model(bundle: Bundle, checkpoint: Path | None) -> tuple[Any, str]:
    """The model and, in words, whose weights it has."""
    if checkpoint is not None:
        return load_checkpoint(checkpoint).model(), f"weights of {checkpoint.name}"
    manifest = bundle.manifest
    overrides = (
        f"model.image_size={manifest.image.size}",
        f"model.channels={manifest.image.channels}",
        f"model.geometry={manifest.geometry}",
    )
    try:
        config = load_config(manifest.preset, overrides)
    except ConfigError as error:
        raise ConfigError(
            f"bundle {manifest.name!r} does not say how its model is built: {error.message}",
            "give its checkpoint: --torch CHECKPOINT",
        ) from error
    return lively_model(config), f"untrained weights of preset {manifest.preset}"
