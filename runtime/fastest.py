"""Open a bundle's chain with the fastest engine that this machine has.

Which of the CPU's engines is faster depends on the CPU, the number of threads and the versions. So
they are compared once, for about a second, and the answer is kept in the cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from importlib import metadata
from typing import NamedTuple

from .. import __version__
from .backends import (
    open_backend,
    open_on_gpu,
    resolve_backend,
    resolve_precision,
    resolve_threads,
)
from .backends.base import cpu_name, default_threads
from .bundle.bundle import Bundle
from .golden import agreement, golden_frame
from .session import Session
from .support.atomic_files import atomic_write_text, cache_folder, locked
from .support.errors import BackendError, ConfigError, OutputError, SonomimeError

log = logging.getLogger("sonomime")

SECONDS, ROUNDS = 1.0, 3  # for a comparison; at least so many rounds
GAIN = 0.9  # the first engine opens sooner: another has to take less than so much of its time


class Engine(NamedTuple):
    """A backend, and what it computes in."""

    backend: str
    precision: str


def open_session(
    bundle: Bundle, backend: str = "auto", threads: int | None = None, device: int | None = None,
    precision: str | None = None,
) -> Session:  # fmt: skip
    """Open a bundle's stages; arguments and errors as of `open_backend`, and `auto` compares the
    engines of the CPU if no GPU serves.

    Raises:
        BackendError: with this precision the bundle's golden frame does not come out right.
    """
    name, count = resolve_backend(backend, device), resolve_threads(threads)
    if name != "auto":
        engine = Engine(name, resolve_precision(precision, name, bundle))
        return _opened(bundle, engine, count, device)
    if precision == "bf16" and device is not None:
        hint = "leave the device or the precision out"
        raise ConfigError(f"bf16 is computed on the CPU, but device {device} names a GPU", hint)
    if precision != "bf16":
        resolve_precision(precision, name, bundle)
        if (on_gpu := open_on_gpu(bundle, device)) is not None:
            return Session(bundle.manifest, on_gpu)
    return _open_fastest(bundle, count, precision)


def _open_fastest(bundle: Bundle, threads: int, precision: str | None) -> Session:
    engines = [each for each in candidates(bundle) if precision in (None, each.precision)]
    usual = Engine("openvino" if precision == "bf16" else "ort-cpu", bundle.manifest.precision)
    engines = engines or [usual._replace(precision=precision or usual.precision)]
    best = fastest(bundle, engines, threads) if len(engines) > 1 else engines[0]
    try:
        return _opened(bundle, best, threads)
    except BackendError as error:
        if best == engines[0]:
            raise
        log.warning("%s cannot be used any more: %s", best.backend, error.message)
        return _opened(bundle, engines[0], threads)


def _opened(bundle: Bundle, engine: Engine, threads: int, device: int | None = None) -> Session:
    backend = open_backend(engine.backend, bundle, threads, device, engine.precision)
    session = Session(bundle.manifest, backend)
    if engine.precision != bundle.manifest.precision:
        try:
            _check(session, bundle, engine)
        except BaseException:
            session.close()
            raise
    return session


def fastest(bundle: Bundle, engines: Sequence[Engine], threads: int) -> Engine:
    """That of the engines which is fastest with this bundle, as measured once; the first one, as
    long as the machine is too busy to say, or another process measures.

    Raises:
        BackendError: none of them serves.
    """
    key, first = _key(bundle, engines, threads), engines[0]
    known = _remembered().get(key)
    if known is not None and known in engines:
        return known
    if os.getloadavg()[0] > default_threads():
        log.info("engines are not compared: the machine is busy")
        return first
    try:
        with locked(cache_folder() / "fastest"):
            log.warning("comparing the engines of this machine, once for each model")
            taken = compare([(bundle, engine) for engine in engines], threads)
    except OutputError as error:  # another one does, or there is no place for the answer
        log.info("engines are not compared: %s", error.message)
        return first
    for engine, seconds in taken.items():
        log.info("%s %s: %.1f ms a frame", *engine, 1000 * seconds)
    best = min(taken, key=lambda engine: taken[engine] * (GAIN if engine == first else 1))
    _remember(key, best)
    return best


def candidates(bundle: Bundle) -> list[Engine]:
    """What is installed, and could serve."""
    held = bundle.manifest.precision
    found = [Engine("ort-cpu", held)] * installed("onnxruntime")
    if installed("openvino"):
        found += [Engine("openvino", held)] + [Engine("openvino", "bf16")] * (held == "fp32")
    return found


def installed(module: str) -> bool:
    """Whether there is such a module; importing it may still fail."""
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(module) is not None
    return False


def compare(pairs: Sequence[tuple[Bundle, Engine]], threads: int) -> Mapping[Engine, float]:
    """Seconds of a frame, the least of frames made in turns, of those engines that make the golden
    frame of their bundle; BackendError if none does."""
    sessions: dict[Engine, Session] = {}
    errors = list[SonomimeError]()
    with ExitStack() as opened:
        for bundle, engine in pairs:
            try:
                backend = open_backend(engine.backend, bundle, threads, None, engine.precision)
                session = opened.enter_context(closing(Session(bundle.manifest, backend)))
                _check(session, bundle, engine)
            except SonomimeError as error:
                log.info("%s %s is passed over: %s", *engine, error.message)
                errors.append(error)
            else:
                sessions[engine] = session
        if not sessions:
            raise errors[0]
        taken: dict[Engine, list[float]] = {engine: [] for engine in sessions}
        end, rounds = time.perf_counter() + SECONDS, 0
        while rounds < ROUNDS or time.perf_counter() < end:
            rounds += 1
            for engine, session in sessions.items():
                begin = time.perf_counter()
                session.animate()
                taken[engine].append(time.perf_counter() - begin)
    return {engine: min(seconds) for engine, seconds in taken.items()}


def _check(session: Session, bundle: Bundle, engine: Engine) -> None:
    """BackendError if the golden frame does not come out right."""
    found = agreement(golden_frame(session, bundle), bundle)
    session.forget_reference()  # that of the golden frame
    if not found.is_right(bundle.manifest, engine.precision):
        raise BackendError(
            f"{engine.backend} in {engine.precision} makes a frame that is {found.psnr_db:.1f} dB "
            "from what it should be, which is not near enough",
            f"use --precision {bundle.manifest.precision}",
        )


def _key(bundle: Bundle, engines: Sequence[Engine], threads: int) -> str:
    """Of all that the answer depends on."""
    versions = []
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino", "onnx"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(metadata.version(name))
    facts = [bundle.digest, engines, cpu_name(), threads, versions, __version__]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _remembered() -> dict[str, Engine]:
    """Answers by key; none, if they cannot be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError, SonomimeError):
        said = json.loads((cache_folder() / "fastest.json").read_text())
        return {str(key): Engine(*map(str, engine)) for key, engine in said.items()}
    return {}


def _remember(key: str, engine: Engine) -> None:
    with suppress(SonomimeError):  # without a cache they are compared each time
        path = cache_folder() / "fastest.json"
        atomic_write_text(path, json.dumps(_remembered() | {key: engine}, indent=1) + "\n")
