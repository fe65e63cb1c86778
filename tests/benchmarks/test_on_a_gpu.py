"""What only a GPU can tell: the kernels, a chain as a CUDA graph, the check itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sonomime.benchmarks import gpu_check
from sonomime.benchmarks.gpu.kernel_check import cases, check_kernels
from sonomime.benchmarks.gpu.kernels import Kernels
from sonomime.benchmarks.gpu.torch_check import Pictures, Variant, check_model
from sonomime.benchmarks.lively import lively_model, small_config, speckle

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return torch.device("cuda", 0)


@pytest.fixture(scope="module")
def kernels(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels.build("cuda", tmp_path_factory.mktemp("kernels"))


def test_the_kernels_agree_with_torch(kernels: Kernels, device: torch.device) -> None:
    rows = check_kernels(kernels, device, [*cases(small=True), *cases()], repeats=3)
    assert [row["case"] for row in rows if not row["agrees"]] == []
    assert all(row["bandwidth_share"] > 0 for row in rows)


@pytest.mark.parametrize("preset", ["lite", "ours-ptg"])
@pytest.mark.parametrize(
    "variant",
    [
        Variant("fp32"),
        Variant("fp32", graph=True, kernels=True),
        Variant("fp16", graph=True, channels_last=True, kernels=True),
    ],
)
def test_a_frame_is_the_models(
    preset: str, variant: Variant, kernels: Kernels, device: torch.device
) -> None:
    model = lively_model(small_config(preset))
    shots = [speckle(128, 1, seed) for seed in range(4)]
    pictures = Pictures(shots[0], shots[1], tuple(shots[2:]))
    messages = check_model(model, device, pictures, kernels, 5, [variant])
    (row,) = (message["row"] for message in messages if "row" in message)
    assert row.get("failed") is None and row["agrees"], row
    assert row["device_ms"] > 0
    launches = row["launches"]
    assert launches["kernels"] > 10 and launches["copies"] >= 3, "up, the state, down"
    assert (launches["by_the_host"] == 1) is variant.graph


def test_the_check_passes(device: torch.device, tmp_path: Path) -> None:
    report = tmp_path / "gpu.json"
    words = ["--small", "--no-compile", "--frames", "20", "-o", str(report)]
    assert gpu_check.main(words) == 0
    found = json.loads(report.read_text())
    assert found["gpu"]["name"] and "rows" in found["kernels"]
