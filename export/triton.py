"""A model repository for NVIDIA's Triton Inference Server: one stateful model that animates.

Its logic is triton_model.py, which the server's Python backend runs; here its folder is written.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..runtime.backends import resolve_backend, resolve_threads
from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.manifest import MANIFEST
from ..runtime.support.atomic_files import atomic_folder
from ..runtime.support.errors import ConfigError
from .triton_stages import write_stages

NAME = "sonomime"
"""The model's name, and the folder's."""

INPUTS = {
    "source": ("TYPE_UINT8", 3, "the still, with the first request and whenever it changes"),
    "reference": ("TYPE_UINT8", 3, "the driving frame of the same pose; else the first one is"),
    "driving": ("TYPE_UINT8", 3, "the driving frame; without it no frame is made"),
    "timestamp": ("TYPE_FP64", 1, "the driving frame's time in seconds; else 1/30 s later"),
}
"""All optional: type, number of axes, meaning. Pictures are [height, width, 1 or 3]."""
OUTPUTS = {
    "frame": ("TYPE_UINT8", 3, "the synthesized frame, as large as the source"),
    "state": ("TYPE_STRING", 1, "live, doubtful, or no frame"),
    "why": ("TYPE_STRING", 1, "why it is doubtful"),
    "confidence": ("TYPE_FP32", 1, "0 to 1; NaN if the model does not say"),
    "texts": ("TYPE_STRING", 1, "JSON: that the frame is synthetic, for a file's metadata"),
}


@dataclass(frozen=True)
class Settings:
    """What is written. `backend` and `threads`: as for `Animator.open`; `sequences`: most at the
    same time; `idle`: seconds after which the server gives a silent sequence up; `size`: of frames,
    as for `Animator.compose`; `stages`: also what triton_stages.py is about."""

    backend: str = "auto"
    threads: int | None = None
    sequences: int = 8
    idle: float = 60.0
    size: Literal["source", "model"] = "source"
    mark: bool = True
    stages: bool = False

    def check(self) -> None:
        """ConfigError if a value is out of its range."""
        if not 1 <= self.sequences <= 1024:
            raise ConfigError(f"--sequences is {self.sequences}", "1 to 1024 at the same time")
        if not 1 <= self.idle <= 1e6:
            raise ConfigError(f"--idle is {self.idle:g}", "1 to 1000000 seconds")
        resolve_backend(self.backend)
        resolve_threads(self.threads)


def write_repository(bundle: Bundle, folder: Path, settings: Settings) -> Path:
    """Write a model repository with the model `sonomime`, completely or not at all.

    Returns:
        The model's folder.

    Raises:
        ConfigError: a setting out of its range.
        OutputError: `folder` is there and not empty, or cannot be written.
    """
    settings.check()
    with atomic_folder(folder) as whole:
        model = whole / NAME
        copy_bundle(bundle, model / "bundle")
        (model / "1").mkdir()
        shutil.copyfile(Path(__file__).with_name("triton_model.py"), model / "1" / "model.py")
        (model / "config.pbtxt").write_text(config_text(settings), encoding="utf-8")
        if settings.stages:
            write_stages(bundle, whole)
    return folder / NAME


def copy_bundle(bundle: Bundle, folder: Path) -> None:
    """Copy the files that the manifest names, each checked against its digest."""
    folder.mkdir(parents=True)
    for file, _ in bundle.manifest.digests():
        (folder / file).write_bytes(bundle.read(file))
    (folder / MANIFEST).write_bytes((bundle.folder / MANIFEST).read_bytes())


def config_text(settings: Settings) -> str:
    """The model's config.pbtxt."""
    parameters = {
        "backend": settings.backend, "threads": str(settings.threads or 0), "size": settings.size,
        "mark": "yes" if settings.mark else "no",
    }  # fmt: skip
    return f"""\
# Written by `sonomime triton`. docs/triton.md explains it.
name: "{NAME}"
backend: "python"
max_batch_size: 0
input [
{_tensors(INPUTS, "optional: true")}
]
output [
{_tensors(OUTPUTS)}
]
sequence_batching {{
  max_sequence_idle_microseconds: {round(settings.idle * 1e6)}
  # One process serves all sequences, one request after the other.
  oldest {{ max_candidate_sequences: {settings.sequences} }}
  control_input [
    {{ name: "START" control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "END" control [ {{ kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "CORRID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }} ] }}
  ]
}}
# KIND_CPU says where pictures lie, not where the model runs: that is the parameter `backend`.
# For several GPUs write KIND_GPU: the server then starts one process for each.
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{_parameters(parameters)}
"""


def _tensors(named: dict[str, tuple[str, int, str]], more: str = "") -> str:
    return ",\n".join(
        f"  # {meaning}\n"
        f'  {{ name: "{name}" data_type: {kind} '
        f"dims: [ {', '.join(['-1' if axes == 3 else '1'] * axes)} ] {more} }}".replace("  }", " }")
        for name, (kind, axes, meaning) in named.items()
    )


def _parameters(values: dict[str, str]) -> str:
    return "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in values.items()
    )
