"""A bundle again, with other files for some of its stages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..runtime.bundle.bundle import Bundle, write_manifest
from ..runtime.bundle.manifest import Tolerances


def rebundle(
    bundle: Bundle, folder: Path, stages: Mapping[str, bytes], precision: Literal["int8"],
    golden_db: float = 0.0, files: Mapping[str, bytes] | None = None,
) -> Bundle:  # fmt: skip
    """Write a bundle to a folder, which may be empty or not there, and open it.

    Args:
        stages: ONNX files by the name of their stage; the others stay.
        golden_db: PSNR that the golden frame has to reach wherever the bundle is used.
        files: other files by their names in the folder.

    Raises:
        BundleError: a file does not fit.
        OutputError: it cannot be written.
    """
    manifest, files = bundle.manifest, files or {}
    folder.mkdir(parents=True, exist_ok=True)
    named = {stage.file: stages[stage.name] for stage in manifest.stages if stage.name in stages}
    given = named | dict(files)
    for file, _ in manifest.digests():
        (folder / file).write_bytes(given.get(file) or bundle.read(file))

    def digest(file: str, before: str) -> str:
        return hashlib.sha256(given[file]).hexdigest() if file in given else before

    write_manifest(folder, replace(
        manifest, precision=precision, tolerances=Tolerances(stage_abs=1.0, psnr_db=golden_db),
        stages=tuple(
            replace(stage, sha256=digest(stage.file, stage.sha256)) for stage in manifest.stages
        ),
        files=tuple(
            replace(each, sha256=digest(each.file, each.sha256)) for each in manifest.files
        ),
    ))  # fmt: skip
    return Bundle.open(folder)
