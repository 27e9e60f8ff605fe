"""An image file of any kind as an RGB array."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit_edu import _interruption
from keras_vit_edu._install import install_command

CHUNK = 1 << 16  # pixels
MAX_SIDE = 1_000_000  # pixels


def read_image(file: str | Path) -> np.ndarray:
    """Read an image file: its first frame, upright, as RGB.

    A photograph that a camera stored on its side is turned as its EXIF says. What is transparent becomes white, or
    black beneath a bright drawing. Grey values of more than 8 bits are stretched to the range that they use.

    Args:
        file: anything that Pillow reads: PNG, JPEG, GIF, TIFF, BMP, WebP...

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        ValueError: if there is no such file; if it is a folder, empty, damaged, no image, or larger than
            `PIL.Image.MAX_IMAGE_PIXELS` (89 million pixels), which a small file can pretend to be, or one of its sides
            than a million pixels.
        ImportError: without Pillow.

    Examples:
        >>> import tempfile, PIL.Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PIL.Image.new("1", (40, 30)).save(f"{folder}/black.png")
        ...     read_image(f"{folder}/black.png").shape
        (30, 40, 3)
    """
    with _opened(file) as image:
        from PIL import ImageOps

        return _as_rgb(ImageOps.exif_transpose(image))


def check_header(file: str | Path) -> None:
    """Complain as `read_image` does, but over the first bytes only: about a millisecond, and no proof of the rest."""
    with _opened(file):
        pass


def names_in(folder: str | Path) -> list[str]:
    """What a folder holds; complains if it cannot be listed, or its files not be opened by their names."""
    try:
        os.stat(os.path.join(folder, "."))
        return os.listdir(folder)
    except OSError as error:
        raise ValueError(f"The folder cannot be opened: {error.strerror}. Received: {folder}") from None


@contextmanager
def _opened(file: str | Path) -> Iterator[Any]:
    """The image in a file, for Pillow to read; whatever is wrong with it is a `ValueError`."""
    _interruption.check()
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(f"Reading image files needs Pillow: {install_command('cli')}") from None
    if os.path.isdir(file):
        names_in(file)  # complains, if it cannot even be opened
        raise ValueError(f"A folder is no image file. Received: {file}")
    if not os.path.isfile(file):
        raise ValueError(f"There is no such file. Received: {file}")
    if os.path.getsize(file) == 0:
        raise ValueError(f"The file is empty. Received: {file}")
    try:
        with Image.open(file) as image:
            # Pillow refuses twice as many, and only warns before. That warning cannot be made an error here: filters of
            # warnings are the whole process's, and there are threads.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"a side of it has more than {MAX_SIDE:,} pixels")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"Images have at most {Image.MAX_IMAGE_PIXELS:,} pixels. Received: {file}") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"This is no image file that Pillow knows. Received: {file}") from None
    except Exception as error:  # over damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"The image cannot be read: {reason}. Received: {file}") from None


def _as_rgb(image: Any) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # 16 or 32 bits, or floats
        grey = np.asarray(image).astype("float64")
        low, high = grey.min(), grey.max()
        if not np.isfinite(high - low):
            raise ValueError("it holds values that are no finite numbers")
        image = Image.fromarray(np.uint8(255 * (grey - low) / max(high - low, 1e-12)))
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    image = image.convert("RGBA")
    paper = "black" if _brightness(image) > 127 else "white"
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, paper), image).convert("RGB"))


def _brightness(image: Any) -> float:
    """The mean of an RGBA image, 0 to 255, each pixel counted as far as it is opaque; 0 if none is."""
    pixels = np.asarray(image).reshape(-1, 4)
    drawn = opacity = 0
    for start in range(0, len(pixels), CHUNK):  # wider numbers for a few pixels at a time, not for 89 million
        some = pixels[start : start + CHUNK].astype("int64")
        drawn += int((some[:, :3] * some[:, 3:]).sum())
        opacity += int(some[:, 3].sum())
    return drawn / max(3 * opacity, 1)
