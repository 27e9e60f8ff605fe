"""Count how many digits `classify` refuses, and how many photographs it takes for digits.

    PYTHONPATH=. python tools/digit_or_photograph.py [--mnist mnist.npz] [--seed 2]

Digits: rendered ones, in 14 fonts or as a hand writes them, in all colours, on lined paper, with shadows, noise, blur,
as JPEG; and MNIST's test images (of the bundled sample without `--mnist`) at 1 to 20 times their size. Photographs:
those that scikit-image and scikit-learn bring, whole, without colour, as crops at several sizes, and faces.

The limits in `digits/looks_like_digit.py` were set on other digits and crops of these kinds than seed 2 draws.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from keras_vit_edu import datasets
from tests.drawings import FONTS, INK, PAPER, printed, written

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "ihc", "microaneurysms", "moon", "motorcycle_left", "motorcycle_right", "retina", "rocket",
    "china", "flower",
)  # fmt: skip
PAPERS = ((255, 255, 255), (250, 245, 235), (240, 240, 210), (200, 220, 240), (30, 30, 30), (20, 40, 110))
PENS = ((20, 20, 20), (200, 20, 30), (20, 40, 180), (20, 120, 40), (250, 250, 250), (120, 20, 140), (250, 120, 20))


def rendered(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Digits drawn by a program, uint8 `(H, W, 3)`."""
    for number in range(count):
        size = int(rng.choice((40, 60, 100, 160)))
        if rng.random() < 0.4:
            drawn = printed(number % 10, str(rng.choice(FONTS)), size)
        else:
            drawn = written(number % 10, int(rng.integers(2**31)), size, float(rng.uniform(0.02, 0.18)))
        yield _on_paper(drawn, rng)


def _on_paper(drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A digit in two colours that differ, with what paper, light and camera add."""
    pairs = [(paper, pen) for paper in PAPERS for pen in PENS]
    pairs = [pair for pair in pairs if np.abs(np.subtract(*pair)).max() > 60]
    paper, pen = map(np.array, pairs[rng.integers(len(pairs))])
    share = ((PAPER - drawn.astype("float64")) / (PAPER - INK))[..., None]
    picture = share * pen + (1 - share) * paper
    height, width = drawn.shape
    if rng.random() < 0.25:  # lined
        lines = (np.arange(height) % int(rng.integers(16, 60)) < max(height // 160, 1))[:, None] & (share[..., 0] < 0.1)
        picture[lines] = 0.8 * paper + 0.2 * np.array([80, 120, 220])
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    if rng.random() < 0.3:  # a shadow
        picture = picture * (1 - rng.uniform(0.2, 0.6) * (0.6 * x + 0.4 * y))[..., None]
    if rng.random() < 0.3:
        picture = picture + rng.normal(0, rng.uniform(2, 14), picture.shape)
    image = Image.fromarray(np.uint8(np.clip(picture, 0, 255)))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(height / 200))
    return as_jpeg(image, int(rng.integers(30, 90))) if rng.random() < 0.3 else np.asarray(image)


def as_jpeg(image: Image.Image, quality: int) -> np.ndarray:
    """What is left of an image as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def of_mnist(images: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """MNIST's digits as PNG files hold them, white on black or black on white, enlarged."""
    ways = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    for index in rng.choice(len(images), count, replace=False):
        pixels = images[index].reshape(28, 28)
        image = Image.fromarray(255 - pixels if rng.random() < 0.5 else pixels)
        side = 28 * int(rng.choice((1, 2, 4, 10, 20)))
        yield np.asarray(image.resize((side, side), ways[rng.integers(3)]).convert("RGB"))


def photographs() -> dict[str, np.ndarray]:
    """The photographs that lie in the packages themselves, by name."""
    import skimage
    import sklearn.datasets

    folders = [Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"]
    files = [file for folder in folders for file in sorted(folder.iterdir()) if file.suffix in (".png", ".jpg")]
    return {file.stem: datasets.read_image(file) for file in files if file.stem in PHOTOGRAPHS}


def crops(images: dict[str, np.ndarray], each: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Parts of them, some made smaller, some badly compressed."""
    for image in images.values():
        for _ in range(each):
            height, width = (int(side * rng.uniform(0.25, 0.9)) for side in image.shape[:2])
            top, left = rng.integers(image.shape[0] - height), rng.integers(image.shape[1] - width)
            part = Image.fromarray(image[top : top + height, left : left + width])
            part = part.reduce(int(rng.choice((1, 1, 2)))) if min(part.size) > 60 else part
            yield as_jpeg(part, 40) if rng.random() < 0.3 else np.asarray(part)


def faces() -> np.ndarray:
    """A hundred faces of 25 by 25 pixels, uint8."""
    import skimage

    shares = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:100]
    return np.uint8(np.clip(shares, 0, 1) * 255)


def is_refused(picture: np.ndarray) -> bool:
    """Whether `classify` says that this is no digit."""
    try:
        datasets.check_digit(picture)
    except ValueError:
        return True
    return False


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="Keras's mnist.npz.")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--digits", type=int, default=250, help="How many of each kind.")
    parser.add_argument("--crops", type=int, default=5, help="How many of each photograph.")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    test = np.load(options.mnist)["x_test"] if options.mnist else datasets.load("mnist-sample").x_test
    whole = photographs()
    grey = (np.uint8(image @ [0.299, 0.587, 0.114]) for image in whole.values())
    for name, pictures in (
        ("rendered digits", rendered(options.digits, rng)),
        ("MNIST's test digits", of_mnist(test, options.digits, rng)),
        ("photographs", whole.values()),
        ("photographs without colour", grey),
        ("crops of photographs", crops(whole, options.crops, rng)),
        ("faces", faces()),
    ):
        verdicts = [is_refused(picture) for picture in pictures]
        print(f"{name}: {sum(verdicts)} of {len(verdicts)} refused ({np.mean(verdicts):.1%})", flush=True)


if __name__ == "__main__":
    main()
