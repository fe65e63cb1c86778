"""`sonomime doctor`: check everything that a run needs, and say how to fix what is wrong."""

from __future__ import annotations

import importlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from .media.sinks import MP4_ENCODERS
from .support.atomic_files import cache_folder
from .support.errors import BackendError, BundleError, OutputError, SonomimeError
from .support.process import signal_behind

State = Literal["ok", "note", "fail"]

_LEAST_FREE = 200 << 20  # bytes: a long clip, or the engines of one bundle

_INSTALL_TRAIN = 'pip install "sonomime[train]"'
_INSTALL_TORCH = (
    "to train on the CPU: pip install torch --index-url https://download.pytorch.org/whl/cpu, "
    f"then {_INSTALL_TRAIN}; to train on an NVIDIA GPU: {_INSTALL_TRAIN}"
)


@dataclass(frozen=True)
class Check:
    """One result. A `note` stops nothing; `fix` says what to do; `exit_code` is the command's when
    this is the first failure."""

    name: str
    state: State
    detail: str
    fix: str = ""
    exit_code: int = 0


def examine(bundle: Path | None = None, device: int | None = None) -> Iterator[Check]:
    """Run the checks one after the other; only signals raise.

    Args:
        bundle: folder of the bundle to try, None for the default one.
        device: number of the GPU to try it on; None for what `auto` takes.
    """
    checks: list[tuple[str, Callable[[], Check], type[SonomimeError], str]] = [
        ("python", _python, BackendError, ""),
        ("numpy", lambda: _module("numpy", "numpy"), BackendError, "pip install numpy"),
        ("opencv", lambda: _module("opencv", "cv2"), BackendError,
         "pip install opencv-python-headless"),
        ("pyav", _pyav, BackendError, "pip install av"),
        ("onnxruntime", _onnxruntime, BackendError, 'pip install "sonomime[cpu]"'),
        ("gpu", _gpu, BackendError, ""),
        ("torch", _torch, BackendError, _INSTALL_TORCH),
        ("onnx", _onnx, BackendError, _INSTALL_TRAIN),
        ("bundle", lambda: _bundle(bundle, device), BundleError,
         "install sonomime again, or name a bundle with --bundle"),
        ("temporary folder", lambda: _writable("temporary folder", Path(tempfile.gettempdir())),
         OutputError, "free some space there, or set TMPDIR to another folder"),
        ("cache", _cache, OutputError,
         "free some space there, or set XDG_CACHE_HOME to another folder"),
    ]  # fmt: skip
    for name, check, kind, fix in checks:
        try:
            found = check()
        except Exception as error:  # a broken installation may raise anything
            if (signal := signal_behind(error)) is not None:
                raise signal from None
            detail, advice, code = f"{type(error).__name__}: {error}", fix, kind.exit_code
            if isinstance(error, SonomimeError):
                detail, advice, code = error.message, error.hint or fix, error.exit_code
            found = Check(name, "fail", detail.strip().splitlines()[0], advice, code)
        yield found


def as_data(checks: list[Check]) -> dict[str, Any]:
    """The checks as plain data, for --json."""
    return {"ok": all(c.state != "fail" for c in checks), "checks": [asdict(c) for c in checks]}


def _python() -> Check:
    return Check(
        "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )


def _module(name: str, module: str) -> Check:
    version = getattr(importlib.import_module(module), "__version__", "unknown version")
    return Check(name, "ok", str(version))


def _pyav() -> Check:
    import av
    from av.codec import codecs_available

    if "ffv1" not in codecs_available:
        raise BackendError(
            f"{av.__version__} cannot write .mkv (no FFV1)", "pip install --force-reinstall av"
        )
    encoders = [codec for codec, _ in MP4_ENCODERS]
    have = [codec for codec in encoders if codec in codecs_available]
    if not have:
        raise BackendError(
            f"{av.__version__} cannot write .mp4",
            "write .mkv, or pip install --force-reinstall av",
        )
    check = Check("pyav", "ok", f"{av.__version__}, writes .mkv (ffv1) and .mp4 ({have[0]})")
    if have[0] == encoders[0]:
        return check
    fix = f"{encoders[0]} writes better .mp4: pip install --force-reinstall av"
    return replace(check, state="note", fix=fix)


def _onnxruntime() -> Check:
    import onnxruntime

    from .backends.base import default_threads

    if "CPUExecutionProvider" not in onnxruntime.get_available_providers():
        raise BackendError("ONNX Runtime cannot run on the CPU", 'pip install "sonomime[cpu]"')
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        return Check(
            "onnxruntime", "note", "onnxruntime and onnxruntime-gpu are both installed",
            "they overwrite each other: pip uninstall both, then install one again",
        )  # fmt: skip
    threads = default_threads()
    return Check("onnxruntime", "ok", f"{onnxruntime.__version__}, {threads} CPU threads")


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
        why = "not looked for, because cuda-bindings is not installed; frames are made on the CPU"
        return Check("gpu", "note", why)
    error, count = runtime.cudaGetDeviceCount()
    if int(error) != 0 or count < 1:
        return Check("gpu", "note", "no NVIDIA GPU found; frames are made on the CPU")
    names = []
    for index in range(count):
        error, found = runtime.cudaGetDeviceProperties(index)
        name = found.name.decode(errors="replace").rstrip("\0") if int(error) == 0 else "unknown"
        names.append(f"{index} {name}")
    return Check("gpu", "ok", f"number and name, for --device: {', '.join(names)}")


def _torch() -> Check:
    try:
        torch: Any = importlib.import_module("torch")
    except ModuleNotFoundError:
        why = "not installed; only training, export and evaluating checkpoints need it"
        return Check("torch", "note", why, _INSTALL_TORCH)
    if torch.version.cuda is None:
        return Check("torch", "ok", f"{torch.__version__}, CPU build: training runs on the CPU")
    place = "the GPU" if torch.cuda.is_available() else "the CPU, because torch finds no GPU"
    detail = f"{torch.__version__}, CUDA {torch.version.cuda} build: training runs on {place}"
    return Check("torch", "ok", detail)


def _onnx() -> Check:
    try:
        return _module("onnx", "onnx")
    except ModuleNotFoundError:
        return Check("onnx", "note", "not installed; only export needs it", _INSTALL_TRAIN)


def _bundle(path: Path | None, device: int | None) -> Check:
    """Open the bundle, verify its files, and make its golden frame."""
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
    detail = (
        f"{bundle.manifest.name} ({bundle.digest[:12]}), whose test frame comes out within "
        f"{found.levels} of 255 grey levels ({found.psnr_db:.1f} dB)"
    )
    if not found.within(tolerances):
        levels, decibels = tolerances.frame_levels, tolerances.psnr_db
        allowed = [] if levels is None else [f"{levels} grey levels"]
        allowed += [] if decibels is None else [f"{decibels:g} dB"]
        raise BundleError(
            f"{detail}; allowed: {' and '.join(allowed)}",
            "onnxruntime gives other numbers here: try another version of it, and report this",
        )
    return Check("bundle", "ok", detail)


def _cache() -> Check:
    """The cache can be written; it also holds decoded clips."""
    check = _writable("cache", cache_folder())
    clips = cache_folder() / "clips"
    held = sum(file.stat().st_size for file in clips.glob("*") if file.is_file())
    if not held:
        return check
    said = f"{held / 1e9:.1f} GB of decoded clips in {clips}, which you may delete at any time"
    return replace(check, detail=f"{check.detail}; {said}")


def _writable(name: str, folder: Path) -> Check:
    """The folder, or the part of its path that exists, can be written and has room."""
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
    return Check(name, "ok", f"{folder} can be written, {free >> 30} GiB free")
