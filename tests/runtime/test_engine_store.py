"""Engine files that are stale, foreign, edited, cut off or made to harm: each refused in words."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import types
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_bundle import copy_bundle, replace_file

from sonomime.runtime.bundle import Bundle
from sonomime.runtime.engine_file import (
    EngineManifest,
    Precision,
    StageEngine,
    read_engine_file,
    read_engine_manifest,
    write_engine_file,
)
from sonomime.runtime.engine_store import (
    Facts,
    cache_root,
    cached_path,
    gpu_target,
    is_trusted,
    load_engines,
    record_trust,
    rtx_target,
    store,
    trust,
)
from sonomime.runtime.errors import BackendError, OutputError
from sonomime.runtime.strict import plain

RTX = types.SimpleNamespace(__members__=dict.fromkeys(("NONE", "SM75", "SM80", "SM89", "SM120")))
TRT: Any = types.SimpleNamespace(__version__="10.7.0", ComputeCapability=RTX)
GPU = gpu_target("NVIDIA L4", 8, 9)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)
    return tmp_path / "cache" / "sonomime" / "engines"


@pytest.fixture
def toy(toy_bundle: Path) -> Bundle:
    return Bundle.open(toy_bundle)


def engines_of(bundle: Bundle) -> dict[str, bytes]:
    return {stage.name: b"engine of " + stage.name.encode() for stage in bundle.manifest.stages}


def manifest_of(bundle: Bundle, **changes: Any) -> EngineManifest:
    engines = engines_of(bundle)
    stages = tuple(
        StageEngine(
            stage.name, stage.sha256, len(engines[stage.name]),
            hashlib.sha256(engines[stage.name]).hexdigest(), 0.1, 3, (Precision("float32", 3),),
        )
        for stage in bundle.manifest.stages
    )  # fmt: skip
    made = EngineManifest(
        bundle.manifest.name, bundle.digest, "tensorrt", TRT.__version__, (GPU,), stages
    )
    return replace(made, **changes)


def put(bundle: Bundle, **changes: Any) -> Path:
    """As `sonomime build` leaves it in the cache."""
    manifest = manifest_of(bundle, **changes)
    record_trust(store(manifest, engines_of(bundle)), "built")
    return cached_path(Facts.stated(manifest))


def refused(bundle: Bundle, file: Path | None = None, **wanted: Any) -> BackendError:
    asked: dict[str, Any] = {"flavour": "tensorrt", "trt": TRT, "targets": [GPU], **wanted}
    with pytest.raises(BackendError) as caught:
        load_engines(bundle, file=file, **asked)
    assert caught.value.exit_code == 4
    if "trust" not in caught.value.hint:
        assert "sonomime build" in caught.value.hint
    return caught.value


def test_what_was_built_is_found(toy: Bundle) -> None:
    file = put(toy)
    assert load_engines(toy, "tensorrt", TRT, [GPU]) == engines_of(toy)
    assert load_engines(toy, "tensorrt", TRT, [GPU], file) == engines_of(toy)
    assert file.stat().st_mode & 0o777 == 0o600
    assert cache_root().stat().st_mode & 0o777 == 0o700


def test_none_built(toy: Bundle) -> None:
    error = refused(toy)
    assert "no tensorrt engines of bundle 'toy'" in error.message
    assert error.hint == f"run: sonomime build {toy.folder} --flavour tensorrt"


def test_built_of_another_bundle(toy: Bundle, toy_bundle: Path, tmp_path: Path) -> None:
    file = put(toy)
    folder = copy_bundle(toy_bundle, tmp_path / "changed")
    # The same graph with something more in it: ONNX ignores unknown trailing metadata.
    replace_file(folder, "motion.onnx", (folder / "motion.onnx").read_bytes() + b"\x32\x01x")
    changed = Bundle.open(folder)
    for error in (refused(changed), refused(changed, file)):
        assert "another bundle, or the bundle has changed" in error.message


def test_a_card_that_changes_makes_no_engine_stale(
    toy: Bundle, toy_bundle: Path, tmp_path: Path
) -> None:
    put(toy)
    folder = copy_bundle(toy_bundle, tmp_path / "changed")
    replace_file(folder, "MODEL_CARD.md", b"# Another card\n")
    assert load_engines(Bundle.open(folder), "tensorrt", TRT, [GPU]) == engines_of(toy)


def test_of_another_gpu(toy: Bundle) -> None:
    file = put(toy, targets=(gpu_target("NVIDIA T4", 7, 5),))
    for error in (refused(toy), refused(toy, file)):
        assert "it is for NVIDIA T4 7.5, not NVIDIA L4 8.9" in error.message


def test_of_another_version(toy: Bundle) -> None:
    file = put(toy, version="8.6.1")
    for error in (refused(toy), refused(toy, file)):
        assert "built by version 8.6.1, 10.7.0 is installed" in error.message


def test_of_another_flavour(toy: Bundle) -> None:
    file = put(toy)
    assert "for tensorrt, not rtx" in refused(toy, file, flavour="rtx", targets=["SM80"]).message


def test_an_rtx_file_serves_every_gpu_that_it_was_built_for(toy: Bundle) -> None:
    file = put(toy, flavour="rtx", targets=("SM80", "SM89"))
    for target in (rtx_target(8, 0), rtx_target(8, 9)):
        assert load_engines(toy, "rtx", TRT, [target]) == engines_of(toy)
    error = refused(toy, file, flavour="rtx", targets=[rtx_target(12, 0)])
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
    file = put(toy, plugin_sha256="ab" * 32)
    if installed:
        (tmp_path / "plugin.so").write_bytes(installed)
        monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "plugin.so"))
    there = "another is installed" if installed else "there is none"
    for error in (refused(toy), refused(toy, file)):
        assert f"calls the plugin abababababab, and {there}" in error.message


def test_engines_without_the_plugin_serve_where_one_is(
    toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(toy)
    (tmp_path / "plugin.so").write_bytes(b"machine code")
    monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "plugin.so"))
    assert load_engines(toy, "tensorrt", TRT, [GPU]) == engines_of(toy)


def test_a_file_from_elsewhere_is_refused_until_it_is_trusted(toy: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "from-elsewhere.engine"
    digest = write_engine_file(file, manifest_of(toy), engines_of(toy))
    error = refused(toy, file)
    assert "machine code" in error.message
    assert f"sonomime engine trust {file}" in error.hint
    assert trust(file).sha256 == digest and is_trusted(digest)
    assert load_engines(toy, "tensorrt", TRT, [GPU], file) == engines_of(toy)
    file.unlink()
    assert load_engines(toy, "tensorrt", TRT, [GPU]) == engines_of(toy), "a copy is kept"


def test_trust_is_of_the_content_not_of_the_name(toy: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "a.engine"
    write_engine_file(file, manifest_of(toy), engines_of(toy))
    trust(file)
    other = {**engines_of(toy), "motion": b"engine of malice"}
    stages = tuple(
        replace(
            stage,
            size=len(other[stage.name]),
            sha256=hashlib.sha256(other[stage.name]).hexdigest(),
        )
        for stage in manifest_of(toy).stages
    )
    write_engine_file(file, manifest_of(toy, stages=stages), other)
    assert "machine code" in refused(toy, file).message


def test_a_cached_file_that_was_replaced(toy: Bundle) -> None:
    file = put(toy)
    other = {**engines_of(toy), "motion": b"engine of malic3"}
    stages = tuple(
        replace(s, size=len(other[s.name]), sha256=hashlib.sha256(other[s.name]).hexdigest())
        for s in manifest_of(toy).stages
    )
    write_engine_file(file, manifest_of(toy, stages=stages), other)
    error = refused(toy)
    assert "was changed since it was built" in error.message
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


# ---- Files made to harm, or half made


def sound(bundle: Bundle) -> bytes:
    file = io.BytesIO()
    engines = engines_of(bundle)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", json.dumps(plain(manifest_of(bundle))))
        for name, engine in engines.items():
            archive.writestr(f"{name}.engine", engine)
    return file.getvalue()


def rewritten(
    bundle: Bundle,
    change: Callable[[dict[str, Any]], None] = lambda data: None,
    extra: tuple[str, bytes] | None = None,
    compress: int = zipfile.ZIP_STORED,
    leave: str = "",
) -> bytes:
    data = plain(manifest_of(bundle))
    change(data)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as archive:
        if leave != "manifest.json":
            archive.writestr("manifest.json", json.dumps(data))
        for name, engine in engines_of(bundle).items():
            if leave != name:
                archive.writestr(f"{name}.engine", engine)
        if extra:
            archive.writestr(*extra)
    return file.getvalue()


def twice(data: dict[str, Any]) -> None:
    data["stages"].append(data["stages"][0])


def climbing(data: dict[str, Any]) -> None:
    data["stages"][0]["name"] = "../../etc/passwd"


def longer(data: dict[str, Any]) -> None:
    data["stages"][0]["size"] = 1 << 40


def newer(data: dict[str, Any]) -> None:
    data["format"] = 2


def beyond_all(bundle: Bundle) -> bytes:
    """A member whose place, in the directory's 64-bit form, is more than any file has."""
    content = bytearray(sound(bundle))
    entry, end = content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    extra = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    size = int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)
    content[end + 12 : end + 16] = size.to_bytes(4, "little")
    content[entry + 30 : entry + 32] = len(extra).to_bytes(2, "little")
    content[entry + 42 : entry + 46] = b"\xff" * 4
    return bytes(content[:end] + extra + content[end:])


def misspelt(data: dict[str, Any]) -> None:
    data["flavor"] = data.pop("flavour")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda b: sound(b)[:-30], "cut off or no engine file"),
        (lambda b: b"", "cut off or no engine file"),
        (beyond_all, "is damaged|no engine file"),
        (lambda b: b"\x7fELF not a zip", "cut off or no engine file"),
        (lambda b: rewritten(b, compress=zipfile.ZIP_DEFLATED), "compressed"),
        (lambda b: rewritten(b, extra=("run.sh", b"#!")), "which its manifest does not name"),
        (lambda b: rewritten(b, leave="motion"), "stage 'motion' is missing"),
        (lambda b: rewritten(b, leave="manifest.json"), "no manifest.json"),
        (lambda b: rewritten(b, twice), "stages twice"),
        (lambda b: rewritten(b, climbing), "impossible names"),
        (lambda b: rewritten(b, longer), "the manifest 1099511627776"),
        (lambda b: rewritten(b, newer), "format 2"),
        (lambda b: rewritten(b, misspelt), "did you mean|unknown key 'flavor'"),
    ],
)
def test_what_is_no_sound_engine_file(
    make: Callable[[Bundle], bytes], said: str, toy: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "a.engine"
    file.write_bytes(make(toy))
    with pytest.raises(BackendError, match=said) as caught:
        trust(file)
    assert str(file) in caught.value.message and "sonomime build" in caught.value.hint
    assert not cache_root().exists(), "nothing is kept of it"


def test_a_bomb_is_refused_before_it_swells(toy: Bundle, tmp_path: Path) -> None:
    """Sizes in the directory that lie: the members would overlap, or be larger than the file."""
    content = bytearray(sound(toy))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = (1 << 30).to_bytes(4, "little") * 2
    file = tmp_path / "bomb.engine"
    file.write_bytes(content)
    with pytest.raises(BackendError, match="claim more bytes than it has"):
        read_engine_file(file)


def test_a_file_that_is_none(toy: Bundle, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.engine", tmp_path):
        with pytest.raises(BackendError, match="cannot be read"):
            read_engine_file(path)
        with pytest.raises(BackendError, match="cannot be read"):
            read_engine_manifest(path)


@given(st.data())
def test_no_damage_passes_unnoticed(
    toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bundle = Bundle.open(toy_bundle)
    content = bytearray(sound(bundle))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    file = tmp_path_factory.mktemp("damaged") / "a.engine"
    file.write_bytes(content)
    try:
        found = read_engine_file(file)
    except BackendError:
        return
    # Only what no digest covers may have changed, and that is never an engine.
    assert dict(found.engines) == engines_of(bundle)


@pytest.mark.parametrize("trouble", [PermissionError(13, "denied"), RuntimeError("no home")])
def test_a_cache_that_cannot_be_read_is_told(
    toy: Bundle, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(facts: Facts) -> Path:
        raise trouble

    monkeypatch.setattr("sonomime.runtime.engine_store.cached_path", refuse)
    with pytest.raises(BackendError, match="cache of engines cannot be read") as raised:
        load_engines(toy, "tensorrt", TRT, [GPU])
    assert "XDG_CACHE_HOME" in raised.value.hint
