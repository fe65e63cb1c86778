"""A checkpoint becomes a bundle, verified; nothing is left behind when the numbers differ."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .. import __version__
from ..runtime import bundle as contract
from ..runtime.errors import output_errors
from ..runtime.files import atomic_folder
from ..runtime.frames import Image
from ..runtime.png import png_bytes
from ..runtime.progress import progress
from ..training.checkpoint import Checkpoint
from ..training.config import config_to_dict
from .card import model_card
from .graphs import export_stage, save
from .operators import DOMAIN, VERSION
from .reference import TorchChain
from .stages import Precision, StageModule, build_stages
from .verify import FP16, FP32, Frames, Parity, expected_tensors, golden, verify

MODEL_CARD = "MODEL_CARD.md"
CREDITS = "CREDITS.md"
OWN_LICENCE = "Apache-2.0"
UNSTATED = "not stated"

# Data under these can be learned from and the weights given away under our own licence.
_FREE = re.compile(
    r"CC0( 1\.0)?|CC BY( \d\.\d)?|MIT|Apache-2\.0|BSD-[23]-Clause|public domain", re.IGNORECASE
)


@dataclass(frozen=True)
class Description:
    """What a bundle says of itself besides its numbers."""

    name: str = ""  # empty: the preset's
    licence: str = ""  # of the weights; empty: ours where that of all the data allows it
    credits: str = ""  # text of CREDITS.md; empty: there is none
    figures: str = ""  # measured figures for the model card, Markdown
    note: str = ""
    data: tuple[contract.DataCredit, ...] = ()  # adds to what the checkpoint says, or corrects it

    def of(self, checkpoint: Checkpoint) -> Description:
        """The same, with what was left open taken from the checkpoint."""
        stated = {
            entry.get("name", "?"): entry.get("licence", UNSTATED) for entry in checkpoint.data
        } | {credit.name: credit.licence for credit in self.data}
        free = bool(stated) and all(_FREE.fullmatch(licence) for licence in stated.values())
        return replace(
            self,
            name=self.name or checkpoint.config.preset,
            licence=self.licence or (OWN_LICENCE if free else UNSTATED),
            data=tuple(contract.DataCredit(*item) for item in stated.items()),
        )


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
        how far the bundle is from the model.

    Raises:
        ExportError: the exported stages do not compute what the model does.
        OutputError: the folder is not empty, or cannot be written.
    """
    told = (description or Description()).of(checkpoint)
    with atomic_folder(out) as folder:
        model = checkpoint.model()
        expected = expected_tensors(TorchChain(model), frames)
        stages, operators = [], set[str]()
        for stage in progress(build_stages(model, precision), label="exporting stages"):
            graph = export_stage(stage)
            operators |= {function.name for function in graph.functions}
            file = f"{stage.name}.onnx"
            save(graph, folder / file)
            stages.append(_stage(stage, file, contract.sha256_file(folder / file)))
        manifest = contract.Manifest(
            schema_version=contract.SCHEMA_VERSION,
            name=told.name,
            preset=checkpoint.config.preset,
            created_with=__version__,
            image=contract.ImageFormat(
                model.config.image_size, 3 if model.config.channels == 3 else 1
            ),
            conventions=contract.Conventions(model.config.geometry),
            keypoints=_keypoints(checkpoint),
            precision=precision,
            stages=tuple(stages),
            tolerances=_tolerances(precision),
            golden=_write_golden(folder, golden(frames, expected)),
            provenance=_provenance(checkpoint, checkpoint_sha256, told),
            recurrent=(contract.Recurrent("next_state", "state"),),
            custom_ops=tuple(contract.CustomOp(DOMAIN, op, VERSION) for op in sorted(operators)),
            files=_write_texts(folder, checkpoint, precision, told),
        )
        contract.write_manifest(folder, manifest)
        return verify(folder, expected, precision)


def _stage(stage: StageModule, file: str, digest: str) -> contract.Stage:
    return contract.Stage(stage.name, file, digest, stage.when, stage.inputs, stage.outputs)


def _tolerances(precision: Precision) -> contract.Tolerances:
    if precision == "fp32":
        return FP32
    # A manifest holds finite numbers; half a picture is as good as no bound.
    return contract.Tolerances(stage_abs=1.0, psnr_db=FP16.psnr_db)


def _keypoints(checkpoint: Checkpoint) -> contract.Keypoints:
    config = checkpoint.config.model.keypoints
    names = checkpoint.supervised_names[: config.supervised]
    supervised = (
        contract.SupervisedKeypoint(config.self_supervised + i, name)
        for i, name in enumerate(names)
    )
    return contract.Keypoints(config.count, tuple(supervised))


def _provenance(checkpoint: Checkpoint, digest: str, told: Description) -> contract.Provenance:
    return contract.Provenance(
        config_sha256=config_sha256(checkpoint),
        checkpoint_sha256=digest,
        steps=checkpoint.step,
        data=told.data,
        licence=told.licence,
        note=told.note,
    )


def config_sha256(checkpoint: Checkpoint) -> str:
    """Digest of the resolved configuration as sorted JSON."""
    text = json.dumps(config_to_dict(checkpoint.config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_golden(folder: Path, images: Mapping[str, Image]) -> contract.Golden:
    return contract.Golden(
        **{
            name: _write(folder, f"golden_{name}.png", png_bytes(image))
            for name, image in images.items()
        }
    )


def _write_texts(
    folder: Path, checkpoint: Checkpoint, precision: Precision, told: Description
) -> tuple[contract.FileDigest, ...]:
    card = model_card(checkpoint, told, precision)
    texts = {MODEL_CARD: card} | ({CREDITS: told.credits} if told.credits else {})
    return tuple(_write(folder, file, text.encode("utf-8")) for file, text in texts.items())


def _write(folder: Path, file: str, content: bytes) -> contract.FileDigest:
    with output_errors(folder / file):
        (folder / file).write_bytes(content)
    return contract.FileDigest(file, hashlib.sha256(content).hexdigest())
