"""Screens of imagined ultrasound machines, made of this package's sample clips.

Each is a clip of 960 x 720 pixels, with the rectangle in which its picture lies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.readers.open_source import open_source

Image = np.ndarray
Screen = tuple[list[Image], Crop]

WIDTH, HEIGHT, COUNT = 960, 720, 10
WHITE, GREY = (255, 255, 255), (205, 205, 210)
SAMPLES = Path(__file__).resolve().parents[1] / "runtime" / "samples"


@cache
def tissue(name: str, width: int, height: int) -> list[Image]:
    """Frames of a sample, in grey, without its own black corners."""
    source = open_source(SAMPLES / f"{name}.mp4")
    frames = [frame.image for frame in source][::3]
    if name == "lung":
        frames = [frame[90:300, 50:270] for frame in frames]
    return [cv2.resize(frame, (width, height)) for frame in frames[:COUNT]]


def clip(level: int | tuple[int, int, int] = 0) -> list[Image]:
    return [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for _ in range(COUNT)]


def put(screens: list[Image], box: Crop, name: str = "driving") -> Screen:
    """A rectangular picture."""
    for screen, frame in zip(screens, tissue(name, box.w, box.h), strict=True):
        screen[box.y : box.y + box.h, box.x : box.x + box.w] = frame[..., None]
    return screens, box


def sector(
    screens: list[Image], apex: tuple[int, int], inner: int, outer: int, half: int = 38
) -> Screen:
    """A sector that opens downwards, `half` degrees to both sides."""
    angles = np.radians(np.arange(-half, half + 1))
    arc = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    corners = np.concatenate([arc * inner, arc[::-1] * outer]) + apex
    mask = cv2.fillPoly(np.zeros((HEIGHT, WIDTH), np.uint8), [np.int32(np.round(corners))], 1) > 0
    box = Crop(*cv2.boundingRect(mask.astype(np.uint8)))
    inside = mask[box.y : box.y + box.h, box.x : box.x + box.w]
    for screen, frame in zip(screens, tissue("lung", box.w, box.h), strict=True):
        screen[box.y : box.y + box.h, box.x : box.x + box.w][inside] = frame[inside][:, None]
    return screens, box


def text(screens: list[Image], x: int, y: int, *lines: str, colour: tuple = WHITE) -> None:
    for screen in screens:
        for row, line in enumerate(lines):
            cv2.putText(screen, line, (x, y + 18 * row), 0, 0.5, colour, 1, cv2.LINE_AA)


def bright() -> Screen:
    screens, box = put(clip(GREY), Crop(200, 90, 600, 480))
    for x in range(20, 900, 110):
        for screen in screens:
            cv2.rectangle(screen, (x, 640), (x + 90, 690), (90, 120, 200), -1)
        text(screens, x + 10, 670, "BUTTON")
    text(
        screens, 10, 120, *["Frq 6.5 MHz", "Gain 81 %", "DR 66 dB", "MI 0.37"] * 5, colour=(0, 0, 0)
    )
    text(screens, 10, 30, "University Hospital, Dept. of Imaging    2026-11-29", colour=(0, 0, 0))
    return screens, box


def dark_panel_on_grey() -> Screen:
    screens = clip(GREY)
    for screen in screens:
        screen[96:656, 150:900] = 0
    text(screens, 160, 120, "DOE, JANE", "1970-01-01", "ID 12345")
    text(screens, 10, 120, *["Frq 6.5 MHz", "Gain 81 %"] * 8, colour=(0, 0, 0))
    return sector(screens, (525, 60), 60, 590)


def gradient() -> Screen:
    screens = clip()
    shade = np.linspace(20, 90, HEIGHT)[:, None] * np.array([0.5, 0.7, 1.0])
    for screen in screens:
        screen[:] = shade[:, None].astype(np.uint8)
    return put(screens, Crop(250, 60, 560, 560), "lung")


def two_sectors() -> Screen:
    screens, box = sector(clip(), (300, 40), 50, 560, 30)
    sector(screens, (750, 40), 50, 430, 25)
    return screens, box


def two_rectangles() -> Screen:
    screens, box = put(clip(), Crop(30, 60, 520, 560), "lung")
    put(screens, Crop(570, 60, 360, 560))
    return screens, box


def doppler() -> Screen:
    screens, box = sector(clip(), (480, 20), 60, 640)
    random = np.random.default_rng(1)
    for screen in screens:
        blob = cv2.resize(random.integers(0, 255, (8, 9), np.uint8), (180, 160)) > 140
        screen[300:460, 400:580][blob] = (220, 40, 10)
        cv2.polylines(
            screen, [np.int32([(380, 280), (600, 280), (640, 500), (340, 500)])], True, WHITE
        )
        screen[60:260, 20:44] = np.linspace(255, 0, 200)[:, None, None] * np.array([1, 0.4, 0.2])
    return screens, box


def ecg() -> Screen:
    screens, box = sector(clip(), (480, 10), 60, 570)
    xs = np.arange(40, 920)
    for index, screen in enumerate(screens):
        beat = np.exp(-(((xs + 37 * index) % 170 - 80) ** 2) / 30.0) * 60
        curve = np.stack([xs, 660 - beat], axis=1)
        cv2.polylines(screen, [np.int32(curve)], False, (0, 255, 0), 2)
    return screens, box


def clock() -> Screen:
    screens, box = put(clip(), Crop(260, 60, 620, 600))
    text(screens, 20, 200, *["Depth 50 mm", "FPS 16"] * 8)
    for index, screen in enumerate(screens):
        text([screen], 20, 40, f"10:42:{17 + 5 * index % 60:02d}")
        if index % 2:
            screen[80:110, 20:40] = 255  # a cursor
        cv2.circle(screen, (40 + 70 * index, 690), 9, (255, 255, 0), -1)  # a slider
    return screens, box


def ruler() -> Screen:
    screens, box = sector(clip(), (480, 20), 40, 660, 35)
    right = box.x + box.w
    for screen in screens:
        cv2.line(screen, (right, 20), (right, 690), WHITE, 1)
        for y in range(20, 690, 22):
            cv2.line(screen, (right - 2, y), (right + 14, y), WHITE, 1)
        cv2.line(screen, (0, box.y + box.h), (WIDTH, box.y + box.h), (80, 80, 80), 1)
    text(screens, right + 20, 360, "5 cm")
    return screens, box


def names_beside_sector() -> Screen:
    screens, box = sector(clip(), (480, 20), 40, 660, 40)
    text(screens, box.x + 4, 50, "DOE, JANE  F 56", "1970-01-01", "ID 1234567", "St. Elsewhere")
    text(screens, 740, 50, "C5-1  Abd Gen", "22 Hz  14 cm", "2D 62 %", "Dyn R 55")
    return screens, box


def bars() -> Screen:
    return put(clip(), Crop(0, 96, WIDTH, 528), "lung")


def grey_bars() -> Screen:
    return put(clip(70), Crop(120, 0, 720, HEIGHT))


def dim() -> Screen:
    """Tissue that is dark, flat and at rest in its lower part, and a bar right above it."""
    screens, box = put(clip(), Crop(200, 80, 560, 600), "lung")
    for screen in screens:
        screen[460:680, 200:760] = 6
        screen[20:79, 120:840] = 90, 120, 200
    return screens, box


def shaded() -> Screen:
    """A background that is black at the left and gets brighter to the right."""
    screens = clip()
    for screen in screens:
        screen[:] = np.maximum(np.linspace(-60, 120, WIDTH), 0).astype(np.uint8)[:, None]
    return put(screens, Crop(380, 70, 520, 560))


def crowded() -> Screen:
    """Text and lines that touch the picture on all sides."""
    screens, box = put(clip(40), Crop(200, 90, 560, 540), "lung")
    line = "Frq 6.5 MHz Gain 81 % DR 66 dB MI 0.37 TIS 0.1 Depth 50 mm FPS 16 ID 12345 DOE JANE"
    text(screens, 10, 80, line)
    text(screens, 10, 644, line)
    text(screens, 764, 100, *["Gain 81 %"] * 29)
    for screen in screens:
        cv2.line(screen, (0, 89), (WIDTH, 89), WHITE, 1)
        cv2.line(screen, (197, 0), (197, HEIGHT), WHITE, 2)
    return screens, box


def strips() -> Screen:
    """Strips of a pattern along three sides, as of rulers, grey wedges and headers."""
    pattern = np.random.default_rng(2).integers(60, 90, (HEIGHT, WIDTH, 1), np.uint8)
    screens = clip()
    for screen in screens:
        screen[:28] = pattern[:28]
        screen[34:, 160:190] = pattern[34:, 160:190]
        screen[34:, 770:800] = pattern[34:, 770:800]
    return put(screens, Crop(200, 34, 560, 600), "lung")


def dark() -> Screen:
    """Tissue that is nearly black in its lower part, on a bright background."""
    screens, box = put(clip(120), Crop(200, 60, 600, 600))
    for screen in screens:
        screen[320:660, 200:800] //= 16
    return screens, box


def header() -> Screen:
    """A picture that fills the frame but for one line with a name."""
    screens = clip()
    text(screens, 6, 18, "DOE, JANE  F 56  1970-01-01  ID 1234567  St. Elsewhere  2026-11-29 10:42")
    return put(screens, Crop(0, 26, WIDTH, HEIGHT - 26), "lung")


def noisy() -> Screen:
    """Noise everywhere, as in a screen that was filmed."""
    screens, box = put(clip(60), Crop(200, 70, 600, 560), "lung")
    random = np.random.default_rng(3)
    for screen in screens:
        screen[:] = np.clip(screen + random.normal(0, 0.6, screen.shape).round(), 0, 255)
    return screens, box


def lossy() -> Screen:
    """JPEG."""
    screens, box = names_beside_sector()
    for screen in screens:
        screen[:] = cv2.imdecode(cv2.imencode(".jpg", screen, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)
    return screens, box


def title() -> Screen:
    screens, box = names_beside_sector()
    screens[0][:] = 230
    text(screens[:1], 100, 300, "CASE 7: A LUNG", colour=(0, 0, 0))
    return screens, box


def half_at_rest() -> Screen:
    """Tissue of which a half does not move at all."""
    screens, box = put(clip(GREY), Crop(180, 60, 640, 560), "lung")
    for screen in screens[1:]:
        screen[:, :480] = screens[0][:, :480]
    return screens, box


SCREENS: dict[str, Callable[[], Screen]] = {
    make.__name__: make
    for make in (
        bright, dark_panel_on_grey, gradient, two_sectors, two_rectangles, doppler, ecg, clock,
        ruler, names_beside_sector, bars, grey_bars, dim, shaded, crowded, strips, dark, header,
        noisy, lossy, title, half_at_rest,
    )
}  # fmt: skip
