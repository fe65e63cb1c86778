"""Files that are no FOMM checkpoint, or one that we cannot serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sonomime.export.fomm import import_fomm, read_fomm_config
from sonomime.runtime.support.errors import CheckpointError, ConfigError, OutputError

from .fomm_checkpoints import SMALL, Evil, changed, make_fomm, write


@pytest.mark.parametrize("network", ["generator", "kp_detector"])
def test_missing_tensor_is_named(tmp_path: Path, network: str) -> None:
    payload = make_fomm(SMALL)
    gone = (
        "first.conv.bias" if network == "generator" else "predictor.decoder.up_blocks.0.norm.weight"
    )
    del payload[network][gone]
    files = write(tmp_path, payload, SMALL)
    with pytest.raises(CheckpointError, match=f"lacks {network}/{gone}"):
        files.run()
    assert not files.out.exists()


def test_left_over_tensor_is_named(tmp_path: Path) -> None:
    payload = make_fomm(SMALL)
    payload["kp_detector"]["predictor.encoder.down_blocks.9.conv.weight"] = torch.zeros(1)
    files = write(tmp_path, payload, SMALL)
    with pytest.raises(CheckpointError, match=r"knows nothing of: .*down_blocks\.9\.conv\.weight"):
        files.run()
    assert not files.out.exists()


def test_another_shape_is_named(tmp_path: Path) -> None:
    files = write(tmp_path, make_fomm(SMALL), changed(("common_params.num_kp", 4)))
    with pytest.raises(CheckpointError, match=r"kp_detector/kp\.weight is 3x7x7x7, not 4x7x7x7"):
        files.run()


def test_many_keys_are_cut_short(tmp_path: Path) -> None:
    payload = make_fomm(SMALL)
    payload["generator"] = {}
    with pytest.raises(CheckpointError, match=r"and \d+ more$"):
        write(tmp_path, payload, SMALL).run()


@pytest.mark.parametrize(
    "payload",
    [
        {"generator": {}},
        {"kp_detector": {}, "generator": [1]},
        [1, 2],
        {"generator": {"first.conv.bias": 3}, "kp_detector": {}},
    ],
    ids=["one network", "a list for a network", "a list", "a number for a tensor"],
)
def test_other_files_are_refused(tmp_path: Path, payload: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        write(tmp_path, payload, SMALL).run()
    assert caught.value.hint and caught.value.exit_code == 3


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_malicious_pickle_does_not_run(tmp_path: Path, zipped: bool) -> None:
    files = write(tmp_path, {}, SMALL)
    payload = {**make_fomm(SMALL), "epoch": Evil(tmp_path / "ran")}
    torch.save(payload, files.pth, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="refused, because it holds more than weights"):
        files.run()
    assert not (tmp_path / "ran").exists() and not files.out.exists()


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    files = write(tmp_path, make_fomm(SMALL), SMALL)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        import_fomm(tmp_path / "none.pth.tar", files.yaml, files.out)
    files.pth.write_bytes(files.pth.read_bytes()[:20_000])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        files.run()
    with pytest.raises(ConfigError, match="cannot read"):
        import_fomm(files.pth, tmp_path / "none.yaml", files.out)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    files = write(tmp_path, make_fomm(SMALL), SMALL)
    with pytest.raises(OutputError):
        import_fomm(files.pth, files.yaml, files.yaml / "below-a-file.pt")
    before = files.pth.read_bytes()
    for taken in (files.pth, files.yaml):
        with pytest.raises(OutputError, match="what is read"):
            import_fomm(files.pth, files.yaml, taken)
    assert files.pth.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("common_params.estimate_jacobian", False, "estimate_jacobian = false is not supported"),
        ("common_params.estimate_jacobian", ..., "estimate_jacobian = false is not supported"),
        ("common_params.num_channels", 2, "num_channels = 2 is not supported"),
        ("common_params.num_kp", 0, "num_kp = 0 is not supported"),
        ("common_params.num_kp", "ten", "num_kp: expected an integer"),
        ("common_params", ..., "missing key 'common_params'"),
        ("kp_detector_params.pad", 3, "pad = 3 is not supported"),
        ("kp_detector_params.scale_factor", 0.5, "scale_factor = 0.5 is not supported"),
        ("kp_detector_params.scale_factor", ..., "scale_factor = 1.0 is not supported"),
        ("kp_detector_params.single_jacobian_map", True, "single_jacobian_map = true"),
        ("kp_detector_params.num_blocks", 9, "num_blocks = 9 is not supported"),
        ("kp_detector_params.temperature", ..., "missing key 'temperature'"),
        ("kp_detector_params.temperature", 0, "temperature = 0.0 is not supported"),
        ("kp_detector_params.temprature", 0.1, "unknown key 'temprature'"),
        ("generator_params.estimate_occlusion_map", False, "estimate_occlusion_map = false"),
        ("generator_params.dense_motion_params", ..., "missing key 'dense_motion_params'"),
        ("generator_params.dense_motion_params.scale_factor", 1, "scale_factor = 1.0"),
        ("generator_params.dense_motion_params.kp_variance", 0, "kp_variance = 0.0"),
        ("generator_params.num_bottleneck_blocks", 10**9, "num_bottleneck_blocks = 1000000000"),
    ],
)
def test_yaml_that_we_cannot_serve(tmp_path: Path, path: str, value: Any, message: str) -> None:
    file = tmp_path / "fomm.yaml"
    file.write_text(yaml.safe_dump(changed((path, value))))
    with pytest.raises(ConfigError, match=message) as caught:
        read_fomm_config(file)
    assert str(file) in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- a\n- list",
        "model_params: 3",
        "a: [1",
        "a: !!python/name:os.system",
        "\x00",
    ],
)
def test_yaml_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fomm.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_fomm_config(file)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError):
        read_fomm_config(file)
