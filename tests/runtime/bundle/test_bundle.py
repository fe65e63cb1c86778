"""Bundles that open, and everything that is refused."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bundle import copy_bundle, edit_manifest

from sonomime.runtime.bundle.bundle import Bundle, parse_manifest, write_manifest
from sonomime.runtime.bundle.checks import check_wiring
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


def stage_of(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(stage for stage in data["stages"] if stage["name"] == name)


def test_an_opened_bundle_knows_its_stages_and_files(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(toy_bundle)
    bundle = Bundle.open(tmp_path / "link")
    assert bundle.manifest.stage("motion").outputs[0].name == "deformation"
    assert bundle.read("motion.onnx") == (toy_bundle / "motion.onnx").read_bytes()
    assert bundle.digest == sha256_file(toy_bundle / "manifest.json")
    for missing in (lambda: bundle.manifest.stage("none"), lambda: bundle.read("manifest.json")):
        with pytest.raises(BundleError):
            missing()


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


@pytest.mark.parametrize("file", ["motion.onnx", "golden_output.png", "MODEL_CARD.md"])
def test_a_changed_byte_and_a_missing_file_are_found(spoiled: Path, file: str) -> None:
    opened = Bundle.open(spoiled)
    content = bytearray((spoiled / file).read_bytes())
    content[len(content) // 2] ^= 1
    (spoiled / file).write_bytes(content)
    error = refusal(spoiled)
    assert f"{spoiled / file} differs" in error.message and error.hint and error.exit_code == 3
    with pytest.raises(BundleError):
        opened.read(file)  # also after opening
    for missing in (spoiled / file, spoiled / "manifest.json"):
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
    edit_manifest(spoiled, lambda data: stage_of(data, "motion").update(file=name))
    assert ascii(name[:100]) in refusal(spoiled).message


def test_links_pipes_and_folders_are_not_files(spoiled: Path) -> None:
    file, outside = spoiled / "motion.onnx", spoiled.parent / "outside.onnx"
    file.rename(outside)
    for make in (lambda: file.symlink_to(outside), lambda: os.mkfifo(file), file.mkdir):
        make()
        assert str(file) in refusal(spoiled).message
        if not file.is_dir():
            file.unlink()


@pytest.mark.parametrize(
    ("place", "changes", "words"),
    [
        ("", {"precison": "fp32"}, "'precison'"),
        ("", {"precision": "fp8"}, "precision:"),
        ("image", {"channels": True}, "image.channels:"),
        ("image", {"size": 64.0}, "image.size:"),
        ("image", {"size": 8}, "image.size:"),
        ("", {"geometry": "pixels"}, "geometry:"),
        ("control", {"count": 0}, "control.count:"),
        ("control.supervised.0", {"index": 3}, "control.supervised[0].index:"),
        ("control.supervised.0", {"name": "a" * 101}, "control:"),
        ("control", {"grid_height": 8}, "'grid_height'"),
        ("", {"control": None}, "control:"),
        ("controls.1", {"default": 11}, "controls[1]:"),
        ("controls.1", {"range": [3, 2]}, "controls[1]:"),
        ("controls.1", {"name": "relative"}, "'relative'"),
        ("controls.1", {"name": "a b"}, "controls[1].name:"),
        ("golden", {"motion": "sideways"}, "golden.motion:"),
        ("golden", {"output": None}, "golden.output:"),
        ("tolerances", {"frame_levels": None}, "tolerances:"),
        ("tolerances", {"stage_abs": 1e400}, "JSON"),
        ("stages.0", {"role": "once"}, "role:"),
        ("", {"stages": {}}, "stages:"),
        ("stages.1", {"sha256": "ABC"}, "sha256"),
        ("stages.0.inputs.0", {"shape": [1, -1]}, "[1, -1]"),
        ("stages.0.inputs.0", {"shape": [1] * 9}, "shape"),
        ("stages.0.inputs.0", {"shape": [2**20, 2**20]}, "shape"),
        ("stages.0.inputs.0", {"name": "a b"}, "'a b'"),
        ("", {"name": "toy\x1b[2J"}, r"'toy\x1b[2J'"),
        ("provenance.data.0", {"licence": "\u202e"}, r"'\u202e'"),
    ],
)
def test_values_out_of_the_schema(
    spoiled: Path, place: str, changes: dict[str, Any], words: str
) -> None:
    keys = [int(key) if key.isdecimal() else key for key in place.split(".") if key]
    edit_manifest(spoiled, lambda data: at(data, tuple(keys)).update(changes))
    message = refusal(spoiled).message
    assert words in message and str(spoiled / "manifest.json") in message


def test_what_must_be_given(spoiled: Path) -> None:
    edit_manifest(spoiled, lambda data: data["golden"].pop("reference"))
    assert "'reference'" in refusal(spoiled).message


def test_other_versions_of_the_schema(spoiled: Path) -> None:
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


def paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data."""
    found = [prefix] if prefix else []
    items = enumerate(data) if isinstance(data, list) else getattr(data, "items", tuple)()
    for key, value in items:
        found += paths(value, (*prefix, key))
    return found


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30),
    st.sampled_from(["../x", "frame", "state", "driving_frame", "source_image", "relative"]),
    st.lists(st.integers(-2, 300), max_size=5),
    st.dictionaries(st.text(max_size=8), st.integers(), max_size=3),
)  # fmt: skip


@settings(max_examples=100)
@given(data=st.data())
def test_a_mutated_manifest_is_read_or_refused_and_nothing_else(
    toy_bundle: Path, data: st.DataObject
) -> None:
    original = json.loads((toy_bundle / "manifest.json").read_text())
    mutated = copy.deepcopy(original)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(paths(mutated)))
        elsewhere = at(original, data.draw(st.sampled_from(paths(original))))
        parent = at(mutated, tuple(way))
        if data.draw(st.booleans()):
            del parent[last]
        else:
            parent[last] = data.draw(st.one_of(JUNK, st.just(copy.deepcopy(elsewhere))))
        if not mutated:
            break
    try:
        manifest = parse_manifest(json.dumps(mutated))
    except BundleError as error:
        assert error.message
    else:
        check_wiring(manifest)
