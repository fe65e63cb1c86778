"""A phantom folder: clips, keypoints, displacement and true predictions, each file whole or absent.

Every file follows from (anatomy, seed, number) alone, so an interrupted run that is started again
makes the same pixels, with any number of workers.
"""

from __future__ import annotations

import csv
import io
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.media.sinks import open_sink
from ...runtime.support.atomic_files import atomic_path, atomic_write_text
from ...runtime.support.dataclass_parser import plain
from ...runtime.support.errors import ConfigError
from ...runtime.support.progress import progress
from .body import Body, why_impossible
from .folder import alone, claim, refuse_other
from .probe import SIZE
from .subject import CHECKED_STATES, Identity, Shot, Subject, draw_subject, film, landmark_pixels
from .subject_file import subject_text
from .workers import Task, run, tick

_SCATTERERS, _NOISE, _PAIRS, _OTHER = 1, 2, 3, 4  # random streams of a subject or a seed
METADATA = {"title": "sonomime phantom", "comment": "synthetic ultrasound, simulated by sonomime"}
VERSION = 1
"""Of the pixels: raised by a change that gives others, so that no folder mixes them."""


@dataclass(frozen=True)
class Settings:
    """What a folder is made from; a folder is only continued with the same settings."""

    anatomy: str
    seed: int
    subjects: int
    frames: int
    pairs: int
    version: int = VERSION


class Pair(NamedTuple):
    """A true prediction to make: ``source`` moves as ``driving`` does."""

    source: Subject
    driving: Subject

    @property
    def name(self) -> str:
        return f"{self.source.name}__{self.driving.name}"


class Made(NamedTuple):
    """What a run did.

    Attributes:
        clips, pairs: in the folder now.
        clips_before, pairs_before: how many of them were there already.
        rendered: frames, those of the true predictions included.
        seconds: how long it took.
    """

    clips: int
    pairs: int
    clips_before: int
    pairs_before: int
    rendered: int
    seconds: float


def generate(folder: Path, settings: Settings, workers: int) -> Made:
    """Make a phantom folder, or what is missing of it.

    It starts processes: a script that calls it needs ``if __name__ == "__main__":``.

    Raises:
        ConfigError: the folder holds another phantom; more pairs than there can be.
        OutputError: it cannot be written, e.g. because the disk is full; something else is there.
        SonomimeError: a worker process was killed.
    """
    refuse_other(folder, asdict(settings))
    identities = [Identity(settings.anatomy, settings.seed, i) for i in range(settings.subjects)]
    subjects = [draw_subject(i) for i in progress(identities, label="drawing subjects")]
    pairs = choose_pairs(settings, subjects)
    return _make(folder, asdict(settings), subjects, pairs, settings.frames, workers)


def render_subject(folder: Path, subject: Subject, frames: int) -> Made:
    """Make a phantom folder of one clip, of a subject read from a file. Raises as `generate`."""
    settings = {
        "anatomy": subject.identity.anatomy,
        "subject": subject.name,
        "speckle": [subject.identity.seed, subject.identity.number],
        "frames": frames,
        "version": VERSION,
        "parameters": plain(subject.parameters),
    }
    refuse_other(folder, settings)
    return _make(folder, settings, [subject], [], frames, 1)


def choose_pairs(settings: Settings, subjects: Sequence[Subject]) -> list[Pair]:
    """Pairs of test subjects, drawn from the seed; a pair whose landmarks would leave the sector is
    left out.

    Raises:
        ConfigError: there are fewer than asked for; it says how many.
    """
    if settings.pairs == 0:
        return []
    test = [subject for subject in subjects if subject.identity.split == "test"]
    possible = _possible_pairs(test, np.random.default_rng([settings.seed, _PAIRS]))
    chosen = list(progress(islice(possible, settings.pairs), settings.pairs, "choosing pairs"))
    if len(chosen) < settings.pairs:
        raise ConfigError(
            f"--pairs {settings.pairs}: only {len(chosen)} pairs are possible. Every fifth of the "
            f"{settings.subjects} subjects is for testing, and the landmarks of a pair must stay "
            "in the sector",
            f"ask for at most {len(chosen)} pairs, or for more subjects",
        )
    return chosen


def _possible_pairs(test: Sequence[Subject], rng: np.random.Generator) -> Iterator[Pair]:
    bodies = [subject.body for subject in test]
    manoeuvres = [body.states(CHECKED_STATES) for body in bodies]
    others = len(test) - 1
    for i in rng.permutation(len(test) * others):
        a, b = divmod(int(i), others)
        b += b >= a  # a subject does not drive itself
        if why_impossible(bodies[a], manoeuvres[b] - manoeuvres[b][0]) is None:
            yield Pair(test[a], test[b])


def _make(
    folder: Path,
    settings: dict[str, Any],
    subjects: Sequence[Subject],
    pairs: Sequence[Pair],
    frames: int,
    workers: int,
) -> Made:
    start = time.monotonic()
    with alone(folder):
        claim(folder, settings)
        clips = [s for s in subjects if not _all_there(clip_files(folder, s.name))]
        truths = [p for p in pairs if not _all_there(truth_files(folder, p.name))]
        tasks: list[Task] = [(make_clip, (folder, s, frames)) for s in clips]
        tasks += [(make_truth, (folder, p, frames)) for p in truths]
        to_render = frames * (len(clips) + 2 * len(truths))
        if tasks:
            run(tasks, workers, to_render, "rendering frames")
        write_tables(folder, subjects, pairs, frames)
    before = len(subjects) - len(clips), len(pairs) - len(truths)
    return Made(len(subjects), len(pairs), *before, to_render, time.monotonic() - start)


def _all_there(files: Iterable[Path]) -> bool:
    return all(file.is_file() for file in files)


def clip_files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """The clip, displacement and parameters of a subject."""
    return (
        folder / "clips" / f"{name}.mkv",
        folder / "displacement" / f"{name}.npz",
        folder / "subjects" / f"{name}.json",
    )


def truth_files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """The true prediction of a pair, its other rendering and its truth."""
    truth = folder / "truth"
    return truth / f"{name}.mkv", truth / f"{name}.other.mkv", truth / f"{name}.npz"


def make_clip(folder: Path, subject: Subject, frames: int) -> None:
    """Write one subject's files."""
    clip, displacement, parameters = clip_files(folder, subject.name)
    body, identity = subject.body, subject.identity
    shots = film(body, body.states(frames), _seed(identity, _SCATTERERS), identity.stream(_NOISE))
    _save(displacement, displacement=_write_clip(clip, shots, body), sector=body.probe.sector())
    atomic_write_text(parameters, subject_text(subject))


def make_truth(folder: Path, pair: Pair, frames: int) -> None:
    """Write one pair's files."""
    video, other, arrays = truth_files(folder, pair.name)
    body, identity = pair.source.body, pair.source.identity
    states = pair.driving.body.states(frames)
    states = states - states[0]
    displacement = _write_clip(video, film(body, states, _seed(identity, _SCATTERERS)), body)
    _write_clip(other, film(body, states, _seed(identity, _OTHER)), body)
    _save(
        arrays,
        displacement=displacement,
        sector=body.probe.sector(),
        keypoints=landmark_pixels(body, states),
        keypoint_names=np.array(body.keypoint_names),
    )


def _seed(identity: Identity, use: int) -> int:
    return int(np.random.SeedSequence(identity.stream(use)).generate_state(1)[0])


def _write_clip(path: Path, shots: Iterable[Shot], body: Body) -> NDArray[np.float32]:
    """Write a clip; returns its displacement, float32 (T, SIZE, SIZE, 2)."""
    fields = []
    with open_sink(path, (SIZE, SIZE), 1, body.display.frame_rate, METADATA) as sink:
        for shot in shots:
            sink.write(shot.image)
            fields.append(shot.displacement)
            tick()
    return np.stack(fields)


def _save(path: Path, **arrays: Any) -> None:
    """Write a .npz file with light compression: numpy's own level takes eight times as long, a
    third of a clip's whole time, and saves 6 % of the size."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
    ):
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array))


def write_tables(
    folder: Path, subjects: Sequence[Subject], pairs: Sequence[Pair], frames: int
) -> None:
    """keypoints.csv, truth/pairs.csv, and clips.csv last: with it the folder is a dataset."""
    clips = [["clip", "subject", "group", "split", "crop"]]
    labels = [["video", "frame", "keypoint", "x", "y", "visible"]]
    for subject in subjects:
        clip, body, identity = f"clips/{subject.name}.mkv", subject.body, subject.identity
        clips.append([clip, subject.name, identity.anatomy, identity.split, ""])
        for frame, points in enumerate(landmark_pixels(body, body.states(frames))):
            for keypoint, (x, y) in zip(body.keypoint_names, points, strict=True):
                labels.append([clip, str(frame), keypoint, f"{x:.3f}", f"{y:.3f}", "1"])
    _write_csv(folder / "keypoints.csv", labels)
    if pairs:
        rows = [["pair", "source", "driving", "split"]]
        for pair in pairs:
            ends = [f"clips/{subject.name}.mkv" for subject in (pair.source, pair.driving)]
            rows.append([pair.name, *ends, pair.source.identity.split])
        _write_csv(folder / "truth" / "pairs.csv", rows)
    _write_csv(folder / "clips.csv", clips)


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    atomic_write_text(path, text.getvalue())
