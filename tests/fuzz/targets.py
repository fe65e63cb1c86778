"""What is damaged and who reads it: one target for each kind of file that a person can bring."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]
SIZE = 32


@dataclass
class Target:
    """A sound file, who reads it, and how other content gets into its place."""

    file: Path
    use: Callable[[], object]
    put: Callable[[bytes], object] | None = None

    def damage(self, content: bytes) -> None:
        (self.put or self.file.write_bytes)(content)


def _frames(count: int = 4, width: int = SIZE, height: int = 24) -> list[Array]:
    random = np.random.default_rng(3)
    return [random.integers(0, 255, (height, width), np.uint8) for _ in range(count)]


def _picture(ending: str) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        from sonomime.runtime.media.frames import read_image

        file = folder / f"picture{ending}"
        cv2.imwrite(str(file), np.dstack(_frames(3)))
        return Target(file, lambda: read_image(file))

    return make


def _video(ending: str, codec: str) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        from sonomime.runtime.media.video import open_source

        def use() -> None:
            with open_source(file) as source:
                for _ in zip(source, range(50), strict=False):
                    pass

        file = _write_video(folder / f"clip{ending}", codec)
        return Target(file, use)

    return make


def _write_video(file: Path, codec: str = "ffv1") -> Path:
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = SIZE, 24
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuv420p"
        for image in _frames():
            frame = av.VideoFrame.from_ndarray(image, "gray").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def _manifest(folder: Path) -> Target:
    from toy_bundle import make_toy_bundle

    from sonomime.runtime.bundle.bundle import Bundle

    bundle = make_toy_bundle(folder / "bundle")
    return Target(bundle / "manifest.json", lambda: Bundle.open(bundle))


def _stage(folder: Path) -> Target:
    """A stage whose digest is right: who writes a stage can write its digest too."""
    from toy_bundle import make_toy_bundle, replace_file

    from sonomime.runtime import Animator

    bundle = make_toy_bundle(folder / "bundle")

    def use() -> None:
        with Animator.open(bundle, backend="cpu") as animator:
            animator.set_source(_frames(1)[0])
            animator.animate(_frames(1)[0])

    file = bundle / "motion.onnx"
    return Target(file, use, lambda content: replace_file(bundle, file.name, content))


def _landmarks(folder: Path) -> Target:
    from sonomime.runtime.landmarks import read_landmarks

    file = folder / "landmarks.csv"
    rows = ("source,apex,12,9.5", "source,base,30,4", "reference,apex,11,8", "reference,base,29,5")
    file.write_text("\n".join(("image,keypoint,x,y", *rows)) + "\n")
    return Target(file, lambda: read_landmarks(file))


def _engine(folder: Path) -> Target:
    from engine_files import engines_of, manifest_of
    from toy_bundle import make_toy_bundle

    from sonomime.runtime.bundle.bundle import Bundle
    from sonomime.runtime.engines.engine_file import read_engine_file, write_engine_file

    bundle = Bundle.open(make_toy_bundle(folder / "bundle"))
    file = folder / "toy.engine"
    write_engine_file(file, manifest_of(bundle), engines_of(bundle))

    def use() -> None:
        # Only what no digest covers may have changed, and that is never an engine.
        assert dict(read_engine_file(file).engines) == engines_of(bundle)

    return Target(file, use)


def _checkpoint(folder: Path) -> Target:
    from sonomime.training.checkpoint import Checkpoint, load_checkpoint
    from sonomime.training.config import load_config
    from sonomime.training.models.families import family_of

    small = ["model.image_size=64", *(f"model.matcher.{name}=8" for name in
             ("fine", "coarse", "grid", "stiff", "shading"))]  # fmt: skip
    config = load_config("lite", small)
    weights = family_of(config.model).model(config.model).state_dict()
    file = folder / "checkpoint.pt"
    data = [{"name": "none", "clips": {"one": ["a", "b"]}}]
    Checkpoint(config, 7, weights, [], data, {}).save(file)
    return Target(file, lambda: load_checkpoint(file).model())


def _configuration(folder: Path) -> Target:
    from sonomime.training.config import PRESETS, load_config

    file = folder / "lite.toml"
    shutil.copy(PRESETS / "lite.toml", file)
    return Target(file, lambda: load_config(str(file)))


def _dataset(folder: Path) -> Path:
    """Two clips, labelled, one with a displacement."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for name in ("a.mkv", "b.mkv"):
        _write_video(data / name)
    tables = {
        "clips.csv": [("clip", "subject", "group", "split", "crop"),
                      ("a.mkv", "one", "heart", "train", ""),
                      ("b.mkv", "two", "lung", "test", "0,0,32,24")],
        "keypoints.csv": [("video", "frame", "keypoint", "x", "y", "visible"),
                          ("a.mkv", 0, "apex", 3, 4, 1), ("b.mkv", 2, "base", 5.5, 6, 0)],
    }  # fmt: skip
    for name, rows in tables.items():
        with open(data / name, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    (data / "displacement").mkdir(exist_ok=True)
    field = np.zeros((4, 24, SIZE, 2), np.float32)
    np.savez_compressed(
        data / "displacement" / "a.npz", displacement=field, sector=field[0, ..., 0] == 0
    )
    return data


def _own_cache(folder: Path) -> Path:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    return folder / "cache"


def _in_dataset(name: str) -> Callable[[Path], Target]:
    def make(folder: Path) -> Target:
        from sonomime.training.data.dataset import find_clips, load_clip

        data, cache = _dataset(folder), _own_cache(folder)

        def use() -> None:
            shutil.rmtree(cache, ignore_errors=True)
            for clip in find_clips([data]).clips:
                load_clip(clip, SIZE, 1)

        return Target(data / name, use)

    return make


def _cache(folder: Path) -> Target:
    """A damaged entry of the clip cache is made again: what is read is what the clip shows."""
    from sonomime.training.data.dataset import find_clips, load_clip

    data, cache = _dataset(folder), _own_cache(folder)
    clip = find_clips([data], split="train").clips[0]
    entries: list[Path] = []
    random = np.random.default_rng(0)

    def use() -> None:
        frames = np.asarray(load_clip(clip, SIZE, 1).frames)
        assert np.array_equal(frames, expected), "the cache changed the clip"

    def put(content: bytes) -> None:
        load_clip(clip, SIZE, 1)
        entries[int(random.integers(len(entries)))].write_bytes(content)

    expected = np.array(load_clip(clip, SIZE, 1).frames)
    entries += sorted(path for path in cache.rglob("*") if path.is_file())
    return Target(max(entries, key=lambda path: path.stat().st_size), use, put)


def _subject(folder: Path) -> Target:
    from sonomime.training.phantom.subject import Identity, draw_subject
    from sonomime.training.phantom.subject_file import read_subject, subject_text

    file = folder / "somebody.json"
    file.write_text(subject_text(draw_subject(Identity("pelvic", 3, 0))))
    return Target(file, lambda: read_subject(file, 2))


def _fomm(folder: Path) -> Target:
    return _fomm_files(folder, "fomm.pth.tar")


def _fomm_yaml(folder: Path) -> Target:
    return _fomm_files(folder, "fomm.yaml")


def _fomm_files(folder: Path, damaged: str) -> Target:
    sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
    from fomm_checkpoints import SMALL, make_fomm, write

    files = write(folder, make_fomm(SMALL), SMALL)
    return Target(folder / damaged, files.run)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "png": _picture(".png"),
    "jpeg": _picture(".jpg"),
    "tiff": _picture(".tif"),
    "mp4": _video(".mp4", "libx264"),
    "mkv": _video(".mkv", "ffv1"),
    "avi": _video(".avi", "ffv1"),
    "ts": _video(".ts", "libx264"),
    "manifest": _manifest,
    "stage": _stage,
    "landmarks": _landmarks,
    "engine": _engine,
    "checkpoint": _checkpoint,
    "configuration": _configuration,
    "clips": _in_dataset("clips.csv"),
    "keypoints": _in_dataset("keypoints.csv"),
    "displacement": _in_dataset("displacement/a.npz"),
    "cache": _cache,
    "subject": _subject,
    "fomm": _fomm,
    "fomm_yaml": _fomm_yaml,
}
