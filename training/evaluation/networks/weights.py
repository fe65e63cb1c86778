"""Weights files of the networks: which files the authors publish, and reading them.

A file is read only if its SHA-256 is that of a published one, or one that the user names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from ....runtime.support.errors import CheckpointError, ConfigError
from ....runtime.support.plain_file import sha256_file
from ...weights_file import read_weights_only

_TRUST = "only use weights from a source that you trust"
_HOW = "give --network NAME=FILE, or NAME=FILE,FILE for a network in two files"


class Published(NamedTuple):
    """A file that a network needs."""

    what: str
    project: str  # that publishes it
    digests: Mapping[str, str]  # SHA-256 by file name, the project's own first; may be empty

    def __str__(self) -> str:
        if not self.digests:
            return self.what
        first, *ports = self.digests
        also = "".join(f"; or its port {port}" for port in ports)
        return f"{self.what} ({first}, published by {self.project}{also})"


class Given(NamedTuple):
    """A file that the user gives, with the SHA-256 that it is said to have."""

    path: Path
    sha256: str | None


class Weights(NamedTuple):
    """What a file holds."""

    path: Path
    sha256: str
    state: Mapping[str, Tensor]
    published: bool = True  # whether it is a published file; also where nothing is published


def parse_network(text: str) -> tuple[str, list[Given]]:
    """Of `NAME=FILE[@SHA256][,FILE[@SHA256]]`, the name and the files.

    Raises:
        ConfigError: another form.
    """
    name, _, files = text.partition("=")
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or not all(files.split(",")):
        raise ConfigError(f"--network {text}: is not NAME=FILE", _HOW)
    given = []
    for file in files.split(","):
        path, _, digest = file.rpartition("@")
        named = path and re.fullmatch("[0-9a-fA-F]{64}", digest)
        given.append(Given(Path(path), digest.lower()) if named else Given(Path(file), None))
    return name, given


def read_files(name: str, given: Sequence[Given], needed: Sequence[Published]) -> list[Weights]:
    """Read the files of a network, in the order of `needed`.

    Raises:
        ConfigError: more or fewer files than needed.
        CheckpointError: a file is missing, is another one than was published or named, would run
            code, or holds no weights.
    """
    hint = f"give --network {name}={','.join(['FILE'] * len(needed))}: " + ", ".join(
        map(str, needed)
    )
    if len(given) != len(needed):
        many = f"{len(given)} {'file' if len(given) == 1 else 'files'} given"
        raise ConfigError(f"--network {name}: {many}, {len(needed)} needed", hint)
    return [_read(file, part, hint) for file, part in zip(given, needed, strict=True)]


def _read(file: Given, part: Published, hint: str) -> Weights:
    path = file.path
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file", hint)
    digest = sha256_file(path)
    if file.sha256 and file.sha256 != digest:
        fault = f"{path}: has the SHA-256 {digest}, not the one that was named"
        raise CheckpointError(fault, "get the file again, or name its own digest")
    published = not part.digests or digest in part.digests.values()
    if not (file.sha256 or published):
        raise CheckpointError(
            f"{path}: is not the published file of {part} (its SHA-256 is {digest})",
            f"get it from {part.project}; to use this file on purpose, give {path}@{digest}",
        )
    state = read_weights_only(path, _TRUST)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: holds no state dict", "give a state dict saved by torch")
    return Weights(path, digest, {str(key): value for key, value in state.items()}, published)


def fill(module: nn.Module, weights: Weights) -> None:
    """Copy what a module needs from a file that may hold more; freeze the module.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    wanted = [key for key in module.state_dict() if not key.endswith("num_batches_tracked")]
    missing = [key for key in wanted if key not in weights.state]
    hint = "docs/evaluating.md says which file each network needs"
    if missing:
        fault = f"has no {missing[0]} ({len(missing)} of {len(wanted)} tensors are missing)"
        raise CheckpointError(f"{weights.path}: {fault}", hint)
    try:
        module.load_state_dict({key: weights.state[key].float() for key in wanted}, strict=False)
    except RuntimeError as error:
        fault = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{weights.path}: does not fit: {fault}", hint) from error
    module.eval().requires_grad_(False)
