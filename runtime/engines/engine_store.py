"""The user's cache of engines, and which of them are trusted.

Engines are machine code. One is used only when this user's own cache recorded its file's digest:
when `sonomime build` made it here, or when the user said `sonomime engine trust FILE`. The records
count only while no other user could have written them. What an engine was built from and for is
compared with what it is needed for, so that a stale one is an error that says what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..bundle.bundle import Bundle
from ..support.atomic_files import atomic_path, cache_folder
from ..support.errors import BackendError, OutputError
from .engine_file import EngineFile, EngineManifest, peek, read_engine_file, write_engine_file
from .tensorrt_packages import RECIPE, check_served, plugin_digest, rtx_targets


class Facts(NamedTuple):
    """What engines depend on, apart from the machine that builds them."""

    onnx: tuple[tuple[str, str], ...]  # stage and SHA-256
    flavour: str
    version: str
    targets: tuple[str, ...]
    plugin_sha256: str
    recipe: str

    @classmethod
    def wanted(cls, bundle: Bundle, flavour: str, version: str, targets: list[str]) -> Facts:
        """What a bundle needs here, now."""
        onnx = tuple((stage.name, stage.sha256) for stage in bundle.manifest.stages)
        return cls(onnx, flavour, version, tuple(targets), plugin_digest(flavour), RECIPE)

    @classmethod
    def stated(cls, made: EngineManifest) -> Facts:
        """What an engine file says it was built from and for."""
        onnx = tuple((stage.name, stage.onnx_sha256) for stage in made.stages)
        return cls(onnx, made.flavour, made.version, made.targets, made.plugin_sha256, made.recipe)


def cache_root() -> Path:
    """Where engines are kept."""
    return cache_folder() / "engines"


def cached_path(facts: Facts) -> Path:
    """Where the engines of these facts are kept."""
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return cache_root() / f"{key}.engine"


def build_command(bundle: Bundle, flavour: str, device: int = 0) -> str:
    """The command that builds a bundle's engines for the GPU of that number."""
    command = f"sonomime build {bundle.folder} --flavour {flavour}"
    # RTX engines are for every GPU that it supports.
    return f"{command} --device {device}" if device and flavour == "tensorrt" else command


def load_engines(
    bundle: Bundle, flavour: str, trt: Any, targets: list[str], device: int = 0
) -> dict[str, bytes]:
    """The engines of a bundle in this user's cache, by stage, safe to deserialise.

    Args:
        flavour: a key of FLAVOURS, and `trt` its module.
        targets: what they are to run on: `gpu_target(...)` of the GPU of number `device` for
            tensorrt, `rtx_target(...)` for rtx, or all of the flavour's targets.

    Raises:
        BackendError: no engine can be built for such a GPU; none built; built from another bundle,
            for another GPU, version or plugin, or with other options; edited, cut off, or of a file
            that this user does not trust.
    """
    check_served(flavour, trt, targets)
    wanted = Facts.wanted(bundle, flavour, trt.__version__, targets)
    # RTX engines are built for every GPU that it serves.
    usual = wanted._replace(targets=tuple(rtx_targets(trt))) if flavour == "rtx" else wanted
    build = f"run: {build_command(bundle, flavour, device)}"
    try:
        file = cached_path(usual)
        if file.is_file():
            opened = read_engine_file(file)
        else:
            file, opened = _another(wanted, bundle, build)
    except (OSError, OutputError) as error:
        hint = "fix its permissions, or set XDG_CACHE_HOME to a folder of your own"
        raise BackendError(f"the cache of engines cannot be read: {error}", hint) from error
    fault = "; ".join(differences(Facts.stated(opened.manifest), wanted))
    if not fault and not is_trusted(opened.sha256):
        fault = "it was changed since it was built or trusted, or its folder was open to others"
    if fault:
        raise BackendError(f"{file} cannot be used here: {fault}", build)
    return dict(opened.engines)


def differences(found: Facts, wanted: Facts) -> list[str]:
    """Why engines of `found` are not the `wanted` ones; empty when they are."""
    reasons = []
    if found.flavour != wanted.flavour:
        reasons.append(f"it is for {found.flavour}, not {wanted.flavour}")
    if dict(found.onnx) != dict(wanted.onnx):
        reasons.append("it was built from another bundle, or the bundle has changed since")
    if found.version != wanted.version:
        reasons.append(f"it was built by version {found.version}, {wanted.version} is installed")
    if found.recipe != wanted.recipe:
        options = repr(found.recipe) if found.recipe else "of an older sonomime"
        reasons.append(f"it was built with the options {options}, not {wanted.recipe!r}")
    # RTX engines run on every GPU that they were built for.
    missing = set(wanted.targets) - set(found.targets)
    if missing if wanted.flavour == "rtx" else found.targets != wanted.targets:
        reasons.append(f"it is for {', '.join(found.targets)}, not {', '.join(wanted.targets)}")
    # Engines built without the plugin carry the operators' bodies and need none.
    if found.plugin_sha256 and found.plugin_sha256 != wanted.plugin_sha256:
        there = "another is installed" if wanted.plugin_sha256 else "there is none"
        reasons.append(f"it calls the plugin {found.plugin_sha256[:12]}, and {there}")
    return reasons


def _another(wanted: Facts, bundle: Bundle, build: str) -> tuple[Path, EngineFile]:
    """A file in the cache that serves, though another was looked for.

    Raises:
        BackendError: there is none; with what differs in the nearest one.
    """
    nearest: list[str] = []
    for path in sorted(cache_root().glob("*.engine")):
        if (manifest := peek(path)) is None:  # of another format, or damaged: build another
            continue
        found = Facts.stated(manifest)
        reasons = differences(found, wanted)
        if not reasons:
            with suppress(BackendError):  # damaged: perhaps there is yet another
                return path, read_engine_file(path)
            continue
        related = manifest.bundle == bundle.manifest.name or found.onnx == wanted.onnx
        if related and (not nearest or len(reasons) < len(nearest)):
            nearest = reasons
    what = f"no {wanted.flavour} engines of bundle {bundle.manifest.name!r} are built for this"
    why = f": those in the cache cannot be used, {'; '.join(nearest)}" if nearest else ""
    raise BackendError(what + why, build)


def is_trusted(sha256: str) -> bool:
    """Whether this user's own cache has a record of an engine file of that digest."""
    try:
        record = _record(sha256)
        root, folder, file = (p.lstat() for p in (cache_root(), record.parent, record))
        kinds = stat.S_ISDIR(root.st_mode), stat.S_ISDIR(folder.st_mode), stat.S_ISREG(file.st_mode)
        private = all(kinds) and all(map(_private, (root, folder, file)))
        return private and sha256 in record.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return False


def trust(file: Path) -> EngineFile:
    """Trust an engine file that came from elsewhere, and keep a copy where it will be found.

    Raises:
        BackendError: it is not a sound engine file, or another version's, which cannot be used.
        OutputError: the cache cannot be written.
    """
    opened = read_engine_file(file)
    stated = Facts.stated(opened.manifest)
    if reasons := differences(stated, stated._replace(recipe=RECIPE)):
        hint = "build it again with this version of sonomime"
        raise BackendError(f"{file} cannot be used: {reasons[0]}", hint)
    store(opened.manifest, opened.engines, f"trusted: {file.name}")
    return opened


def store(manifest: EngineManifest, engines: Mapping[str, bytes], why: str) -> None:
    """Keep engines in the cache, and record that they may be used; `why`: built or trusted.

    Raises:
        OutputError: the cache cannot be written, or belongs to another user.
    """
    try:
        _make_private(cache_root())
        path = cached_path(Facts.stated(manifest))
        if path.is_symlink():  # which would be followed
            path.unlink()
        record = _record(sha256 := write_engine_file(path, manifest, engines))
        _make_private(record.parent)
        with atomic_path(record) as temporary:
            temporary.chmod(0o600)
            temporary.write_text(json.dumps({"sha256": sha256, "why": why}) + "\n")
    except (OSError, OutputError) as error:
        raise OutputError(
            f"the cache of engines cannot be written: {error}",
            "free some space there, or set XDG_CACHE_HOME to a folder that only you can write to",
        ) from error


def _record(sha256: str) -> Path:
    """The file that says that this digest is trusted."""
    return cache_root() / "trusted" / f"{sha256}.json"


def _private(facts: os.stat_result) -> bool:
    """Ours, and closed to everybody else."""
    return facts.st_uid == os.getuid() and not facts.st_mode & 0o077


def _make_private(folder: Path) -> None:
    """Make a folder that is ours alone. One that was open to others may hold what they wrote, so
    its content goes."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder} is a link or a file, not a folder: remove it")
    if folder.exists() and not _private(folder.stat()):
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _private(folder.stat()):
        raise OutputError(f"{folder} is open to others and cannot be closed")
