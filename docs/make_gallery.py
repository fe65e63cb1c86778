"""Makes the moving pictures of docs/gallery/, from what comes with the package: `make gallery`.

Still and driving clips are the samples, the motion templates, and simulated ultrasound that is made
here. Animated WebP, since GitHub shows it in a page. It takes some minutes, most of them for the
simulated clips.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sonomime.runtime import Animator
from sonomime.runtime.live.screen import write_state
from sonomime.runtime.media.frames import resize
from sonomime.runtime.media.mark import draw_mark, metadata
from sonomime.runtime.media.panels import Panels
from sonomime.runtime.player import Player
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.still import SAMPLES
from sonomime.runtime.template import Template, shipped

Picture = NDArray[np.uint8]

FOLDER = Path(__file__).parent / "gallery"
HEIGHT = 224  # of a panel
SOURCE, DRIVING, MADE, TRUTH = "source", "driving", "synthesized", "truth"
DESCRIPTION = 0x010E  # EXIF's ImageDescription


def frames_of(path: Path, every: int = 1) -> list[Picture]:
    return [frame.image for frame in open_source(path, announce=False)][::every]


def small(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    return resize(picture, round(width * HEIGHT / height), HEIGHT)


def marked(picture: Picture, animator: Animator) -> Picture:
    """A synthesized picture as the gallery shows it: marked, and called doubtful where it is."""
    made = small(picture).copy()
    if animator.quality is not None and animator.quality.state == "doubtful":
        write_state(made, "doubtful")
    return draw_mark(made)


def all_marked(pictures: list[Picture]) -> list[Picture]:
    """Where source, driving clip and truth are simulated too."""
    return [draw_mark(picture) for picture in pictures]


def driven(still: Picture, clip: Iterable[Picture]) -> Iterator[list[Picture]]:
    """As `sonomime animate` does it: the first frame is the reference, both are matched."""
    with Animator.open(backend="cpu") as animator:
        animator.set_source(still)
        for frame in clip:
            if not animator.session.has_reference:
                animator.set_reference(frame)
                animator.align()
            made = animator.animate(frame, size="source")
            yield [small(still), small(frame), marked(made, animator)]


def played(
    still: Picture, name: str, places: dict[str, tuple[float, float]] | None = None, rate: int = 12
) -> Iterator[list[Picture]]:
    """Once through a motion template that comes with the package."""
    with Animator.open(backend="cpu") as animator:
        animator.set_source(still)
        player = Player(animator, Template.load(shipped()[name]), places)
        for i in range(round(player.template.seconds * rate)):
            yield [small(still), marked(player.frame(i / rate, size="source"), animator)]


def write(name: str, captions: list[str], rows: Iterable[list[Picture]], rate: float) -> None:
    """One animated WebP; the panels of each row beside each other."""
    rows = list(rows)
    panels = Panels(captions, [picture.shape[1::-1] for picture in rows[0]], 1)
    shots = [Image.fromarray(panels.compose(row).copy()).convert("RGB") for row in rows]
    exif = Image.Exif()
    exif[DESCRIPTION] = metadata()["comment"]
    path = FOLDER / f"{name}.webp"
    shots[0].save(
        path, save_all=True, append_images=shots[1:], duration=round(1000 / rate), loop=0,
        quality=60, method=6, exif=exif.tobytes(),
    )  # fmt: skip
    print(f"{path.name}: {len(shots)} frames, {path.stat().st_size / 1000:.0f} kB", flush=True)


def simulated(folder: Path, anatomy: str, *more: str) -> Path:
    """A folder of `sonomime phantom`."""
    made = folder / anatomy
    if not (made / "clips.csv").exists():
        command = [sys.executable, "-m", "sonomime.cli", "phantom", "-o", str(made)]
        subprocess.run([*command, "--anatomy", anatomy, "--seed", "7", *more], check=True)
    return made


def rest_places(phantom: Path, clip: str) -> dict[str, tuple[float, float]]:
    """The exact landmarks of a simulated clip's first frame."""
    with (phantom / "keypoints.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["video"] == clip and row["frame"] == "0"]
    return {row["keypoint"]: (float(row["x"]), float(row["y"])) for row in rows}


def main(folder: Path) -> None:
    FOLDER.mkdir(exist_ok=True)
    calf, lung = (frames_of(SAMPLES / name)[0] for name in ("still.png", "lung_still.png"))
    calf_clip, lung_clip = (frames_of(SAMPLES / name) for name in ("driving.mp4", "lung.mp4"))
    three = [SOURCE, DRIVING, MADE]
    write("lung", three, driven(lung, lung_clip[::2]), 9)
    write("calf", three, driven(calf, calf_clip[::2]), 7.5)
    write("wrong-organ", three, driven(lung, calf_clip[:40:2]), 7.5)
    write("cut", three, driven(lung, lung_clip[:20:2] + calf_clip[:16:2]), 7.5)

    heart = simulated(folder, "heart", "--subjects", "1", "--frames", "1")
    clip = "clips/heart7-000.mkv"
    still, places = frames_of(heart / clip)[0], rest_places(heart, clip)
    rows = played(still, "heartbeat", places, 20)
    write("heartbeat", [SOURCE, MADE], map(all_marked, rows), 20)

    # Of ten subjects two are for tests; these are driven by each other, and the truth is known.
    floor = simulated(folder, "pelvic", "--subjects", "10", "--frames", "32", "--pairs", "2")
    still = frames_of(floor / "clips/pelvic7-009.mkv")[0]
    truth = map(small, frames_of(floor / "truth/pelvic7-009__pelvic7-004.mkv"))
    rows = driven(still, frames_of(floor / "clips/pelvic7-004.mkv"))
    four = ([*row, true] for row, true in zip(rows, truth, strict=True))
    write("pelvic-floor", [*three, TRUTH], map(all_marked, four), 10)


if __name__ == "__main__":
    if len(sys.argv) > 1:  # where the simulated clips are kept
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
