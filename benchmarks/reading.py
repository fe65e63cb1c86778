"""How fast long cines are read, and in how much memory: `python -m sonomime.benchmarks.reading`.

DICOM cines of 640 x 480 are made of a clip's frames, over and over, and read by `open_source` and
by pydicom's decoder alone, in turns; the clip itself by `open_source` and by PyAV alone.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ..runtime.media.frames import resize, to_channels
from ..runtime.readers.open_source import open_source
from ..runtime.sinks.open_sink import open_sink

PEAK = """import re, sys
from itertools import islice
from sonomime.runtime.readers.open_source import open_source
for _ in islice(open_source(sys.argv[1], channels=3), int(sys.argv[2])): pass
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)"""


def make_cines(clip: Path, count: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """A grey one that is not compressed, and one of JPEG Baseline in colour (4:2:2)."""
    from PIL import Image
    from pydicom import dcmread
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    first = islice(open_source(clip, channels=3), 30)
    images = [resize(frame.image, 640, 480) for frame in first]
    for path, number, channels in ((folder / "plain.dcm", count, 1), (folder / "jpeg.dcm", 1, 3)):
        with open_sink(path, (640, 480), channels, 30) as sink:
            for image in islice(cycle(images), number):
                sink.write(to_channels(image, channels))
    yield "not compressed, grey", folder / "plain.dcm"
    files = [io.BytesIO() for _ in images]
    for image, file in zip(images, files, strict=True):
        Image.fromarray(image).save(file, "JPEG", quality=90, subsampling=1)
    cine = dcmread(path)
    cine.PhotometricInterpretation, cine.NumberOfFrames = "YBR_FULL_422", count
    cine.PixelData = encapsulate([file.getvalue() for file in islice(cycle(files), count)])
    cine["PixelData"].is_undefined_length = True
    cine.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    cine.save_as(path)
    yield "JPEG Baseline, colour", path


def seconds(frames: Iterable[object]) -> float:
    begin = time.perf_counter()
    for _ in frames:
        pass
    return time.perf_counter() - begin


def bare(clip: Path) -> Iterator[object]:
    """PyAV's frames, not converted."""
    import av

    with av.open(str(clip)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(video=0)


def compare_with_pyav(clip: Path, rounds: int) -> None:
    count = sum(1 for _ in bare(clip))
    sources = {n: open_source(clip, channels=n) for n in (1, 3)}
    for channels, source in sources.items():
        pairs = [(seconds(source), seconds(bare(clip))) for _ in range(rounds)]
        ours, alone = (median(each) / count * 1000 for each in zip(*pairs, strict=True))
        low, *_, high = ratios = sorted(mine / theirs for mine, theirs in pairs)
        width, height = source.size
        print(
            f"{clip.name}, {count} frames of {width}x{height}: {channels} channels: {ours:.3f} ms "
            f"a frame, PyAV alone {alone:.3f}; {median(ratios):.2f} ({low:.2f}-{high:.2f}) of it"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--video", nargs="*", type=Path, default=[], help="clips for PyAV alone")
    parser.add_argument("--frames", type=int, default=7200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    from pydicom.pixels import iter_pixels

    for clip in args.video:
        compare_with_pyav(clip, args.rounds)
    with TemporaryDirectory() as folder:
        for name, path in make_cines(args.clip, args.frames, Path(folder)):
            rounds = []
            for _ in range(args.rounds):
                taken = {f"{n} channels": seconds(open_source(path, channels=n)) for n in (1, 3)}
                for raw in (True, False):
                    frames = iter_pixels(path, raw=raw, decoding_plugin="pillow")
                    taken["pydicom " + ("as stored" if raw else "as RGB")] = seconds(frames)
                rounds.append(taken)
            for who in rounds[0]:
                text = f"{median(each[who] for each in rounds) / args.frames * 1000:.3f} ms a frame"
                for alone in list(rounds[0])[2:]:
                    low, *_, high = ratios = sorted(each[who] / each[alone] for each in rounds)
                    text += f", {median(ratios):.2f} ({low:.2f}-{high:.2f}) of {alone}"
                print(f"{name}: {who}: {text}")
            for count in (500, args.frames):
                words = [sys.executable, "-c", PEAK, str(path), str(count)]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                print(f"{name}: at most {done.stdout.strip()} MB in {count} frames")


if __name__ == "__main__":
    main()
