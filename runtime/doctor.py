"""`sonomime doctor`: is everything here that a run needs, and if not, what to do."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from .media.sinks import MP4_ENCODERS
from .support.atomic_files import cache_folder
from .support.errors import BackendError, BundleError, OutputError, SonomimeError

State = Literal["ok", "note", "fail"]

_LEAST_FREE = 200 << 20  # bytes: a long clip, or the engines of one bundle

_OTHERWISE = "this CPU or this onnxruntime computes otherwise: try another version, and report it"


@dataclass(frozen=True)
class Check:
    """One line. `note` is worth knowing and stops nothing; `fix` says what to do about a failure;
    `exit_code` is what the command leaves with when this is the first failure."""

    name: str
    state: State
    detail: str
    fix: str = ""
    exit_code: int = 0


def examine(bundle: Path | None = None, device: int | None = None) -> Iterator[Check]:
    """Run the checks, one after the other; none of them raises.

    Args:
        bundle: folder of the bundle to try, None for the default one.
        device: number of the GPU to try it on; None for what `auto` takes.
    """
    checks: list[tuple[str, Callable[[], Check], type[SonomimeError], str]] = [
        ("python", _python, BackendError, "install Python 3.11 or newer"),
        ("numpy", lambda: _module("numpy", "numpy"), BackendError, "pip install numpy"),
        ("opencv", lambda: _module("opencv", "cv2"), BackendError,
         "pip install opencv-python-headless"),
        ("pyav", _pyav, BackendError, "pip install av"),
        ("onnxruntime", _onnxruntime, BackendError, 'pip install "sonomime[cpu]"'),
        ("gpu", _gpu, BackendError, ""),
        ("bundle", lambda: _bundle(bundle, device), BundleError,
         "install sonomime again, or name a bundle with --bundle"),
        ("temporary folder", lambda: _writable("temporary folder", Path(tempfile.gettempdir())),
         OutputError, "free some space there, or set TMPDIR to another folder"),
        ("cache", _cache, OutputError,
         "free some space there, or set XDG_CACHE_HOME to another folder"),
    ]  # fmt: skip
    for name, check, kind, fix in checks:
        try:
            yield check()
        except SonomimeError as error:
            advice = error.hint or fix
            yield Check(name, "fail", error.message, advice, type(error).exit_code)
        except Exception as error:  # a broken installation raises anything; that is the finding
            detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            yield Check(name, "fail", detail, fix, kind.exit_code)


def as_data(checks: list[Check]) -> dict[str, Any]:
    """The checks as plain data, for --json."""
    return {"ok": all(c.state != "fail" for c in checks), "checks": [asdict(c) for c in checks]}


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < (3, 11):  # noqa: UP036 - run from a checkout, nothing else says so
        raise BackendError(f"{found} is too old", "install Python 3.11 or newer")
    return Check("python", "ok", found)


def _module(name: str, module: str) -> Check:
    version = getattr(importlib.import_module(module), "__version__", "of unknown version")
    return Check(name, "ok", str(version))


def _pyav() -> Check:
    import av
    from av.codec import codecs_available

    version = f"{av.__version__}"
    if "ffv1" not in codecs_available:
        raise BackendError(f"{version} lacks FFV1", "pip install --force-reinstall av")
    have = [codec for codec, _ in MP4_ENCODERS if codec in codecs_available]
    if not have:
        raise BackendError(
            f"{version} has no encoder for .mp4", "write .mkv, or pip install --force-reinstall av"
        )
    detail = f"{version}, .mkv by ffv1, .mp4 by {have[0]}"
    best = MP4_ENCODERS[0][0]
    if have[0] == best:
        return Check("pyav", "ok", detail)
    return Check(
        "pyav", "note", detail, f"{best} makes better .mp4: pip install --force-reinstall av"
    )


def _onnxruntime() -> Check:
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    if "CPUExecutionProvider" not in providers:
        raise BackendError("ONNX Runtime has no CPU provider", 'pip install "sonomime[cpu]"')
    both = [d for d in ("onnxruntime", "onnxruntime-gpu") if _installed(d)]
    if len(both) == 2:
        return Check(
            "onnxruntime", "note", "onnxruntime and onnxruntime-gpu are both installed",
            "they overwrite each other: pip uninstall both, then install one again",
        )  # fmt: skip
    from .backends.base import default_threads

    threads = default_threads()
    return Check("onnxruntime", "ok", f"{onnxruntime.__version__}, CPU, {threads} threads")


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _gpu() -> Check:
    try:
        runtime: Any = importlib.import_module("cuda.bindings.runtime")
    except ImportError:
        return Check("gpu", "note", "not looked for: cuda-bindings is not installed (CPU runs)")
    error, count = runtime.cudaGetDeviceCount()
    if int(error) != 0 or count < 1:
        return Check("gpu", "note", "none found: frames run on the CPU")
    names = []
    for index in range(count):
        error, found = runtime.cudaGetDeviceProperties(index)
        name = found.name.decode(errors="replace").rstrip("\0") if int(error) == 0 else "unknown"
        names.append(f"{index} {name}")
    return Check("gpu", "ok", f"by their numbers: {', '.join(names)}")


def _bundle(path: Path | None, device: int | None) -> Check:
    """Open the bundle, digests and all, and let it make its golden frame."""
    from .backends import open_backend
    from .bundle.bundle import Bundle
    from .golden import agreement, begin_golden
    from .media.frames import read_image
    from .media.pixels import to_image, to_planes
    from .session import Session

    bundle = Bundle.open(path)
    tolerances = bundle.manifest.tolerances
    session = Session(bundle.manifest, open_backend("auto", bundle, device=device))
    try:
        driving = begin_golden(session, bundle, read_image)
        made = to_image(session.animate(to_planes(driving)))
        found = agreement(made, bundle, read_image)
    finally:
        session.close()
    name = f"{bundle.manifest.name} {bundle.digest[:12]}"
    detail = f"{name}, golden frame within {found.levels}/255 ({found.psnr_db:.1f} dB)"
    if not found.within(tolerances):
        levels, decibels = tolerances.frame_levels, tolerances.psnr_db
        allowed = [] if levels is None else [f"{levels}/255"]
        allowed += [] if decibels is None else [f"{decibels:g} dB"]
        raise BundleError(f"{detail}, allowed are {' and '.join(allowed)}", _OTHERWISE)
    return Check("bundle", "ok", detail)


def _cache() -> Check:
    """The cache is writable; decoded clips stay in it until somebody removes them."""
    check = _writable("cache", cache_folder())
    clips = cache_folder() / "clips"
    held = sum(file.stat().st_size for file in clips.glob("*") if file.is_file())
    if held:
        said = f"; {held / 1e9:.1f} GB of decoded clips, which can be removed at any time: {clips}"
        check = replace(check, detail=check.detail + said)
    return check


def _writable(name: str, folder: Path) -> Check:
    """The folder, or what of it exists, takes a file and has room."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0")
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{folder} cannot be written: {reason}") from error
    free = shutil.disk_usage(there).free
    if free < _LEAST_FREE:
        raise OutputError(f"{folder} has only {free >> 20} MiB free")
    return Check(name, "ok", f"{folder}, {free >> 30} GiB free")
