"""Open a bundle's chain with the fastest engine that this machine has.

Which of the CPU's engines is faster depends on the CPU, the number of threads and the versions. So
they are compared once, for about a second, and the answer is kept in the cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from importlib import metadata
from statistics import median
from typing import NamedTuple

from .. import __version__
from .backends import open_backend, open_on_gpu, resolve_backend, resolve_threads
from .backends.base import cpu_name
from .bundle.bundle import Bundle
from .golden import agreement, golden_frame
from .session import Session
from .support.atomic_files import atomic_write_text, cache_folder
from .support.errors import BackendError, SonomimeError

log = logging.getLogger("sonomime")

LEAST_PSNR = 45.0
"""dB of the golden frame, which another precision than the bundle's has to reach: differences then
are below what is seen (docs/results)."""
SECONDS, ROUNDS = 1.0, 3  # for a comparison; at least so many rounds
GAIN = 0.95  # the first engine opens sooner: another has to take less than so much of its time


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
    if name == "auto" and precision == "bf16":
        name = "openvino"
    if name == "auto" and precision in (None, bundle.manifest.precision):
        if (on_gpu := open_on_gpu(bundle, device)) is not None:
            return Session(bundle.manifest, on_gpu)
        name, precision = fastest(bundle, count)
    session = Session(bundle.manifest, open_backend(name, bundle, count, device, precision))
    if precision not in (None, bundle.manifest.precision):
        try:
            _check(session, bundle, Engine(name, precision))
        except BaseException:
            session.close()
            raise
    return session


def fastest(bundle: Bundle, threads: int) -> Engine:
    """The engine of the CPU that is fastest with this bundle, as measured once.

    Raises:
        BackendError: none of those that are installed serves.
    """
    engines = candidates(bundle)
    if len(engines) < 2:
        return engines[0] if engines else Engine("ort-cpu", bundle.manifest.precision)
    key = _key(bundle, threads)
    if (known := _remembered().get(key)) in engines:
        return known
    log.warning("comparing the engines of this machine, once for each model")
    taken = compare(bundle, engines, threads)
    for engine, seconds in taken.items():
        log.info("%s %s: %.1f ms a frame", *engine, 1000 * seconds)
    best = min(taken, key=lambda engine: taken[engine] * (GAIN if engine == engines[0] else 1))
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


def compare(bundle: Bundle, engines: list[Engine], threads: int) -> Mapping[Engine, float]:
    """Seconds of a frame, as the median of frames made in turns, of those engines that make the
    golden frame; BackendError if none does."""
    sessions: dict[Engine, Session] = {}
    errors = list[BackendError]()
    with ExitStack() as opened:
        for engine in engines:
            try:
                backend = open_backend(engine.backend, bundle, threads, None, engine.precision)
                session = opened.enter_context(closing(Session(bundle.manifest, backend)))
                _check(session, bundle, engine)
            except BackendError as error:
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
    return {engine: median(seconds) for engine, seconds in taken.items()}


def _check(session: Session, bundle: Bundle, engine: Engine) -> None:
    """BackendError if the golden frame does not come out right."""
    found = agreement(golden_frame(session, bundle), bundle)
    session.forget_reference()  # that of the golden frame
    if found.psnr_db < LEAST_PSNR:
        raise BackendError(
            f"{engine.backend} in {engine.precision} makes a frame that is {found.psnr_db:.1f} dB "
            f"from what it should be: {LEAST_PSNR:g} are needed",
            f"use --precision {bundle.manifest.precision}",
        )


def _key(bundle: Bundle, threads: int) -> str:
    """Of all that the answer depends on."""
    versions = []
    for name in ("onnxruntime", "openvino"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(metadata.version(name))
    facts = [bundle.digest, cpu_name(), threads, versions, __version__]
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
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(_remembered() | {key: engine}, indent=1) + "\n")
