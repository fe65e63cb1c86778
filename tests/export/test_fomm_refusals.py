"""Files that are not a FOMM checkpoint, or one that we cannot import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sonomime.export.fomm import import_fomm, read_fomm_config
from sonomime.runtime.support.errors import CheckpointError, ConfigError, OutputError

from .fomm_checkpoints import SMALL, Evil, changed, make_fomm, write


def without_a_tensor(payload: Any) -> None:
    del payload["kp_detector"]["predictor.decoder.up_blocks.0.norm.weight"]


def with_one_more(payload: Any) -> None:
    payload["kp_detector"]["predictor.encoder.down_blocks.9.conv.weight"] = torch.zeros(1)


def of_another_shape(payload: Any) -> None:
    payload["kp_detector"]["kp.weight"] = torch.zeros(4, 7, 7, 7)


def keyed_by_a_number(payload: Any) -> None:
    payload["kp_detector"][3] = torch.zeros(1)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (without_a_tensor, "kp_detector/predictor.decoder.up_blocks.0.norm.weight"),
        (with_one_more, "kp_detector/predictor.encoder.down_blocks.9.conv.weight"),
        (of_another_shape, "kp_detector/kp.weight"),
        (keyed_by_a_number, "kp_detector/3"),
        (lambda payload: payload["generator"].clear(), " more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, spoil: Callable[[Any], None], named: str
) -> None:
    payload = make_fomm(SMALL)
    spoil(payload)
    files = write(tmp_path, payload, SMALL)
    with pytest.raises(CheckpointError) as caught:
        files.run()
    assert named in caught.value.message and not files.out.exists()


@pytest.mark.parametrize(
    "payload",
    [
        {"generator": {}},
        {"kp_detector": {}, "generator": [1]},
        [1, 2],
        {"generator": {"first.conv.bias": 3}, "kp_detector": {}},
        {"generator": {"first.conv.bias": torch.zeros(3).to_sparse()}, "kp_detector": {}},
    ],
    ids=["one network", "a list for a network", "a list", "a number for a tensor", "sparse"],
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
    with pytest.raises(CheckpointError):
        files.run()
    assert not (tmp_path / "ran").exists() and not files.out.exists()


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    files = write(tmp_path, make_fomm(SMALL), SMALL)
    with pytest.raises(CheckpointError):
        import_fomm(tmp_path / "none.pth.tar", files.yaml, files.out)
    files.pth.write_bytes(files.pth.read_bytes()[:20_000])
    with pytest.raises(CheckpointError):
        files.run()
    with pytest.raises(ConfigError):
        import_fomm(files.pth, tmp_path / "none.yaml", files.out)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    files = write(tmp_path, make_fomm(SMALL), SMALL)
    before = files.pth.read_bytes()
    for taken in (files.yaml / "below-a-file.pt", files.pth, files.yaml):
        with pytest.raises(OutputError):
            import_fomm(files.pth, files.yaml, taken)
    assert files.pth.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("common_params.estimate_jacobian", False),
        ("common_params.estimate_jacobian", ...),
        ("common_params.num_channels", 2),
        ("common_params.num_kp", 0),
        ("common_params.num_kp", "ten"),
        ("common_params", ...),
        ("kp_detector_params.pad", 3),
        ("kp_detector_params.scale_factor", 0.5),
        ("kp_detector_params.single_jacobian_map", True),
        ("kp_detector_params.temperature", 0),
        ("kp_detector_params.temprature", 0.1),
        ("generator_params.dense_motion_params.kp_variance", 0),
        ("generator_params.num_bottleneck_blocks", 10**9),
    ],
)
def test_settings_that_we_cannot_take_are_named(tmp_path: Path, path: str, value: Any) -> None:
    file = tmp_path / "fomm.yaml"
    file.write_text(yaml.safe_dump(changed((path, value))))
    with pytest.raises(ConfigError, match=path.rpartition(".")[2]) as caught:
        read_fomm_config(file)
    assert str(file) in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- a\n- list",
        "model_params: 3",
        "model_params: 2001-12-14",
        "model_params: {common_params: 2001-12-14t21:59:43.10-05:00}",
        "model_params: {2001-12-14: 1}",
        "model_params: 0001-01-01T00:00:00+23:00",
        "model_params: !!timestamp never",
        "model_params: !!int ''",
        "model_params: !!bool maybe",
        "a: [1",
        "a: !!python/name:os.system",
        "\x00",
        b"\xff\xfe\xff",
        "[" * 3000,
    ],
)
def test_yaml_of_something_else(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "fomm.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match="fomm"):
        read_fomm_config(file)
