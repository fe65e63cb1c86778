"""Export a checkpoint as a verified bundle, or leave nothing behind."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path

from .. import __version__
from ..runtime.bundle import manifest as contract
from ..runtime.bundle.bundle import write_manifest
from ..runtime.media.frames import png_bytes
from ..runtime.media.pixels import to_image
from ..runtime.support.atomic_files import atomic_folder
from ..runtime.support.errors import output_errors
from ..runtime.support.progress import progress
from ..training.checkpoint import Checkpoint
from ..training.models.base import Precision
from ..training.models.families import family_of
from .card import Description, model_card
from .graphs import export_stage
from .verify import FP16, FP32, Frames, Parity, expected_tensors, verify

MODEL_CARD = "MODEL_CARD.md"
CREDITS = "CREDITS.md"


def export_bundle(
    checkpoint: Checkpoint,
    checkpoint_sha256: str,
    out: Path,
    frames: Frames,
    precision: Precision = "fp32",
    description: Description | None = None,
) -> Parity:
    """Write the bundle of a checkpoint to the folder ``out``, whole and verified or not at all.

    Returns:
        the differences between the bundle and the model.

    Raises:
        ExportError: the exported stages do not compute what the model does.
        OutputError: the folder is not empty, or cannot be written.
    """
    told = (description or Description()).of(checkpoint)
    family = family_of(checkpoint.config.model)
    with atomic_folder(out) as folder:
        model = checkpoint.model()
        chain = family.chain(model, precision, checkpoint.supervised_names)
        expected = expected_tensors(family.oracle(model), chain, frames)
        stages = []
        for stage in progress(chain.stages, label="exporting stages"):
            graph = export_stage(stage)
            content = graph.SerializeToString(deterministic=True)
            file = _write(folder, f"{stage.name}.onnx", content)
            wires = (stage.name, stage.role, stage.inputs, stage.outputs)
            stages.append(contract.StageFile(*wires, file.file, file.sha256))
        # The first of the expected frames has default controls.
        images = {
            "source": frames.source,
            "reference": frames.driving[0],
            "driving": frames.driving[-1],
            "output": to_image(expected[0][contract.FRAME]),
        }
        golden = {
            name: _write(folder, f"golden_{name}.png", png_bytes(image))
            for name, image in images.items()
        }
        texts = {MODEL_CARD: model_card(checkpoint, told, precision, chain)}
        if told.credits:
            texts[CREDITS] = told.credits
        wiring = {field.name: getattr(chain, field.name) for field in fields(contract.Chain)}
        manifest = contract.Manifest(
            **wiring | {"stages": tuple(stages)},
            schema_version=contract.SCHEMA_VERSION,
            name=told.name,
            preset=checkpoint.config.preset,
            created_with=__version__,
            precision=precision,
            # A manifest holds finite numbers; 1, half a picture, is as good as no bound.
            tolerances=FP32 if precision == "fp32" else replace(FP16, stage_abs=1.0),
            golden=contract.Golden(**golden, motion=chain.motions()[0]),
            provenance=contract.Provenance(
                checkpoint_sha256=checkpoint_sha256,
                steps=checkpoint.step,
                data=told.data,
                licence=told.licence,
            ),
            files=tuple(_write(folder, file, text.encode()) for file, text in texts.items()),
        )
        write_manifest(folder, manifest)
        return verify(folder, frames, expected, precision)


def _write(folder: Path, file: str, content: bytes) -> contract.FileDigest:
    with output_errors(folder / file):
        (folder / file).write_bytes(content)
    return contract.FileDigest(file, hashlib.sha256(content).hexdigest())
