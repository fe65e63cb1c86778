"""A stage as an ONNX model: one file, static shapes, opset 20, operators with their bodies."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch

from ..runtime.support.atomic_files import atomic_write_bytes
from ..runtime.support.errors import ExportError
from ..training.models.base import StageModule
from ..training.models.operators import DOMAIN, OPSET, VERSION
from .bodies import function_body

IR_VERSION = 10  # what opset 20 needs; readers refuse what is newer than they are


def export_stage(stage: StageModule) -> onnx.ModelProto:
    """Export a stage; the result names nothing of the machine it was made on.

    Raises:
        ExportError: the exporter failed, or left a tensor that the contract does not allow.
    """
    example = tuple(
        torch.zeros(tensor.shape, dtype=getattr(torch, tensor.dtype)) for tensor in stage.inputs
    )
    with _quiet():
        program = torch.onnx.export(
            stage.module, example,
            input_names=[tensor.name for tensor in stage.inputs],
            output_names=[tensor.name for tensor in stage.outputs],
            opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise ExportError(f"torch gave no graph for stage {stage.name!r}")
    model = program.model_proto
    _tidy(model, stage)
    _check(model, stage)
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    atomic_write_bytes(path, model.SerializeToString(deterministic=True))


def _tidy(model: onnx.ModelProto, stage: StageModule) -> None:
    """Attach the bodies; drop comments, which hold paths, and what changes between exports."""
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    del model.functions[:]
    model.functions.extend(function_body(name) for name in used)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    if used:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "sonomime", ""
    model.graph.name = stage.name
    model.ClearField("doc_string")
    for holder in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.initializer,
        *_values(model),
    ):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output, *model.graph.value_info]


def _check(model: onnx.ModelProto, stage: StageModule) -> None:
    onnx.checker.check_model(model, full_check=True)
    for node in model.graph.node:
        if node.domain not in ("", DOMAIN):
            raise ExportError(f"stage {stage.name!r} has an operator {node.domain}::{node.op_type}")
    for tensors, values in ((stage.inputs, model.graph.input), (stage.outputs, model.graph.output)):
        expected = [(tensor.name, np.dtype(tensor.dtype), tensor.shape) for tensor in tensors]
        found = [_kind(value) for value in values]
        if found != expected:
            raise ExportError(f"stage {stage.name!r} was exported with {found}, not {expected}")


def _kind(value: onnx.ValueInfoProto) -> tuple[str, np.dtype, tuple[int, ...]]:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return value.name, dtype, tuple(side.dim_value for side in tensor.shape.dim)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about what is no concern of whoever exports."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
