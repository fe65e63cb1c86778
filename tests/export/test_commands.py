"""The verbs `export`, `build` and `import-fomm` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lively import SMALL, lively_checkpoint, speckle

from sonomime.cli import main
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.frames import png_bytes
from sonomime.runtime.support.plain_file import sha256_file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    lively_checkpoint("ours-pt", SMALL).save(path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(png_bytes(speckle(100, seed=i)))
    return folder


def test_export(checkpoint: Path, frames: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "credits.md").write_text("By us.")
    words = ["export", str(checkpoint), "-o", str(tmp_path / "out"), "--frames", str(frames)]
    words += ["--name", "mine", "--data", "more clips=CC BY 4.0", "--json"]
    words += ["--credits", str(tmp_path / "credits.md")]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frame_levels"] <= 1 and told["psnr_db"] > 48
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.name == "mine"
    assert [credit.name for credit in manifest.provenance.data] == ["speckle", "more clips"]
    assert manifest.provenance.checkpoint_sha256 == sha256_file(checkpoint)
    assert (tmp_path / "out" / "CREDITS.md").read_text() == "By us."


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"checkpoint": "none.pt"}, 3),
        ({"--frames": "none.mp4"}, 6),
        ({"--credits": "none.md"}, 6),
        ({"--precision": "int8"}, 2),
        ({"--data": "no licence"}, 2),
    ],
)
def test_bad_input(
    change: dict[str, str], status: int, checkpoint: Path, frames: Path, tmp_path: Path, capsys: Any
) -> None:
    options = {"-o": str(tmp_path / "out"), "--frames": str(frames)}
    given = change.pop("checkpoint", str(checkpoint))
    options |= {name: value for name, value in change.items()}
    words = ["export", given, *(word for pair in options.items() for word in pair)]
    try:
        found = main(words)
    except SystemExit as stop:
        found = int(stop.code or 0)
    assert found == status
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_build_without_full_tensorrt(toy_bundle: Path, capsys: Any) -> None:
    try:
        import tensorrt  # noqa: F401
    except Exception:
        assert main(["build", str(toy_bundle), "--flavour", "tensorrt"]) == 4
        assert "hint:" in capsys.readouterr().err
    else:
        pytest.skip("TensorRT is installed here")


def test_verbs_are_declared_without_torch(run_python: Any) -> None:
    code = """
import sys
import sonomime.export.commands
assert not {"torch", "onnx", "cv2", "onnxruntime", "numpy"} & set(sys.modules)
"""
    status, _, errors = run_python(code)
    assert status == 0, errors
