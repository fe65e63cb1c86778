"""The server's side of a Triton model in Python: the module triton_python_backend_utils,
requests, and what config.pbtxt says in its text format."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

TYPES = {"TYPE_UINT8": "uint8", "TYPE_FP64": "float64", "TYPE_FP32": "float32"}


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        assert array.flags.c_contiguous
        self.name, self.array = name, array

    def as_numpy(self) -> Any:
        return self.array


class TritonError:
    INTERNAL, INVALID_ARG = 1, 3

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self.message, self.code = message, code


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        self.outputs = {tensor.name: tensor.array for tensor in output_tensors}
        self.error = error


class Request:
    def __init__(self, parameters: dict[str, Any], inputs: dict[str, Any]) -> None:
        self.inputs, self._parameters = inputs, parameters

    def parameters(self) -> str:
        return json.dumps(self._parameters) if self._parameters else ""


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    array = request.inputs.get(name)
    return None if array is None else Tensor(name, array)


class Served:
    """A model as the server runs it: it checks inputs and outputs by config.pbtxt."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, **changed: str) -> None:
        utils = ModuleType("triton_python_backend_utils")
        for each in (Tensor, TritonError, InferenceResponse, get_input_tensor_by_name):
            setattr(utils, each.__name__, each)
        patch.setitem(sys.modules, utils.__name__, utils)
        self.config = parse((folder / "config.pbtxt").read_text())
        self.config["parameters"] = {
            each["key"]: each["value"] for each in self.config["parameters"]
        }
        spec = importlib.util.spec_from_file_location("served_model", folder / "1" / "model.py")
        assert spec is not None and spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, self.module)
        spec.loader.exec_module(self.module)
        self.model = self.module.TritonPythonModel()
        instance = {"model_instance_kind": "CPU", "model_instance_device_id": "0"}
        self.model.initialize({"model_config": json.dumps(self.config), **instance, **changed})

    def request(
        self, number: int, *, start: bool = False, end: bool = False, **inputs: Any
    ) -> Request:
        """`parameters` are the request's; all else are its inputs."""
        parameters = inputs.pop("parameters", {})
        known = {each["name"]: each for each in self.config["input"]}
        for name, array in inputs.items():
            assert array.dtype == TYPES[known[name]["data_type"]]
            assert array.ndim == len(known[name]["dims"])
        controls = {"START": np.array([start], np.int32), "END": np.array([end], np.int32)}
        return Request(parameters, {**inputs, **controls, "CORRID": np.array([number], np.uint64)})

    def ask(self, number: int, **more: Any) -> dict[str, Any]:
        """The outputs; what an error says, as `error`."""
        (answer,) = self.model.execute([self.request(number, **more)])
        if answer.error is not None:
            return {"error": answer.error.message}
        outputs = {each["name"]: each for each in self.config["output"]}
        assert answer.outputs.keys() == outputs.keys()
        for name, array in answer.outputs.items():
            assert array.ndim == len(outputs[name]["dims"])
            assert array.dtype == TYPES.get(outputs[name]["data_type"], np.object_)
        return {
            name: array[0].decode() if array.dtype == np.object_ else array
            for name, array in answer.outputs.items()
        }


def parse(text: str) -> dict[str, Any]:
    """A message in protobuf's text format, as far as config.pbtxt needs it. Fields that may occur
    several times are lists, and so are all those in brackets."""
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,#"]+|#.*', text)
    tokens = [token for token in tokens if not token.startswith("#")]
    assert re.sub(r"\s", "", "".join(tokens)) == re.sub(r"\s", "", re.sub(r"#.*", "", text))
    message, rest = _message([*tokens, "}"])
    assert rest == []
    return message


def _message(tokens: list[str]) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    while tokens[0] != "}":
        name, tokens = tokens[0], tokens[1:]
        assert re.fullmatch(r"[a-z_0-9]+", name), name
        assert tokens[0] in ":[{", (name, tokens[0])
        value, tokens = _value(tokens[1:] if tokens[0] == ":" else tokens)
        if name in ("parameters", "step", "input_map", "output_map", "inputs"):
            found.setdefault(name, []).append(value)
        else:
            assert name not in found, name
            found[name] = value
    return found, tokens[1:]


def _value(tokens: list[str]) -> tuple[Any, list[str]]:
    first, tokens = tokens[0], tokens[1:]
    if first == "{":
        return _message(tokens)
    if first == "[":
        listed = []
        while tokens[0] != "]":
            value, tokens = _value(tokens)
            listed.append(value)
            assert tokens[0] in ",]", tokens[0]
            tokens = tokens[1:] if tokens[0] == "," and tokens[1] != "]" else tokens
        return listed, tokens[1:]
    if first.startswith('"'):
        return json.loads(first), tokens
    words = {"true": True, "false": False}
    if first in words:
        return words[first], tokens
    return (int(first) if re.fullmatch(r"-?\d+", first) else first), tokens
