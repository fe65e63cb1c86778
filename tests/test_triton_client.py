"""examples/triton_client.py against the model for a Triton server, without the server."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_triton import Served

from sonomime.export.triton import Settings, write_repository
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.still import SAMPLES


class InferInput:
    def __init__(self, name: str, shape: Any, kind: str) -> None:
        self.name, self.shape, self.kind = name, tuple(shape), kind

    def set_data_from_numpy(self, array: Any) -> None:
        assert array.shape == self.shape and array.dtype.name == {"FP64": "float64"}.get(
            self.kind, "uint8"
        )
        self.array = array


class InferenceServerException(Exception):
    def message(self) -> str:
        return str(self.args[0])


class Client:
    """Asks a model directly; its URL is the model's."""

    models: dict[str, Served] = {}  # noqa: RUF012

    def __init__(self, url: str) -> None:
        self._model, self.ended = self.models.get(url), 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def infer(
        self, name: str, inputs: list[InferInput], sequence_id: int, sequence_start: bool = False,
        sequence_end: bool = False, parameters: Any = None,
    ) -> Any:  # fmt: skip
        if self._model is None:
            raise InferenceServerException("nobody listens")
        flags = {"start": sequence_start, "end": sequence_end, "parameters": parameters or {}}
        given = {each.name: each.array for each in inputs}
        (answer,) = self._model.model.execute([self._model.request(sequence_id, **flags, **given)])
        if answer.error is not None:
            raise InferenceServerException(answer.error.message)
        outputs = [SimpleNamespace(name=name) for name in answer.outputs]
        return SimpleNamespace(
            get_response=lambda: SimpleNamespace(outputs=outputs), as_numpy=answer.outputs.get
        )


@pytest.fixture
def example(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's names; the default bundle is served at `here`."""
    module: Any = ModuleType("tritonclient.grpc")
    module.InferInput, module.InferenceServerClient = InferInput, Client
    module.InferenceServerException = InferenceServerException
    package: Any = ModuleType("tritonclient")
    package.grpc = module
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", module)
    settings = Settings(backend="ort-cpu", sequences=1)
    folder = write_repository(Bundle.open(), tmp_path / "models", settings)
    served = Served(folder, monkeypatch)
    monkeypatch.setattr(Client, "models", {"here": served})
    yield runpy.run_path(str(repository / "examples" / "triton_client.py"))
    served.model.finalize()


def test_the_client_writes_a_video(example: Any, tmp_path: Path, capsys: Any) -> None:
    still, clip, out = SAMPLES / "lung_still.png", SAMPLES / "lung.mp4", tmp_path / "out.mkv"
    example["main"]([str(still), str(clip), "-o", str(out), "--url", "here"])
    assert f"{out}: 41 frames, 0 doubtful" in capsys.readouterr().out
    frames = [frame.image for frame in open_source(out, announce=False)]
    assert len(frames) == 41 and frames[0].shape == (444, 444)
    assert np.abs(frames[0].astype(int) - frames[10]).mean() > 0.5
    # It has ended its sequence: with one place alone, none is left in use.
    assert Client.models["here"].model._sequences._running == {}


@pytest.mark.parametrize(
    ("still", "url", "said"),
    [
        ("lung_still.png", "elsewhere", "nobody listens"),
        ("absent.png", "here", "does not exist"),
    ],
)
def test_the_client_says_what_went_wrong(
    still: str, url: str, said: str, example: Any, tmp_path: Path
) -> None:
    words = [str(SAMPLES / still), str(SAMPLES / "lung.mp4"), "-o", str(tmp_path / "out.mkv")]
    with pytest.raises(SystemExit, match=said):
        example["main"]([*words, "--url", url])
    assert not (tmp_path / "out.mkv").exists()
