"""Three qualities of a page, as printed and as two scanners would have it, and the same sheet photographed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from ops.train.document import project, seen_through
from pipeline.geometry import Box

Quality = Literal["clean", "fair", "poor"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
Look = Quality | Literal["photograph"]
LOOKS: tuple[Look, ...] = (*QUALITIES, "photograph")
JPEG: dict[Look, int] = {"clean": 95, "fair": 75, "poor": 50, "photograph": 80}
"""Quality of the files; of a clean page where it is part of a PDF."""
PaperBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scanner:
    """What a scanner does; ranges are drawn from uniformly.

    Attributes:
        skew_deg: How far the page is turned, either way.
        blur_px: Standard deviation of the blur.
        noise: Standard deviation of the noise, in grey levels of 255.
        ink: Share of the ink's blackness that is left.
        shade: Largest loss of light at one side of the page.
        bleed: Share of the reverse side's ink that shows.
    """

    skew_deg: tuple[float, float]
    blur_px: tuple[float, float]
    noise: tuple[float, float]
    ink: tuple[float, float]
    shade: tuple[float, float]
    bleed: tuple[float, float]


SCANNERS: dict[Quality, Scanner] = {
    "fair": Scanner((0.1, 0.5), (0.4, 0.8), (3, 7), (0.75, 1.0), (0.0, 0.12), (0.0, 0.0)),
    "poor": Scanner((0.4, 1.2), (0.8, 1.3), (8, 16), (0.55, 0.85), (0.08, 0.25), (0.04, 0.1)),
}


@dataclass(frozen=True, eq=False)
class Scan:
    """A page as scanned or photographed, and where its paper went.

    Attributes:
        image: Grey.
        homography: [3, 3], takes pixels of the paper (x, y, 1) to those of the image.
    """

    image: Image.Image
    homography: np.ndarray = field(default_factory=lambda: np.eye(3))

    def box(self, box: PaperBox) -> Box:
        """The upright box, in whole pixels of the image, around a box of the paper."""
        x0, y0, x1, y1 = box
        corners = project(self.homography, np.array([(x, y) for x in (x0, x1) for y in (y0, y1)], float))
        (left, top), (right, bottom) = map(math.floor, corners.min(0)), map(math.ceil, corners.max(0))
        return Box(left, top, max(right, left + 1), max(bottom, top + 1)).clip(*self.image.size)


def turn(size: tuple[int, int], angle_deg: float) -> np.ndarray:
    """The homography [3, 3] of a turn around the middle, counter-clockwise."""
    (x, y), angle = (side / 2 for side in size), math.radians(angle_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y], [0, 0, 1]])


def scan(paper: Image.Image, look: Look, rng: random.Random) -> Scan:
    """Scan a page, or photograph it."""
    if look == "clean":
        return Scan(paper)
    if look == "photograph":
        return _photograph(paper, rng)
    scanner = SCANNERS[look]
    angle = rng.uniform(*scanner.skew_deg) * rng.choice((-1, 1))
    ground = paper.getpixel((0, 0))
    turned = paper.rotate(angle, Image.Resampling.BILINEAR, fillcolor=ground)
    soft = turned.filter(ImageFilter.GaussianBlur(rng.uniform(*scanner.blur_px)))
    grey = 255 - (255 - np.asarray(soft, np.float32)) * rng.uniform(*scanner.ink)
    if scanner.bleed[1]:
        reverse = np.asarray(ImageOps.mirror(turned).filter(ImageFilter.GaussianBlur(2)), np.float32)
        grey -= (255 - reverse) * rng.uniform(*scanner.bleed)
    grey *= _light(grey.shape[0], grey.shape[1], rng.uniform(*scanner.shade), rng.uniform(0, 2 * math.pi))
    return Scan(_noisy(grey, scanner.noise, rng), turn(paper.size, angle))


TABLE = (60, 140)
"""Grey levels of what a photographed sheet lies on."""
RIM, LEAN = (0.01, 0.04), 0.025
"""Of the picture's sides: how much of them the table keeps at the sheet's edges; how much further a corner may be away."""
HAND_PX, SENSOR_NOISE = (0.5, 1.1), (2.0, 6.0)
"""Blur of a hand-held camera; standard deviation of its noise, in grey levels of 255."""
LAMP, SHADOW = (0.1, 0.35), (0.05, 0.25)
"""Loss of light at the far side, and in the shadow of who holds the camera."""


def _photograph(paper: Image.Image, rng: random.Random) -> Scan:
    """Take a picture of a page with a telephone held over it: as large as the page, the sheet seen aslant on a table."""
    width, height = paper.size
    rim = rng.uniform(*RIM)
    seen = [
        (abs(x - (rim + rng.uniform(0, LEAN))) * width, abs(y - (rim + rng.uniform(0, LEAN))) * height)
        for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    homography = _homography([(0, 0), (width, 0), (width, height), (0, height)], seen)
    back = np.linalg.inv(homography)
    lain = seen_through(paper.convert("L"), paper.size, back, Image.Resampling.BICUBIC, rng.randint(*TABLE))
    grey = np.asarray(lain.filter(ImageFilter.GaussianBlur(rng.uniform(*HAND_PX))), np.float32)
    grey = grey * _light(height, width, rng.uniform(*LAMP), rng.uniform(0, 2 * math.pi))
    x, y = np.linspace(0, 1, width, dtype=np.float32)[None], np.linspace(0, 1, height, dtype=np.float32)[:, None]
    away = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0.6, 1.2))
    grey = grey * (1 - rng.uniform(*SHADOW) * np.exp(-((away / 0.4) ** 2)))
    return Scan(_noisy(grey, SENSOR_NOISE, rng), homography)


def _homography(paper: Sequence[tuple[float, float]], seen: Sequence[tuple[float, float]]) -> np.ndarray:
    """The homography [3, 3] that takes four points of the paper to where they are seen."""
    rows = []
    for (x, y), (u, v) in zip(paper, seen, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solved = np.linalg.solve(np.array(rows), np.array(seen).flatten())
    return np.append(solved, 1.0).reshape(3, 3)


def _noisy(grey: np.ndarray, deviation: tuple[float, float], rng: random.Random) -> Image.Image:
    """A picture of grey levels [height, width] with noise of a standard deviation drawn from a range."""
    noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(grey.shape, np.float32)
    return Image.fromarray(np.clip(np.rint(grey + noise * rng.uniform(*deviation)), 0, 255).astype(np.uint8))


def _light(height: int, width: int, loss: float, towards: float) -> np.ndarray:
    """Brightness [height, width], 1 at one rim and 1 - loss at the opposite one."""
    across = math.cos(towards) * np.linspace(-1, 1, width, dtype=np.float32)[None]
    along = math.sin(towards) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light: np.ndarray = 1 - loss * (1 - (across + along) / (abs(math.cos(towards)) + abs(math.sin(towards)))) / 2
    return light
