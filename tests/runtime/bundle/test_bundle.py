"""The contract: what is refused, and in which words."""

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
from sonomime.runtime.doctor import examine
from sonomime.runtime.support.errors import BundleError, SonomimeError
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


def test_an_opened_bundle_knows_its_stages_and_files(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    assert [stage.name for stage in bundle.manifest.stages] == [
        "source", "keypoints", "transfer", "motion", "generator",
    ]  # fmt: skip
    assert bundle.manifest.stage("motion").outputs[0].name == "deformation"
    assert bundle.read("motion.onnx") == (toy_bundle / "motion.onnx").read_bytes()
    assert bundle.digest == sha256_file(toy_bundle / "manifest.json")
    with pytest.raises(BundleError, match="no stage 'nothing'"):
        bundle.manifest.stage("nothing")
    with pytest.raises(BundleError, match="names no file"):
        bundle.read("manifest.json")


def test_a_written_manifest_reads_as_it_was(toy_bundle: Path, tmp_path: Path) -> None:
    manifest = Bundle.open(toy_bundle).manifest
    path = write_manifest(tmp_path, manifest)
    assert parse_manifest(path.read_text()) == manifest
    data = json.loads(path.read_text())
    assert data["recurrent"] == [{"from": "next_state", "to": "state"}]
    assert data["control"]["kind"] == "keypoints"
    assert next(iter(data)) == "schema_version"


def test_an_invalid_manifest_is_not_written(toy_bundle: Path, tmp_path: Path) -> None:
    manifest = replace(Bundle.open(toy_bundle).manifest, stages=())
    with pytest.raises(BundleError, match="0 source"):
        write_manifest(tmp_path, manifest)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["motion.onnx", "golden_output.png", "MODEL_CARD.md"])
def test_a_changed_byte_is_found_in_every_file(spoiled: Path, file: str) -> None:
    content = bytearray((spoiled / file).read_bytes())
    content[len(content) // 2] ^= 1
    (spoiled / file).write_bytes(content)
    error = refusal(spoiled)
    assert f"{file} differs from its SHA-256" in error.message
    assert error.hint and error.exit_code == 3


def test_a_change_after_opening_is_found_when_the_file_is_used(spoiled: Path) -> None:
    bundle = Bundle.open(spoiled)
    (spoiled / "motion.onnx").write_bytes(b"something else")
    with pytest.raises(BundleError, match="differs"):
        bundle.read("motion.onnx")


def test_a_missing_file_a_missing_stage_and_a_missing_manifest(spoiled: Path) -> None:
    (spoiled / "motion.onnx").rename(spoiled / "elsewhere.onnx")
    assert "motion.onnx: cannot be read: no such file" in refusal(spoiled).message
    edit_manifest(spoiled, lambda data: data["stages"].remove(stage_of(data, "motion")))
    assert "nothing makes its input 'deformation'" in refusal(spoiled).message
    (spoiled / "manifest.json").unlink()
    assert "manifest.json: cannot be read" in refusal(spoiled).message
    shutil.rmtree(spoiled)
    assert "no bundle at" in refusal(spoiled).message


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/b.onnx", "..", ".", ".hidden", "a\\b", "x\0y", "", "manifest.json",
     "mötion.onnx", "x\n", "a" * 200],
)  # fmt: skip
def test_only_plain_names_are_followed(spoiled: Path, name: str) -> None:
    (spoiled.parent / "x").write_bytes((spoiled / "motion.onnx").read_bytes())
    edit_manifest(spoiled, lambda data: stage_of(data, "motion").update(file=name))
    error = refusal(spoiled)
    assert "is not a plain file name" in error.message


def test_links_pipes_and_folders_are_not_files(spoiled: Path) -> None:
    target = spoiled.parent / "outside.onnx"
    (spoiled / "motion.onnx").rename(target)
    (spoiled / "motion.onnx").symlink_to(target)
    assert "is a symbolic link" in refusal(spoiled).message
    (spoiled / "motion.onnx").unlink()
    os.mkfifo(spoiled / "motion.onnx")
    assert "is not a plain file" in refusal(spoiled).message
    (spoiled / "motion.onnx").unlink()
    (spoiled / "motion.onnx").mkdir()
    assert "is not a plain file" in refusal(spoiled).message


def test_a_bundle_folder_may_be_a_link(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(toy_bundle)
    assert Bundle.open(tmp_path / "link").manifest.name == "toy"


def test_an_unknown_key_names_the_nearest(spoiled: Path) -> None:
    edit_manifest(spoiled, lambda data: data.update(precison="fp32"))
    error = refusal(spoiled)
    assert "unknown key 'precison'" in error.message
    assert error.hint == "did you mean 'precision'?"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("precision"), "missing key 'precision'"),
        (lambda d: d.update(precision="fp8"), "precision: expected 'fp32' or 'fp16'"),
        (lambda d: d["image"].update(channels=2), "image.channels: expected 1 or 3"),
        (lambda d: d["image"].update(channels=True), "image.channels: expected 1 or 3"),
        (lambda d: d["image"].update(size=64.0), "image.size: expected an integer"),
        (lambda d: d["image"].update(size=8), "image.size: expected 16 to 4096"),
        (lambda d: d.update(geometry="pixels"), "geometry: expected"),
        (lambda d: d["control"].update(count=0), "control.count"),
        (lambda d: d["control"]["supervised"][0].update(index=3), "no such keypoint"),
        (lambda d: d["control"]["supervised"][0].update(name="a" * 101), "cannot be a name"),
        (lambda d: d["control"].update(kind="rays"), "'keypoints' or 'displacement'"),
        (lambda d: d["control"].pop("kind"), "'keypoints' or 'displacement'"),
        (lambda d: d["control"].update(kind="displacement"), "unknown key 'count'"),
        (lambda d: d.update(control=None), "'keypoints' or 'displacement'"),
        (lambda d: d["controls"][1].update(default=11), "outside of the range"),
        (lambda d: d["controls"][1].update(range=[3, 2]), "outside of the range"),
        (lambda d: d["controls"][1].update(name="relative"), "one name"),
        (lambda d: d["controls"][1].update(name="a b"), "letters, digits"),
        (lambda d: d["golden"].update(motion="sideways"), "golden.motion"),
        (lambda d: d["tolerances"].update(frame_levels=None), "tolerances"),
        (lambda d: d["golden"].pop("reference"), "missing key 'reference'"),
        (lambda d: d["stages"][0].update(role="once"), "role: expected"),
        (lambda d: d.update(schema_version=3), "schema version 3, this runtime reads 2"),
        (lambda d: d.update(stages={}), "stages: expected a list"),
        (lambda d: d["stages"][1].update(sha256="ABC"), "64 lower-case hexadecimal"),
        (lambda d: d["stages"][0]["inputs"][0].update(shape=[1, -1]), "impossible shape"),
        (lambda d: d["stages"][0]["inputs"][0].update(shape=[1] * 9), "impossible shape"),
        (lambda d: d["stages"][0]["inputs"][0].update(shape=[2**20, 2**20]), "impossible shape"),
        (lambda d: d["stages"][0]["inputs"][0].update(name="a b"), "letters, digits"),
        (lambda d: d["tolerances"].update(stage_abs=1e400), "not valid JSON"),
        (lambda d: d["golden"].update(output=None), "golden.output: expected a table"),
    ],
)
def test_values_out_of_the_schema(spoiled: Path, change: Any, words: str) -> None:
    edit_manifest(spoiled, change)
    assert words in refusal(spoiled).message


def test_landmarks_have_names_that_can_be_shown(displacement_toy: Path, tmp_path: Path) -> None:
    spoiled = copy_bundle(displacement_toy, tmp_path / "spoiled")
    edit_manifest(spoiled, lambda data: data["control"].update(landmarks=["left", "a\x1b[2J"]))
    assert r"'a\x1b[2J' cannot be a name" in refusal(spoiled).message


def test_a_bundle_of_version_1_is_to_be_exported_again(spoiled: Path) -> None:
    edit_manifest(spoiled, lambda data: data.update(schema_version=1))
    error = refusal(spoiled)
    assert "version 1" in error.message and "export" in error.hint


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"name": 1, "name": 2}', "[" * 100_000, '{"schema_version": 1e5000}',
     '{"schema_version": ' + "1" * 5000 + "}", "\ufeff{}", "{'name': 1}"],
)  # fmt: skip
def test_text_that_is_no_manifest(text: str) -> None:
    with pytest.raises(BundleError):
        parse_manifest(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(BundleError, match="not valid JSON"):
        parse_manifest(b'{"name": "\xff\xfe"}')


def test_a_huge_manifest_is_not_read(spoiled: Path) -> None:
    with (spoiled / "manifest.json").open("a") as file:
        file.write(" " * (1 << 20))
    assert "larger than 1 MiB" in refusal(spoiled).message


def test_a_bundle_that_passes_the_driving_frame_on_does_not_open(spoiled: Path) -> None:
    """From the detector to the generator, under another name: it used to open and play."""

    def leak(data: dict[str, Any]) -> None:
        copy = {"name": "driving_copy", "dtype": "uint8", "shape": [1, 1, 64, 64], "meaning": ""}
        stage_of(data, "keypoints")["outputs"].append(copy)
        stage_of(data, "generator")["inputs"].append(copy)

    edit_manifest(spoiled, leak)
    error = refusal(spoiled)
    assert "driving_copy" in error.message and "generator" in error.message
    (check,) = (check for check in examine(spoiled) if check.name == "bundle")
    assert (check.state, check.exit_code) == ("fail", 3)


def paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data."""
    found = [prefix] if prefix else []
    pairs = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in pairs:
        found += paths(value, (*prefix, key))
    return found


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(["../x", "frame", "state", "driving_frame", "source_image", "relative"]),
    st.lists(st.integers(-2, 300), max_size=5),
    st.dictionaries(st.text(max_size=8), st.integers(), max_size=3),
)


@settings(max_examples=100)
@given(data=st.data())
def test_a_mutated_manifest_is_read_or_refused_and_nothing_else(
    toy_bundle: Path, data: st.DataObject
) -> None:
    original = json.loads((toy_bundle / "manifest.json").read_text())
    mutated = copy.deepcopy(original)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(paths(mutated)))
        parent = mutated
        for key in way:
            parent = parent[key]
        action = data.draw(st.sampled_from(["replace", "remove", "add", "swap"]))
        if action == "remove":
            del parent[last]
        elif action == "add" and isinstance(parent, dict):
            parent[data.draw(st.text(max_size=10))] = data.draw(JUNK)
        elif action == "swap":
            *other, key = data.draw(st.sampled_from(paths(original)))
            node: Any = original
            for step in (*other, key):
                node = node[step]
            parent[last] = copy.deepcopy(node)
        else:
            parent[last] = data.draw(JUNK)
        if not paths(mutated):
            break
    try:
        manifest = parse_manifest(json.dumps(mutated))
    except BundleError as error:
        assert error.message
    else:
        check_wiring(manifest)


@settings(max_examples=60)
@given(cut=st.integers(0, 5000), junk=st.binary(max_size=20))
def test_a_damaged_manifest_file_raises_a_bundle_error_only(
    toy_bundle: Path, cut: int, junk: bytes
) -> None:
    text = (toy_bundle / "manifest.json").read_bytes()
    damaged = text[:cut] + junk + text[cut + len(junk) :]
    try:
        parse_manifest(damaged)
    except SonomimeError as error:
        assert isinstance(error, BundleError)
