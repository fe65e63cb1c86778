"""Engines that are damaged, stale, foreign, changed or not trusted: each refused in words."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_files import GPU, TRT, engines_of, manifest_of
from toy_bundle import copy_bundle, replace_file

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines import engine_store
from sonomime.runtime.engines.engine_file import write_engine_file
from sonomime.runtime.engines.engine_store import (
    Facts,
    cache_root,
    cached_path,
    is_trusted,
    load_engines,
    store,
    trust,
)
from sonomime.runtime.engines.tensorrt_packages import rtx_target
from sonomime.runtime.support.dataclass_parser import plain
from sonomime.runtime.support.errors import BackendError, OutputError

NESTED = b"[" * 100_000


@pytest.fixture
def toy(toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)
    return Bundle.open(toy_bundle)


def put(bundle: Bundle, **changes: Any) -> Path:
    """As `sonomime build` leaves it in the cache."""
    manifest = manifest_of(bundle, **changes)
    store(manifest, engines_of(bundle), "built")
    return cached_path(Facts.stated(manifest))


def serves(bundle: Bundle, flavour: str = "tensorrt", target: str = GPU) -> bool:
    return load_engines(bundle, flavour, TRT, [target]) == engines_of(bundle)


def refused(bundle: Bundle, **wanted: Any) -> BackendError:
    asked: dict[str, Any] = {"flavour": "tensorrt", "trt": TRT, "targets": [GPU], **wanted}
    with pytest.raises(BackendError) as caught:
        load_engines(bundle, **asked)
    assert caught.value.exit_code == 4 and "sonomime build" in caught.value.hint
    return caught.value


# -- the file --------------------------------------------------------------------------------------


def archive_of(
    bundle: Bundle, compress: int = zipfile.ZIP_STORED, **changes: bytes | None
) -> bytes:
    """A sound file, but for members that are replaced, added or, by None, left out."""
    members: dict[str, bytes | None] = {"manifest": json.dumps(plain(manifest_of(bundle))).encode()}
    members |= engines_of(bundle)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as archive:
        for name, content in (members | changes).items():
            if content is not None:
                kind = "json" if name == "manifest" else "engine"
                archive.writestr(f"{name}.{kind}", content)
    return file.getvalue()


def with_stage(bundle: Bundle, **changes: Any) -> bytes:
    return with_facts(bundle, {}, **changes)


def with_facts(bundle: Bundle, facts: dict[str, Any], **changes: Any) -> bytes:
    data = plain(manifest_of(bundle)) | facts
    data["stages"][0].update(changes)
    return archive_of(bundle, manifest=json.dumps(data).encode())


def bomb(bundle: Bundle) -> bytes:
    """Sizes in the directory that lie: the members would overlap, or be larger than the file."""
    content = bytearray(archive_of(bundle))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = (1 << 30).to_bytes(4, "little") * 2
    return bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda b: archive_of(b)[:-30], "cut off"),
        (bomb, "more bytes than it has"),
        (lambda b: archive_of(b, zipfile.ZIP_DEFLATED), "compressed"),
        (lambda b: archive_of(b, run=b"#!"), "'run.engine'"),
        (lambda b: archive_of(b, motion=None), "motion.engine"),
        (lambda b: archive_of(b, motion=b"engine of malic3"), "motion.engine"),
        (lambda b: archive_of(b, manifest=None), "manifest.json"),
        (lambda b: archive_of(b, manifest=bytes(2 << 20)), "larger than 1 MiB"),
        (lambda b: with_stage(b, name="../../p"), "source.engine"),
        (lambda b: with_stage(b, size=1 << 40), "size"),
        (lambda b: with_facts(b, {"format": 2}), "format"),
        (lambda b: with_facts(b, {"extra": 1}), "extra"),
    ],
)
def test_what_is_not_a_sound_engine_file(
    make: Callable[[Bundle], bytes], words: str, toy: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "a.engine").write_bytes(make(toy))
    for file, said in ((tmp_path / "a.engine", words), (tmp_path, "cannot be read")):
        with pytest.raises(BackendError) as caught:
            trust(file)
        assert str(file) in caught.value.message and said in caught.value.message
        assert "sonomime build" in caught.value.hint
    assert not cache_root().exists(), "nothing is kept of it"


# -- the cache -------------------------------------------------------------------------------------


def test_what_was_built_is_found_until_the_bundle_changes(
    toy: Bundle, toy_bundle: Path, tmp_path: Path
) -> None:
    error = refused(toy)
    assert "'toy'" in error.message
    assert error.hint == f"run: sonomime build {toy.folder} --flavour tensorrt"
    put(toy)
    assert serves(toy)
    folder = copy_bundle(toy_bundle, tmp_path / "changed")
    replace_file(folder, "MODEL_CARD.md", b"# Another card\n")
    assert serves(Bundle.open(folder))
    # The same graph with something more in it: ONNX ignores unknown trailing metadata.
    replace_file(folder, "motion.onnx", (folder / "motion.onnx").read_bytes() + b"\x32\x01x")
    assert "another bundle" in refused(Bundle.open(folder)).message


def test_stale_engines_say_what_changed(
    toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx: dict[str, Any] = {"flavour": "rtx", "targets": ["SM80"]}
    t4 = {"targets": ("NVIDIA T4 7.5",)}
    for changes, wanted, words in (
        (t4, {}, "NVIDIA T4 7.5, not NVIDIA L4 8.9"),
        ({"version": "8.6.1"}, {}, "version 8.6.1, 10.7.0 is installed"),
        ({"recipe": "strongly typed"}, {}, "options 'strongly typed'"),
        ({"recipe": ""}, {}, "options of an older sonomime"),
        ({}, rtx, "for tensorrt, not rtx"),
        ({"plugin_sha256": "ab" * 32}, {}, "abababababab, and there is none"),
    ):
        put(toy, **changes)
        assert words in refused(toy, **wanted).message
        put(toy, version="8.6.1", **t4)  # of several the nearest says why
        assert words in refused(toy, **wanted).message
        put(toy)
        assert serves(toy), "beside the old ones"
        shutil.rmtree(cache_root())
    put(toy, plugin_sha256="ab" * 32)
    (tmp_path / "plugin.so").write_bytes(b"another")
    monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "plugin.so"))
    assert "another is installed" in refused(toy).message
    put(toy)
    assert serves(toy), "engines that call none"


def test_an_rtx_file_serves_every_gpu_that_it_was_built_for(toy: Bundle) -> None:
    put(toy, flavour="rtx", targets=("SM80", "SM89"))
    assert serves(toy, "rtx", rtx_target(8, 0)) and serves(toy, "rtx", rtx_target(8, 9))
    error = refused(toy, flavour="rtx", targets=[rtx_target(12, 0)])
    assert "SM80, SM89, not SM120" in error.message
    for capability in ((7, 5), (9, 0)):  # building would not help
        with pytest.raises(BackendError, match="SM80, SM89, SM120") as caught:
            load_engines(toy, "rtx", TRT, [rtx_target(*capability)])
        assert "ort-cuda" in caught.value.hint and "build" not in caught.value.hint


def test_a_damaged_file_does_not_hide_a_sound_one(toy: Bundle) -> None:
    sound = put(toy)
    content = sound.read_bytes()
    sound.rename(sound.with_name("b.engine"))
    damaged = content.replace(b"engine of motion", b"engine of motiom")
    sound.with_name("a.engine").write_bytes(damaged)
    assert serves(toy)


def test_a_file_of_an_older_version_is_not_trusted(toy: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "from-elsewhere.engine"
    old = write_engine_file(file, replace(manifest_of(toy), recipe=""), engines_of(toy))
    with pytest.raises(BackendError, match=r"elsewhere\.engine .*older sonomime"):
        trust(file)
    assert not is_trusted(old) and not cache_root().exists()


def test_a_cached_file_that_was_put_there_replaced_edited_or_damaged(toy: Bundle) -> None:
    file = cached_path(Facts.stated(manifest_of(toy)))
    put(toy, version="11.0")  # so that there is a cache
    write_engine_file(file, manifest_of(toy), engines_of(toy))
    assert "changed since it was built or trusted" in refused(toy).message
    trust(file)
    assert serves(toy)
    other = {**engines_of(toy), "motion": b"engine of malic3"}
    stages = tuple(
        replace(s, size=len(other[s.name]), sha256=hashlib.sha256(other[s.name]).hexdigest())
        for s in manifest_of(toy).stages
    )
    write_engine_file(file, manifest_of(toy, stages=stages), other)
    assert "changed since it was built or trusted" in refused(toy).message
    put(toy)
    assert serves(toy), "built again"
    (cache_root() / "other.engine").write_bytes(NESTED)
    for record in (cache_root() / "trusted").iterdir():
        record.write_bytes(NESTED)
    assert "trusted" in refused(toy).message
    file.write_bytes(file.read_bytes().replace(b"engine of motion", b"engine of motiom"))
    assert str(file) in refused(toy).message
    file.unlink()
    assert "no tensorrt engines" in refused(toy).message


def test_a_cache_that_others_could_have_written_is_not_believed(toy: Bundle) -> None:
    put(toy)
    records = cache_root() / "trusted"
    records.chmod(0o770)
    assert "folder was open to others" in refused(toy).message
    records.chmod(0o700)
    assert serves(toy)
    (record,) = records.iterdir()
    record.chmod(0o644)
    assert "folder was open to others" in refused(toy).message
    record.chmod(0o600)
    record.rename(records.parent / "elsewhere")
    record.symlink_to(records.parent / "elsewhere")
    assert "folder was open to others" in refused(toy).message
    (records.parent / "elsewhere").rename(record)
    assert serves(toy)
    records.rename(records.with_name("moved"))
    records.symlink_to(records.with_name("moved"))
    assert "folder was open to others" in refused(toy).message
    cache_root().chmod(0o777)
    put(toy, version="11.0")  # begins a new one
    assert len(list(cache_root().glob("*.engine"))) == 1


def fail(error: Exception) -> Callable[..., Path]:
    def raise_it(*arguments: object, **options: object) -> Path:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("place", "name", "error"),
    [
        (zipfile.ZipFile, "writestr", OSError(errno.ENOSPC, "No space left on device")),
        (engine_store, "cache_folder", OutputError("no home")),
        (Path, "mkdir", PermissionError(13, "denied")),
        (Path, "is_dir", None),  # a link
    ],
)
def test_a_cache_that_cannot_be_written_or_read_is_named_with_its_cure(
    toy: Bundle, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: Exception | None
) -> None:
    if error is None:
        cache_root().parent.mkdir(parents=True)
        cache_root().symlink_to(cache_root().parent)
    else:
        monkeypatch.setattr(place, name, fail(error))
    with pytest.raises(OutputError, match="the cache of engines cannot be written") as caught:
        store(manifest_of(toy), engines_of(toy), "built")
    assert "XDG_CACHE_HOME" in caught.value.hint and "-o" not in caught.value.hint
    monkeypatch.setattr(engine_store, "cached_path", fail(error or PermissionError()))
    with pytest.raises(BackendError, match="cache of engines cannot be read") as raised:
        load_engines(toy, "tensorrt", TRT, [GPU])
    assert "XDG_CACHE_HOME" in raised.value.hint
