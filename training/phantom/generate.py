"""A phantom folder: clips, keypoints, displacement and true predictions, each file whole or absent.

Every file follows from (anatomy, seed, number) alone, so that an interrupted run that is started
again makes the same pixels, with however many workers.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import ConfigError, output_errors
from ...runtime.files import atomic_path
from ...runtime.progress import progress
from ...runtime.sinks import open_sink
from .anatomy import Body, why_impossible
from .probe import SIZE
from .subject import Identity, Shot, draw_body, film, landmark_pixels

_SCATTERERS, _NOISE, _PAIRS, _OTHER = 1, 2, 3, 4
METADATA = {"title": "sonomime phantom", "comment": "synthetic ultrasound, simulated by sonomime"}


@dataclass(frozen=True)
class Settings:
    """What a folder is made from; a folder is only ever continued with the same."""

    anatomy: str
    seed: int
    subjects: int
    frames: int
    pairs: int
    version: int = 1

    def identities(self) -> list[Identity]:
        return [Identity(self.anatomy, self.seed, i) for i in range(self.subjects)]


@dataclass(frozen=True)
class Pair:
    """A true prediction to make: subject ``source`` moves as subject ``driving`` does."""

    source: Identity
    driving: Identity

    @property
    def name(self) -> str:
        return f"{self.source.name}__{self.driving.name}"


def generate(folder: Path, settings: Settings, workers: int) -> None:
    """Make a phantom folder, or what is missing of it.

    Raises:
        ConfigError: the folder holds another phantom; more pairs than there can be.
        OutputError: it cannot be written, e.g. because the disk is full.
    """
    claim(folder, settings)
    identities = settings.identities()
    bodies = {identity.name: draw_body(identity, settings.frames) for identity in identities}
    pairs = choose_pairs(settings, bodies)
    tasks: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (make_clip, (folder, identity, settings.frames))
        for identity in identities
        if not _subject_file(folder, identity.name).exists()
    ]
    tasks += [
        (make_truth, (folder, pair, settings.frames))
        for pair in pairs
        if not (folder / "truth" / f"{pair.name}.npz").exists()
    ]
    run(tasks, workers, total=len(identities) + len(pairs))
    write_tables(folder, settings, bodies, pairs)


def claim(folder: Path, settings: Settings) -> None:
    """Write phantom.json, or see that the one there says the same."""
    path = folder / "phantom.json"
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({error})", "choose another -o") from error
        if there != asdict(settings):
            raise ConfigError(
                f"{folder} holds another phantom: {_told(there)}",
                "give the same options to go on with it, or choose another -o",
            )
        return
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("clips", "displacement", "subjects"):
            (folder / name).mkdir(exist_ok=True)
    _write(path, json.dumps(asdict(settings), indent=2) + "\n")


def _told(settings: Any) -> str:
    if not isinstance(settings, dict):
        return "its phantom.json is damaged"
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _subject_file(folder: Path, name: str) -> Path:
    return folder / "subjects" / f"{name}.json"


def choose_pairs(settings: Settings, bodies: dict[str, Body]) -> list[Pair]:
    """Pairs of test subjects, drawn from the seed; those whose landmarks would leave the sector are
    not drawn."""
    test = [identity for identity in settings.identities() if identity.split == "test"]
    possible = [Pair(a, b) for a in test for b in test if a != b]
    rng = np.random.default_rng([settings.seed, _PAIRS])
    chosen: list[Pair] = []
    for i in rng.permutation(len(possible)):
        if len(chosen) == settings.pairs:
            break
        pair = possible[i]
        states = bodies[pair.driving.name].states(33)
        if why_impossible(bodies[pair.source.name], states - states[0]) is None:
            chosen.append(pair)
    if len(chosen) < settings.pairs:
        raise ConfigError(
            f"--pairs {settings.pairs}: {settings.subjects} subjects give only {len(chosen)} "
            "(every fifth subject is for testing; a pair has two of them)",
            "ask for fewer pairs or more subjects",
        )
    return chosen


def make_clip(folder: Path, identity: Identity, frames: int) -> None:
    """One subject's clip, displacement and parameters; the parameters last."""
    body = draw_body(identity, frames)
    name = identity.name
    shots = film(body, body.states(frames), _seed(identity, _SCATTERERS), identity.stream(_NOISE))
    displacement = write_clip(folder / "clips" / f"{name}.mkv", shots, body)
    save(folder / "displacement" / f"{name}.npz", displacement=displacement,
         sector=body.probe.sector())  # fmt: skip
    text = json.dumps({"anatomy": identity.anatomy, **asdict(body.parameters)}, indent=2)
    _write(_subject_file(folder, name), text + "\n")


def make_truth(folder: Path, pair: Pair, frames: int) -> None:
    """A true prediction, its other rendering, and its truth, which is written last."""
    body, other = draw_body(pair.source, frames), draw_body(pair.driving, frames)
    states = other.states(frames)
    states = states - states[0]
    path = folder / "truth" / f"{pair.name}.mkv"
    displacement = write_clip(path, film(body, states, _seed(pair.source, _SCATTERERS)), body)
    beside = film(body, states, _seed(pair.source, _OTHER))
    write_clip(path.with_suffix(".other.mkv"), beside, body)
    save(path.with_suffix(".npz"), displacement=displacement, sector=body.probe.sector(),
         keypoints=landmark_pixels(body, states),
         keypoint_names=np.array(body.keypoint_names))  # fmt: skip


def _seed(identity: Identity, use: int) -> int:
    return int(np.random.SeedSequence(identity.stream(use)).generate_state(1)[0])


def write_clip(path: Path, shots: Iterable[Shot], body: Body) -> np.ndarray:
    """Write a clip; returns its displacement, float32 (T, SIZE, SIZE, 2)."""
    fields = []
    with open_sink(path, (SIZE, SIZE), 1, body.display.frame_rate, METADATA) as sink:
        for shot in shots:
            sink.write(shot.image)
            fields.append(shot.displacement)
    return np.stack(fields)


def save(path: Path, **arrays: np.ndarray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_tables(
    folder: Path, settings: Settings, bodies: dict[str, Body], pairs: Sequence[Pair]
) -> None:
    """keypoints.csv, truth/pairs.csv, and clips.csv last: with it the folder is a dataset."""
    clips = [["clip", "subject", "group", "split", "crop"]]
    labels = [["video", "frame", "keypoint", "x", "y", "visible"]]
    for identity in settings.identities():
        clip, body = f"clips/{identity.name}.mkv", bodies[identity.name]
        clips.append([clip, identity.name, identity.anatomy, identity.split, ""])
        for frame, points in enumerate(landmark_pixels(body, body.states(settings.frames))):
            for keypoint, (x, y) in zip(body.keypoint_names, points, strict=True):
                labels.append([clip, str(frame), keypoint, f"{x:.3f}", f"{y:.3f}", "1"])
    _write(folder / "keypoints.csv", _csv(labels))
    if pairs:
        rows = [["pair", "source", "driving", "split"]]
        rows += [
            [p.name, f"clips/{p.source.name}.mkv", f"clips/{p.driving.name}.mkv", p.source.split]
            for p in pairs
        ]
        _write(folder / "truth" / "pairs.csv", _csv(rows))
    _write(folder / "clips.csv", _csv(clips))


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def run(
    tasks: Sequence[tuple[Callable[..., None], tuple[Any, ...]]], workers: int, total: int
) -> None:
    """Run tasks in processes of one thread each; the first error ends all."""
    if not tasks:
        return
    with _single_threaded(), ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        pending = {pool.submit(task, *arguments) for task, arguments in tasks}
        try:
            for _ in progress(_finished(pending), total=len(tasks), label="rendering"):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _finished(pending: set[Any]) -> Iterator[None]:
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            yield


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Linear algebra in new processes has one thread: with more, its last bit varies."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
