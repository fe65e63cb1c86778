"""`sonomime doctor`: check everything that a run needs, and say how to fix what is wrong."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from platform import machine, python_version, system
from typing import Any, Literal

from .sinks.video import MP4_ENCODERS
from .support.atomic_files import cache_folder
from .support.errors import BackendError, BundleError, OutputError, SonomimeError
from .support.process import import_or_explain, signal_behind

_LEAST_FREE = 200 << 20  # bytes: a long clip, or the engines of one bundle

_INSTALL_CPU = 'pip install "sonomime[cpu]"'
_INSTALL_TRAIN = 'pip install "sonomime[train]"'
_INSTALL_TORCH = (
    "to train on the CPU: pip install torch --index-url https://download.pytorch.org/whl/cpu, "
    f"then {_INSTALL_TRAIN}; to train on an NVIDIA GPU: {_INSTALL_TRAIN}"
)

Found = str | tuple[str, str]
"""What a check found: all is well, in words; or a note, and its fix. Trouble is raised."""


@dataclass(frozen=True)
class Check:
    """One result. A `note` is not a failure; `fix` says what to do; `exit_code` becomes the
    command's if this is the first failure."""

    name: str
    state: Literal["ok", "note", "fail"]
    detail: str
    fix: str = ""
    exit_code: int = 0


def examine(bundle: Path | None = None, device: int | None = None) -> Iterator[Check]:
    """Run the checks one after the other; only signals raise.

    Args:
        bundle: folder of the bundle to try, None for the default one.
        device: number of the GPU to try it on; None for what `auto` takes.
    """
    space = "free some space there, or set {} to another folder".format
    checks: list[tuple[str, Callable[[], Found], type[SonomimeError], str]] = [
        ("python", lambda: f"{python_version()} on {system()} {machine()}", BackendError, ""),
        ("numpy", partial(_package, "numpy", "numpy"), BackendError, ""),
        ("opencv", partial(_package, "cv2", "opencv-python-headless"), BackendError, ""),
        ("pillow", partial(_package, "PIL", "pillow"), BackendError, ""),
        ("tqdm", partial(_package, "tqdm", "tqdm"), BackendError, ""),
        ("pyav", _pyav, BackendError, ""),
        ("pydicom", partial(_extra, "pydicom", "dicom", "DICOM files need"), BackendError, ""),
        ("pynrrd", partial(_extra, "nrrd", "nrrd", "NRRD files need"), BackendError, ""),
        ("onnxruntime", _onnxruntime, BackendError, ""),
        ("openvino", _openvino, BackendError, ""),
        ("gpu", _gpu, BackendError, ""),
        ("torch", _torch, BackendError, ""),
        ("onnx", partial(_extra, "onnx", "train", "export and quantize need"), BackendError, ""),
        ("bundle", partial(_bundle, bundle, device), BundleError,
         "install sonomime again, or name a bundle with --bundle"),
        ("temporary folder", lambda: _writable(Path(tempfile.gettempdir())), OutputError,
         space("TMPDIR")),
        ("cache", _cache, OutputError, space("XDG_CACHE_HOME")),
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
            yield Check(name, "fail", detail.strip().splitlines()[0], advice, code)
            continue
        yield Check(name, "ok", found) if isinstance(found, str) else Check(name, "note", *found)


def _package(module: str, distribution: str) -> Found:
    found = import_or_explain(module, f"pip install {distribution}")
    return str(getattr(found, "__version__", "unknown version"))


def _extra(module: str, extra: str, use: str) -> Found:
    cure = f'pip install "sonomime[{extra}]"'
    if (found := _optional(module, cure)) is None:
        return f"not installed; only {use} it", cure
    return str(getattr(found, "__version__", "unknown version"))


def _optional(module: str, cure: str) -> Any:
    """The module; None if it is not installed, BackendError if it is broken."""
    try:
        return import_or_explain(module, cure)
    except BackendError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            return None
        raise


def _pyav() -> Found:
    again = "pip install --force-reinstall av"
    av = import_or_explain("av", "pip install av")
    codecs = import_or_explain("av.codec", "pip install av").codecs_available
    if "ffv1" not in codecs:
        raise BackendError(f"{av.__version__} cannot write .mkv (no FFV1)", again)
    have = [codec for codec, _ in MP4_ENCODERS if codec in codecs]
    if not have:
        raise BackendError(f"{av.__version__} cannot write .mp4", f"write .mkv, or {again}")
    found = f"{av.__version__}, writes .mkv (ffv1) and .mp4 ({have[0]})"
    best = MP4_ENCODERS[0][0]
    return found if have[0] == best else (found, f"{best} writes better .mp4: {again}")


def _onnxruntime() -> Found:
    from .backends.base import default_threads

    onnxruntime = import_or_explain("onnxruntime", _INSTALL_CPU)
    if "CPUExecutionProvider" not in onnxruntime.get_available_providers():
        raise BackendError("ONNX Runtime cannot run on the CPU", _INSTALL_CPU)
    both = {"onnxruntime", "onnxruntime-gpu"}
    if both <= {each.name for each in metadata.distributions()}:
        cure = "they overwrite each other: pip uninstall both, then install one again"
        return "onnxruntime and onnxruntime-gpu are both installed", cure
    return f"{onnxruntime.__version__}, {default_threads()} CPU threads"


def _openvino() -> Found:
    if importlib.util.find_spec("openvino") is None:
        why = "not installed; a second engine for the CPU, which may be faster"
        return why, 'pip install "sonomime[openvino]"'
    from .backends.openvino import import_openvino

    version = str(import_openvino().__version__).partition("-")[0]
    return f"{version}; backend auto takes it where it is faster than onnxruntime"


def _gpu() -> Found:
    try:
        runtime = import_or_explain("cuda.bindings.runtime", "")
    except BackendError as error:
        return f"not looked for, because {error.message}; frames are made on the CPU", ""
    status, count = runtime.cudaGetDeviceCount()
    if int(status) != 0 or count < 1:
        return "no NVIDIA GPU was found; frames are made on the CPU", ""
    names = []
    for index in range(count):
        status, found = runtime.cudaGetDeviceProperties(index)
        name = found.name.decode(errors="replace").rstrip("\0") if int(status) == 0 else "unknown"
        names.append(f"{index} {name}")
    return f"number and name, for --device: {', '.join(names)}"


def _torch() -> Found:
    if (torch := _optional("torch", _INSTALL_TORCH)) is None:
        why = "not installed; only training, export and evaluating checkpoints need it"
        return why, _INSTALL_TORCH
    if torch.version.cuda is None:
        return f"{torch.__version__}, CPU build: training runs on the CPU"
    place = "the GPU" if torch.cuda.is_available() else "the CPU, because torch finds no GPU"
    return f"{torch.__version__}, CUDA {torch.version.cuda} build: training runs on {place}"


def _bundle(path: Path | None, device: int | None) -> Found:
    """Open the bundle, verify its files, and make its golden frame."""
    from .bundle.bundle import Bundle
    from .fastest import open_session
    from .golden import LEAST_PSNR, agreement, golden_frame

    bundle = Bundle.open(path)
    session = open_session(bundle, device=device)
    try:
        found = agreement(golden_frame(session, bundle), bundle)
    finally:
        session.close()
    name, precision = session.backend.name, session.backend.precision
    detail = (
        f"{bundle.manifest.name} ({bundle.digest[:12]}); its sample frame, made here by {name} in "
        f"{precision}, is within {found.levels} of 255 grey levels of the stored one "
        f"({found.psnr_db:.1f} dB)"
    )
    if found.is_right(bundle.manifest, precision):
        return detail
    levels, decibels = bundle.manifest.tolerances.frame_levels, bundle.manifest.tolerances.psnr_db
    if precision != bundle.manifest.precision:
        levels, decibels = None, LEAST_PSNR
    limits = ((levels, "grey levels"), (decibels, "dB"))
    allowed = [f"{limit:g} {unit}" for limit, unit in limits if limit is not None]
    raise BundleError(
        f"{detail}; allowed: {' and '.join(allowed)}",
        f"{name} gives other numbers here: try another version of its engine, and report this",
    )


def _cache() -> Found:
    """The cache can be written; it also holds decoded clips."""
    said = _writable(cache_folder())
    clips = cache_folder() / "clips"
    held = sum(file.stat().st_size for file in clips.glob("*") if file.is_file())
    taken = f"; {held / 1e9:.1f} GB of decoded clips in {clips}, which you may delete at any time"
    return said + taken if held else said


def _writable(folder: Path) -> str:
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
    return f"{folder} can be written, {free >> 30} GiB free"
