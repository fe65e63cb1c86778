"""Bundles that open, and everything that is refused."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_bundle import copy_bundle, edit_manifest

from sonomime.runtime.bundle.bundle import Bundle, parse_manifest, write_manifest
from sonomime.runtime.support.errors import BundleError
from sonomime.runtime.support.plain_file import sha256_file


@pytest.fixture
def spoiled(toy_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return copy_bundle(toy_bundle, tmp_path / "spoiled")


def refusal(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    return caught.value


def test_an_opened_bundle_knows_its_stages_and_files(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(toy_bundle)
    bundle = Bundle.open(tmp_path / "link")
    assert bundle.manifest.stages[3].outputs[0].name == "deformation"
    assert bundle.read("motion.onnx") == (toy_bundle / "motion.onnx").read_bytes()
    assert bundle.digest == sha256_file(toy_bundle / "manifest.json")
    with pytest.raises(BundleError):
        bundle.read("manifest.json")


def test_a_written_manifest_reads_as_it_was(toy_bundle: Path, tmp_path: Path) -> None:
    manifest = Bundle.open(toy_bundle).manifest
    with pytest.raises(BundleError):
        write_manifest(tmp_path, replace(manifest, stages=()))
    assert not list(tmp_path.iterdir())
    path = write_manifest(tmp_path, manifest)
    assert parse_manifest(path.read_text()) == manifest
    data = json.loads(path.read_text())
    assert data["recurrent"] == [{"from": "next_state", "to": "state"}]
    assert next(iter(data)) == "schema_version"


def test_a_bundle_of_the_old_geometry_of_imports_is_refused(spoiled: Path) -> None:
    """Its nodes sample FOMM's public weights otherwise than they were trained."""
    for geometry in ("fomm_aligned", "fomm_unaligned"):
        edit_manifest(spoiled, lambda data, kind=geometry: data.update(geometry=kind))
        assert Bundle.open(spoiled).manifest.geometry == geometry
    edit_manifest(spoiled, lambda data: data.update(geometry="fomm"))
    assert "import-fomm" in refusal(spoiled).hint


@pytest.mark.parametrize("file", ["motion.onnx", "golden_output.png", "MODEL_CARD.md"])
def test_what_is_changed_missing_or_not_a_file_is_found(spoiled: Path, file: str) -> None:
    opened, path, outside = Bundle.open(spoiled), spoiled / file, spoiled.parent / "outside"
    content = bytearray(path.read_bytes())
    path.rename(outside)
    for make in (lambda: path.symlink_to(outside), lambda: os.mkfifo(path)):
        make()
        assert str(path) in refusal(spoiled).message
        path.unlink()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    error = refusal(spoiled)
    assert f"{path} differs" in error.message and error.hint and error.exit_code == 3
    with pytest.raises(BundleError):
        opened.read(file)  # also after opening
    for missing in (path, spoiled / "manifest.json"):
        missing.unlink()
        assert str(missing) in refusal(spoiled).message
    shutil.rmtree(spoiled)
    assert str(spoiled) in refusal(spoiled).message


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/b.onnx", "..", ".hidden", "a\\b", "x\0y", "", "manifest.json", "x\n",
     "a" * 200],
)  # fmt: skip
def test_only_plain_names_are_followed(spoiled: Path, name: str) -> None:
    (spoiled.parent / "x").write_bytes((spoiled / "motion.onnx").read_bytes())
    edit_manifest(spoiled, lambda data: data["stages"][3].update(file=name))
    assert ascii(name[:100]) in refusal(spoiled).message


@pytest.mark.parametrize(
    ("place", "changes", "words"),
    [
        ("", {"precison": "fp32"}, "'precison'"),
        ("", {"precision": "fp8"}, "precision:"),
        ("image", {"channels": True}, "image.channels:"),
        ("image", {"size": 64.0}, "image.size:"),
        ("image", {"size": 8}, "image.size:"),
        ("control", {"count": 0}, "control.count:"),
        ("control.supervised.0", {"index": 3}, "control.supervised[0].index:"),
        ("control.supervised.0", {"name": "a" * 101}, "control:"),
        ("", {"control": {"grid_height": 0, "grid_width": 8}}, "control: a grid"),
        ("", {"control": {"grid_height": 8, "grid_width": 8, "shading_width": 2}}, "a shading"),
        ("controls.1", {"default": 11}, "controls[1]:"),
        ("controls.1", {"range": [3, 2]}, "controls[1]:"),
        ("controls.1", {"name": "relative"}, "'relative'"),
        ("controls.1", {"name": "a b"}, "controls[1].name:"),
        ("golden", {"output": None}, "golden.output:"),
        ("tolerances", {"frame_levels": None}, "tolerances:"),
        ("tolerances", {"stage_abs": 1e400}, "JSON"),
        ("", {"stages": {}}, "stages:"),
        ("stages.1", {"sha256": "ABC"}, "sha256"),
        ("stages.0.inputs.0", {"shape": [1, -1]}, "[1, -1]"),
        ("stages.0.inputs.0", {"shape": [1] * 9}, "shape"),
        ("stages.0.inputs.0", {"shape": [2**20, 2**20]}, "shape"),
        ("stages.1", {"file": "source.onnx"}, "twice"),
        ("stages.0.inputs.0", {"name": "a b"}, "'a b': a name has"),
        ("", {"name": "toy\x1b[2J"}, r"'toy\x1b[2J'"),
        ("provenance.data.0", {"licence": "\u202e"}, r"'\u202e'"),
    ],
)
def test_values_out_of_the_schema(
    spoiled: Path, place: str, changes: dict[str, Any], words: str
) -> None:
    def change(data: Any) -> None:
        for key in filter(None, place.split(".")):
            data = data[int(key) if key.isdecimal() else key]
        data.update(changes)

    edit_manifest(spoiled, change)
    message = refusal(spoiled).message
    assert words in message and str(spoiled / "manifest.json") in message


def test_other_versions_of_the_schema_and_what_the_golden_frame_needs(
    spoiled: Path, displacement_toy: Path, tmp_path: Path
) -> None:
    displaced = copy_bundle(displacement_toy, tmp_path / "displaced")
    edit_manifest(displaced, lambda data: data["golden"].update(motion="absolute"))
    assert "golden.motion: the stages" in refusal(displaced).message
    edit_manifest(spoiled, lambda data: data["golden"].pop("reference"))
    assert "'reference'" in refusal(spoiled).message
    for version, hint in ((1, "export"), (2, "export"), (4, "install")):
        edit_manifest(spoiled, lambda data, version=version: data.update(schema_version=version))
        error = refusal(spoiled)
        assert f"version {version}," in error.message and hint in error.hint


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"name": 1, "name": 2}', "[" * 100_000, '{"schema_version": ' + "1" * 5000 + "}",
     "\ufeff{}", b'{"name": "\xff\xfe"}'],
    ids=range(7),
)  # fmt: skip
def test_text_that_is_not_a_manifest(text: str | bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(text)


def test_a_huge_manifest_is_not_read(spoiled: Path) -> None:
    with (spoiled / "manifest.json").open("a") as file:
        file.write(" " * (1 << 20))
    assert "MiB" in refusal(spoiled).message


def test_another_bundle_than_the_one_that_is_wanted_is_refused(toy_bundle: Path) -> None:
    digest = Bundle.open(toy_bundle).digest
    assert Bundle.open(toy_bundle, digest).digest == digest
    with pytest.raises(BundleError, match="not the one") as caught:
        Bundle.open(toy_bundle, "0" * 64)
    assert caught.value.hint
