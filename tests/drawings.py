"""Digits drawn by a program: printed in a font, or written by a hand that trembles."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "STIXGeneral", "STIXGeneralItalic", "cmr10",
    "cmss10", "cmtt10",
)  # fmt: skip
PAPER, INK = 235, 30
FINER = 4  # lines are drawn so many times larger and averaged down, which makes them smooth


def printed(digit: int, font: str, size: int = 120, paper: int = PAPER, ink: int = INK) -> np.ndarray:
    """A digit of a font that matplotlib brings, in the middle of a page, uint8 `(2 * size, 2 * size)`."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    page = Image.new("L", (2 * size, 2 * size), paper)
    ImageDraw.Draw(page).text((size, size), str(digit), ink, ImageFont.truetype(str(file), size), anchor="mm")
    return np.asarray(page)


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[tuple[float, float]]:
    """Points on an ellipse; angles in degrees, clockwise from the right, for y points down."""
    angles = np.radians(np.linspace(start, end, 24))
    return list(zip(x + rx * np.cos(angles), y + ry * np.sin(angles), strict=True))


# How a hand writes each digit, in a box of width 0.6 and height 1: strokes of points (x, y), y down.
STROKES = (
    [arc(0.3, 0.5, 0.28, 0.5, -90, 270)],
    [[(0.33, 0.0), (0.3, 1.0)]],
    [[*arc(0.3, 0.25, 0.25, 0.25, -170, 30), (0.03, 0.98), (0.58, 0.95)]],
    [[*arc(0.28, 0.25, 0.25, 0.25, -150, 80), *arc(0.28, 0.73, 0.29, 0.27, -80, 150)]],
    [[(0.12, 0.0), (0.03, 0.55), (0.58, 0.53)], [(0.47, 0.08), (0.42, 1.0)]],
    [[(0.1, 0.0), (0.06, 0.42), *arc(0.26, 0.68, 0.3, 0.3, -100, 140)], [(0.1, 0.02), (0.55, 0.0)]],
    [[(0.42, 0.0), (0.18, 0.3), *arc(0.3, 0.73, 0.26, 0.26, -180, 180)]],
    [[(0.02, 0.04), (0.58, 0.0), (0.22, 1.0)]],
    [[*arc(0.3, 0.25, 0.22, 0.25, 90, 450), *arc(0.3, 0.75, 0.27, 0.25, -90, 270)]],
    [[*arc(0.3, 0.27, 0.25, 0.26, 10, 370), (0.53, 0.4), (0.42, 1.0)]],
)


def written(
    digit: int, seed: int, size: int = 160, thickness: float = 0.1, paper: int = PAPER, ink: int = INK
) -> np.ndarray:
    """A digit as a hand may write it, each seed differently, uint8 `(2 * size, 2 * size)`.

    Slanted, stretched and turned a little; bent and trembling; at another place of the page.

    Args:
        digit: 0 to 9.
        seed: of all that varies.
        size: its height in pixels, about.
        thickness: of the pen, as a share of `size`.
        paper: grey value.
        ink: grey value.
    """
    rng = np.random.default_rng([seed, digit])
    angle, slant, stretch = np.radians(rng.uniform(-8, 8)), rng.uniform(-0.1, 0.25), rng.uniform(0.8, 1.15)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turned @ [[stretch, -slant], [0, 1]]
    place = size + rng.uniform(-0.35, 0.35, 2) * size
    bend, phase = rng.uniform(0, 0.03, 2), rng.uniform(0, 6, 2)
    page = Image.new("L", (2 * size * FINER, 2 * size * FINER), paper)
    draw = ImageDraw.Draw(page)
    for stroke in STROKES[digit]:
        points = _densely(np.array(stroke))
        points = points + bend * np.sin(7 * points[:, ::-1] + phase) + _tremble(rng, points.shape)
        points = ((points - [0.3, 0.5]) @ matrix.T * size + place) * FINER
        radius = thickness * size * FINER / 2
        for x, y in points:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=ink)
    return np.asarray(page.reduce(FINER))


def _densely(points: np.ndarray) -> np.ndarray:
    """The polyline as many points, `(n, 2)`."""
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    along = np.arange(0, lengths[-1], 0.004)
    return np.stack([np.interp(along, lengths, points[:, axis]) for axis in (0, 1)], axis=1)


def _tremble(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    window = np.hanning(31) / np.hanning(31).sum()
    noise = rng.normal(0, 0.02, (shape[0] + 30, 2))
    return np.stack([np.convolve(noise[:, axis], window, "valid") for axis in (0, 1)], axis=1)
