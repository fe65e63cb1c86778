"""Export a stage as an ONNX model: one file, static shapes, opset 20, operators with bodies."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch

from ..runtime.support.errors import ExportError
from ..training.models.base import StageModule
from ..training.models.operators import DOMAIN, OPSET, VERSION
from .bodies import function_body

IR_VERSION = 10  # the lowest for opset 20: readers refuse newer versions


def export_stage(stage: StageModule) -> onnx.ModelProto:
    """Export a stage. The result contains no paths or names of this machine.

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


def _tidy(model: onnx.ModelProto, stage: StageModule) -> None:
    """Attach the bodies; drop comments, which hold paths, and all that differs between exports."""
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
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    for holder in (model, graph, *graph.node, *graph.initializer, *values):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")


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
    """Hide the exporter's own messages and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
