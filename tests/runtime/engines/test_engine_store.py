"""Engines that are stale, foreign, changed or not trusted: each refused in words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_files import GPU, TRT, engines_of, manifest_of
from toy_bundle import copy_bundle, replace_file

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_file import read_engine_file, write_engine_file
from sonomime.runtime.engines.engine_store import (
    Facts,
    cache_root,
    cached_path,
    is_trusted,
    load_engines,
    record_trust,
    store,
    trust,
)
from sonomime.runtime.engines.tensorrt_packages import RECIPE, gpu_target, rtx_target
from sonomime.runtime.support.errors import BackendError, OutputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)
    return tmp_path / "cache" / "sonomime" / "engines"


@pytest.fixture
def toy(toy_bundle: Path) -> Bundle:
    return Bundle.open(toy_bundle)


def put(bundle: Bundle, **changes: Any) -> Path:
    """As `sonomime build` leaves it in the cache."""
    manifest = manifest_of(bundle, **changes)
    record_trust(store(manifest, engines_of(bundle)), "built")
    return cached_path(Facts.stated(manifest))


def refused(bundle: Bundle, **wanted: Any) -> BackendError:
    asked: dict[str, Any] = {"flavour": "tensorrt", "trt": TRT, "targets": [GPU], **wanted}
    with pytest.raises(BackendError) as caught:
        load_engines(bundle, **asked)
    assert caught.value.exit_code == 4 and "sonomime build" in caught.value.hint
    return caught.value


def test_what_was_built_is_found(toy: Bundle) -> None:
    file = put(toy)
    assert load_engines(toy, "tensorrt", TRT, [GPU]) == engines_of(toy)
    assert file.stat().st_mode & 0o777 == 0o600
    assert cache_root().stat().st_mode & 0o777 == 0o700


def test_none_built(toy: Bundle) -> None:
    error = refused(toy)
    assert "no tensorrt engines of bundle 'toy'" in error.message
    assert error.hint == f"run: sonomime build {toy.folder} --flavour tensorrt"


def test_built_of_another_bundle(toy: Bundle, toy_bundle: Path, tmp_path: Path) -> None:
    put(toy)
    folder = copy_bundle(toy_bundle, tmp_path / "changed")
    # The same graph with something more in it: ONNX ignores unknown trailing metadata.
    replace_file(folder, "motion.onnx", (folder / "motion.onnx").read_bytes() + b"\x32\x01x")
    changed = Bundle.open(folder)
    assert "another bundle, or the bundle has changed" in refused(changed).message


def test_a_card_that_changes_makes_no_engine_stale(
    toy: Bundle, toy_bundle: Path, tmp_path: Path
) -> None:
    put(toy)
    folder = copy_bundle(toy_bundle, tmp_path / "changed")
    replace_file(folder, "MODEL_CARD.md", b"# Another card\n")
    assert load_engines(Bundle.open(folder), "tensorrt", TRT, [GPU]) == engines_of(toy)


def test_of_another_gpu(toy: Bundle) -> None:
    put(toy, targets=(gpu_target("NVIDIA T4", 7, 5),))
    assert "it is for NVIDIA T4 7.5, not NVIDIA L4 8.9" in refused(toy).message


def test_of_another_version(toy: Bundle) -> None:
    put(toy, version="8.6.1")
    assert "built by version 8.6.1, 10.7.0 is installed" in refused(toy).message


@pytest.mark.parametrize(
    ("recipe", "told"), [("strongly typed", "'strongly typed'"), ("", "of an older sonomime")]
)
def test_built_with_other_options(recipe: str, told: str, toy: Bundle) -> None:
    put(toy, recipe=recipe)
    assert f"built with the options {told}, not '{RECIPE}'" in refused(toy).message
    put(toy)
    assert load_engines(toy, "tensorrt", TRT, [GPU]) == engines_of(toy), "beside the old ones"


def test_of_another_flavour(toy: Bundle) -> None:
    put(toy)
    message = refused(toy, flavour="rtx", targets=["SM80"]).message
    assert "for tensorrt, not rtx" in message


def test_an_rtx_file_serves_every_gpu_that_it_was_built_for(toy: Bundle) -> None:
    put(toy, flavour="rtx", targets=("SM80", "SM89"))
    for target in (rtx_target(8, 0), rtx_target(8, 9)):
        assert load_engines(toy, "rtx", TRT, [target]) == engines_of(toy)
    error = refused(toy, flavour="rtx", targets=[rtx_target(12, 0)])
    assert "SM80, SM89, not SM120" in error.message


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_a_gpu_that_rtx_does_not_serve_is_not_told_to_build(
    toy: Bundle, capability: tuple[int, int]
) -> None:
    with pytest.raises(BackendError, match="builds no portable engines for") as caught:
        load_engines(toy, "rtx", TRT, [rtx_target(*capability)])
    assert "SM80, SM89, SM120" in caught.value.message and "ort-cuda" in caught.value.hint


def test_the_nearest_says_why(toy: Bundle) -> None:
    put(toy, version="8.6.1", targets=("NVIDIA T4 7.5",))
    put(toy, version="10.6.0")
    message = refused(toy).message
    assert "10.6.0" in message and "T4" not in message


@pytest.mark.parametrize("installed", [b"another", b""])
def test_of_another_plugin_or_none(
    installed: bytes, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(toy, plugin_sha256="ab" * 32)
    if installed:
        (tmp_path / "plugin.so").write_bytes(installed)
        monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "plugin.so"))
    there = "another is installed" if installed else "there is none"
    assert f"calls the plugin abababababab, and {there}" in refused(toy).message


def test_engines_without_the_plugin_serve_where_one_is(
    toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(toy)
    (tmp_path / "plugin.so").write_bytes(b"machine code")
    monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "plugin.so"))
    assert load_engines(toy, "tensorrt", TRT, [GPU]) == engines_of(toy)


def test_a_file_from_elsewhere_is_used_once_it_is_trusted(toy: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "from-elsewhere.engine"
    digest = write_engine_file(file, manifest_of(toy), engines_of(toy))
    refused(toy)
    assert trust(file).sha256 == digest and is_trusted(digest)
    file.unlink()
    assert load_engines(toy, "tensorrt", TRT, [GPU]) == engines_of(toy), "a copy is kept"


def test_what_can_never_serve_is_not_trusted(toy: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "old.engine"
    digest = write_engine_file(file, replace(manifest_of(toy), recipe=""), engines_of(toy))
    with pytest.raises(BackendError, match=r"old\.engine can serve nothing here: .*older sonomime"):
        trust(file)
    assert not is_trusted(digest) and not cache_root().exists()


def test_a_file_put_into_the_cache_is_not_trusted_for_being_there(toy: Bundle) -> None:
    path = cached_path(Facts.stated(manifest_of(toy)))
    put(toy, version="11.0")  # so that there is a cache
    write_engine_file(path, manifest_of(toy), engines_of(toy))
    assert "changed since it was built or trusted" in refused(toy).message
    trust(path)
    assert load_engines(toy, "tensorrt", TRT, [GPU]) == engines_of(toy)


def test_a_cached_file_that_was_replaced(toy: Bundle) -> None:
    file = put(toy)
    other = {**engines_of(toy), "motion": b"engine of malic3"}
    stages = tuple(
        replace(s, size=len(other[s.name]), sha256=hashlib.sha256(other[s.name]).hexdigest())
        for s in manifest_of(toy).stages
    )
    write_engine_file(file, manifest_of(toy, stages=stages), other)
    error = refused(toy)
    assert "was changed since it was built or trusted" in error.message
    assert error.hint.startswith("run: sonomime build")


def test_edited(toy: Bundle) -> None:
    file = put(toy)
    content = bytearray(file.read_bytes())
    content[content.index(b"engine of motion")] ^= 1
    file.write_bytes(content)
    assert refused(toy).message.startswith(f"{file} cannot be used: motion.engine")


def open_records(root: Path) -> None:
    (root / "trusted").chmod(0o770)


def open_cache(root: Path) -> None:
    root.chmod(0o777)


def link_records(root: Path) -> None:
    (root / "trusted").rename(root.parent / "moved")
    (root / "trusted").symlink_to(root.parent / "moved")


@pytest.mark.parametrize("opened", [open_records, link_records])
def test_records_that_others_could_have_written_are_not_believed(
    opened: Callable[[Path], None], toy: Bundle
) -> None:
    put(toy)
    opened(cache_root())
    assert "folder was open to others" in refused(toy).message


def test_a_cache_that_was_open_begins_anew(toy: Bundle, tmp_path: Path) -> None:
    digest = read_engine_file(put(toy)).sha256
    open_cache(cache_root())
    put(toy, version="11.0")
    assert not is_trusted(digest)
    assert cache_root().stat().st_mode & 0o777 == 0o700
    assert len(list(cache_root().glob("*.engine"))) == 1


def test_a_cache_that_is_a_link_is_refused(toy: Bundle, tmp_path: Path) -> None:
    cache_root().parent.mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    cache_root().symlink_to(tmp_path / "theirs")
    with pytest.raises(OutputError, match="no folder of its own"):
        put(toy)


@pytest.mark.parametrize("trouble", [PermissionError(13, "denied"), RuntimeError("no home")])
def test_a_cache_that_cannot_be_read_is_told(
    toy: Bundle, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(facts: Facts) -> Path:
        raise trouble

    monkeypatch.setattr("sonomime.runtime.engines.engine_store.cached_path", refuse)
    with pytest.raises(BackendError, match="cache of engines cannot be read") as raised:
        load_engines(toy, "tensorrt", TRT, [GPU])
    assert "XDG_CACHE_HOME" in raised.value.hint
