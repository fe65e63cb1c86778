"""What is damaged and who reads it: one target for each kind of file that a person can bring."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import annotation_files
import av
import cv2
import numpy as np
from corpus import clips, stills  # noqa: F401 - they fill CASES
from corpus.case import CASES
from dicom_files import (
    DEFLATED,
    EXPLICIT,
    JPEG,
    JPEG_2000,
    JPEG_LS,
    RLE,
    jpeg,
    jpeg_2000,
    region,
    write_dicom,
)
from engine_files import engines_of, manifest_of
from numpy.typing import NDArray
from toy_bundle import make_toy_bundle, replace_file

from sonomime.runtime import Animator, Bundle
from sonomime.runtime.engines.engine_file import read_engine_file, write_engine_file
from sonomime.runtime.landmarks import read_landmarks
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.support.errors import SonomimeError
from sonomime.runtime.template import Template, find_loop
from sonomime.training.annotations.importing import Wish, import_annotations
from sonomime.training.checkpoint import Checkpoint, load_checkpoint
from sonomime.training.config_file import PRESETS, load_config
from sonomime.training.data.clip_frames import load_clip
from sonomime.training.data.dataset import find_clips
from sonomime.training.models.families import family_of
from sonomime.training.phantom.subject import draw_subject, read_subject, subject_text

sys.path.append(str(Path(__file__).parents[1] / "export"))
from fomm_reference import SMALL, make_fomm, write

SIZE = 32
LANDMARKS = """image,keypoint,x,y
source,apex,12,9.5
source,base,30,4
reference,apex,11,8
reference,base,29,5
"""
CLIPS = """clip,subject,group,split,crop
a.mkv,one,heart,train,
b.mkv,two,lung,test,"0,0,32,24"
"""
KEYPOINTS = """video,frame,keypoint,x,y,visible
a.mkv,0,apex,3,4,1
b.mkv,2,base,5.5,6,0
"""
SUBJECT = subject_text(draw_subject("pelvic", 3, 0))
DICOM = {
    "plain": EXPLICIT, "jpeg": JPEG, "deflated": DEFLATED, "rle": RLE, "jpeg_ls": JPEG_LS,
    "jpeg_2000": JPEG_2000,
}  # fmt: skip
FRAMES = np.random.default_rng(3).integers(0, 255, (4, 24, SIZE), np.uint8)


@dataclass
class Target:
    """A sound file, who reads it, and how other content gets into its place."""

    file: Path
    use: Callable[[], object]
    put: Callable[[bytes], object] | None = None
    seconds: int = 20  # at most, for one file


def _media(file: Path) -> Target:
    """A picture or clip, read with as many of its frames as `skip` finds."""

    def use() -> None:
        for _ in zip(open_source(file, Reading(on_damage="skip")), range(50), strict=False):
            pass

    return Target(file, use, seconds=5)


def _picture(ending: str, folder: Path) -> Target:
    file = folder / f"picture{ending}"
    cv2.imwrite(str(file), np.dstack(FRAMES[:3]))
    return _media(file)


def _corpus(name: str, folder: Path) -> Target:
    CASES[name].write(folder / name)
    return _media(folder / name)


def _video(ending: str, codec: str, folder: Path) -> Target:
    file = folder / f"clip{ending}"
    _write_video(file, codec)
    return _media(file)


def _dicom(syntax: str, folder: Path) -> Target:
    file = folder / "cine.dcm"
    header = {"SequenceOfUltrasoundRegions": [region(2, 2, 20, 20)], "WindowCenter": 90}
    if syntax == JPEG:
        images = [np.dstack([image, image // 2, image]) for image in FRAMES]
        write_dicom(file, images, "YBR_FULL_422", syntax, [*map(jpeg, images)], **header)
    else:
        encoded = [*map(jpeg_2000, FRAMES)] if syntax == JPEG_2000 else None
        write_dicom(file, FRAMES, syntax=syntax, encoded=encoded, WindowWidth=200, **header)
    # The decoder of JPEG-LS can need two seconds for one damaged frame.
    return replace(_media(file), seconds=20) if syntax == JPEG_LS else _media(file)


def _write_video(file: Path, codec: str = "ffv1", frames: NDArray[np.uint8] = FRAMES) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuv420p"
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, "gray").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


MHA = """ObjectType = Image
NDims = 3
CompressedData = True
DimSize = 32 24 4
ElementSpacing = 0.1 0.2 1
ElementType = MET_USHORT
UltrasoundImageOrientation = MN
Seq_Frame0000_Timestamp = 1.5
Seq_Frame0001_Timestamp = 1.6
Seq_Frame0002_ImageStatus = INVALID
Seq_Frame0003_Timestamp = 1.8
ElementDataFile = LOCAL
"""
MHD = """ObjectType = Image
NDims = 4
DimSize = 32 24 1 4
ElementNumberOfChannels = 1
HeaderSize = -1
ElementType = MET_UCHAR
ElementDataFile = values%d.raw 1 4 1
"""
NRRD = """NRRD0005
type: uint8
dimension: 4
sizes: 4 32 24 1
kinds: list domain domain domain
space: LPS
space directions: none (0.1,0,0) (0,0.2,0) (0,0,1)
labels: "time" "" "" ""
units: "s" "" "" ""
encoding: gzip
axis 0 index values:=0 1 2 3

"""


def _array(name: str, header: str, data: bytes, folder: Path) -> Target:
    file = folder / name
    file.write_bytes(header.encode() + data)
    for number, image in enumerate(FRAMES):
        (folder / f"values{number + 1}.raw").write_bytes(image.tobytes())

    def use() -> None:
        for _ in zip(open_source(file), range(50), strict=False):
            pass

    return Target(file, use)


def _manifest(folder: Path) -> Target:
    bundle = make_toy_bundle(folder / "bundle")
    return Target(bundle / "manifest.json", partial(Bundle.open, bundle))


def _stage(folder: Path) -> Target:
    """A stage whose digest is right: who writes a stage can write its digest too."""
    bundle = make_toy_bundle(folder / "bundle")

    def use() -> None:
        with Animator.open(bundle, backend="cpu") as animator:
            animator.set_source(FRAMES[0])
            animator.animate(FRAMES[0])

    return Target(bundle / "motion.onnx", use, partial(replace_file, bundle, "motion.onnx"))


def _text(name: str, content: str, read: Callable[[Path], object], folder: Path) -> Target:
    file = folder / name
    file.write_text(content)
    return Target(file, partial(read, file))


def _engine(folder: Path) -> Target:
    bundle = Bundle.open(make_toy_bundle(folder / "bundle"))
    file = folder / "toy.engine"
    write_engine_file(file, manifest_of(bundle), engines_of(bundle))

    def use() -> None:
        # Only what no digest covers may have changed, and that is never an engine.
        assert dict(read_engine_file(file).engines) == engines_of(bundle)

    return Target(file, use)


def _checkpoint(folder: Path) -> Target:
    names = ("fine", "coarse", "grid", "stiff", "shading")
    small = ["model.image_size=64", *(f"model.matcher.{name}=8" for name in names)]
    config = load_config("lite", small)
    weights = family_of(config.model).model(config.model).state_dict()
    file = folder / "checkpoint.pt"
    data = [{"name": "none", "clips": {"one": ["a", "b"]}}]
    Checkpoint(config, 7, weights, [], data, {}).save(file)
    return Target(file, lambda: load_checkpoint(file).model())


def _dataset(folder: Path) -> Path:
    """Two clips, labelled, one with a displacement."""
    data = folder / "data"
    (data / "displacement").mkdir(parents=True)
    for name in ("a.mkv", "b.mkv"):
        _write_video(data / name)
    (data / "clips.csv").write_text(CLIPS)
    (data / "keypoints.csv").write_text(KEYPOINTS)
    field = np.zeros((4, 24, SIZE, 2), np.float32)
    np.savez_compressed(
        data / "displacement" / "a.npz", displacement=field, sector=field[0, ..., 0] == 0
    )
    return data


def _own_cache(folder: Path) -> Path:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    return folder / "cache"


def _in_dataset(name: str, folder: Path) -> Target:
    data, cache = _dataset(folder), _own_cache(folder)

    def use() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        for clip in find_clips([data]).clips:
            load_clip(clip, SIZE, 1)

    return Target(data / name, use)


def _cache(folder: Path) -> Target:
    """A damaged entry of the clip cache is made again: what is read is what the clip shows."""
    data, cache = _dataset(folder), _own_cache(folder)
    clip = find_clips([data], split="train").clips[0]
    random = np.random.default_rng(0)

    def read() -> NDArray[np.uint8]:
        return np.array(load_clip(clip, SIZE, 1).frames)

    def use() -> None:
        assert np.array_equal(read(), expected), "the cache changed the clip"

    def put(content: bytes) -> None:
        read()
        entries[int(random.integers(len(entries)))].write_bytes(content)

    expected = read()
    entries = sorted(path for path in cache.rglob("*") if path.is_file())
    return Target(max(entries, key=lambda path: path.stat().st_size), use, put)


def _annotations(text: str, folder: Path) -> Target:
    """A file of an annotation tool; whatever is taken from it can be trained on."""
    _own_cache(folder)
    data, file = folder / "clips", folder / "a.tom.json"
    data.mkdir()
    _write_video(data / annotation_files.CLIP, frames=np.pad(FRAMES, ((0, 0), (4, 4), (4, 4))))
    file.write_text(text)
    wish = Wish(spacing=(0.5, 0.25))

    def use() -> None:
        (data / "keypoints.csv").unlink(missing_ok=True)
        import_annotations([file], data, wish)
        try:
            load_clip(find_clips([data]).clips[0], SIZE, 1)
        except SonomimeError as error:
            raise AssertionError("what was imported cannot be trained on") from error

    return Target(file, use)


def _fomm(name: str, folder: Path) -> Target:
    return Target(folder / name, write(folder, make_fomm(SMALL), SMALL).run)


def _template(folder: Path) -> Target:
    file, times = folder / "motion.npz", np.arange(9) / 30
    frames = {"displacement": np.random.default_rng(0).random((9, 1, 4, 4, 2), np.float32)}
    control = {"grid": [4, 4], "shading": [0, 0]}
    Template(times, frames, {}, control, find_loop(times, frames), {"a": (0.0, 0.5)}).save(file)
    return Target(file, lambda: Template.load(file).looped(0.1))


TARGETS: dict[str, Callable[[Path], Target]] = {
    "png": partial(_picture, ".png"),
    "jpeg": partial(_picture, ".jpg"),
    "tiff": partial(_picture, ".tif"),
    "tiff pages": partial(_corpus, "pages.tif"),
    "tiff double": partial(_corpus, "double.tif"),
    "tiff of 16 bits": partial(_corpus, "12 in 16, colour.tif"),
    "png of 16 bits": partial(_corpus, "12 in 16, colour.png"),
    "apng": partial(_corpus, "animated.png"),
    "webp": partial(_corpus, "animated.webp"),
    "jp2": partial(_corpus, "a.jp2"),
    "pgm": partial(_corpus, "16 bits.pgm"),
    "mp4": partial(_video, ".mp4", "libx264"),
    "mkv": partial(_video, ".mkv", "ffv1"),
    "avi": partial(_video, ".avi", "ffv1"),
    "ts": partial(_video, ".ts", "libx264"),
    "mha": partial(_array, "clip.mha", MHA, zlib.compress(FRAMES.astype("<u2").tobytes())),
    "mhd": partial(_array, "clip.mhd", MHD, b""),
    "nrrd": partial(_array, "clip.nrrd", NRRD, gzip.compress(np.moveaxis(FRAMES, 0, 2).tobytes())),
    **{f"dicom_{name}": partial(_dicom, syntax) for name, syntax in DICOM.items()},
    "manifest": _manifest,
    "stage": _stage,
    "landmarks": partial(_text, "landmarks.csv", LANDMARKS, read_landmarks),
    "template": _template,
    "engine": _engine,
    "checkpoint": _checkpoint,
    "configuration": partial(
        _text, "lite.toml", (PRESETS / "lite.toml").read_text(), lambda file: load_config(str(file))
    ),
    "clips": partial(_in_dataset, "clips.csv"),
    "keypoints": partial(_in_dataset, "keypoints.csv"),
    "pair": partial(_annotations, annotation_files.pair(older=True)),
    "cvat": partial(_annotations, annotation_files.cvat()),
    "coco": partial(_annotations, annotation_files.coco(("a/0.png", "a/2.png"))),
    "slicer": partial(_annotations, annotation_files.slicer()),
    "onuvs": partial(_annotations, annotation_files.onuvs()),
    "displacement": partial(_in_dataset, "displacement/a.npz"),
    "cache": _cache,
    "subject": partial(_text, "somebody.json", SUBJECT, lambda file: read_subject(file, 2)),
    "fomm": partial(_fomm, "fomm.pth.tar"),
    "fomm_yaml": partial(_fomm, "fomm.yaml"),
}
