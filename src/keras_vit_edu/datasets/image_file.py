"""An image file of any kind as an RGB array."""

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from keras_vit_edu import _interruption
from keras_vit_edu._files import printable
from keras_vit_edu._install import install_command
from keras_vit_edu.datasets.image_source import (
    alone_with,
    can_read_heif,
    content_of,
    heif_kind,
    is_pillow_image,
    is_stream,
    name_of,
    regular_file,
)
from keras_vit_edu.datasets.pixels import stretched

CHUNK = 1 << 16  # pixels
MAX_SIDE = 1_000_000  # pixels
ORIENTATION = 0x0112  # EXIF's tag
EXIF_GROUPS = (0x8769, 0x8825, 0xA005)  # tags that hold further tags: of the camera, of GPS, of other systems


def read_image(file: str | os.PathLike | BinaryIO | Any) -> np.ndarray:
    """Read an image file: its first frame, upright, as RGB.

    A photograph that a camera stored on its side is turned as its EXIF says; EXIF that cannot be read counts as none.
    What is transparent becomes white, or black beneath a bright drawing. Grey values of more than 8 bits are stretched
    to the range that they use; of colours of 16 bits the high byte counts.

    Args:
        file: anything that Pillow reads: PNG, JPEG, GIF, TIFF, BMP, WebP..., and HEIC where pillow-heif is installed.
            A path; or a binary stream such as `io.BytesIO`, of at most 256 MiB, which is read from its beginning; or an
            image of Pillow.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        ValueError: if it is none of these; if there is no such file; if it is a folder, no ordinary file, empty,
            damaged, no image, or larger than `PIL.Image.MAX_IMAGE_PIXELS` (89 million pixels), which a small file can
            pretend to be, or one of its sides than a million pixels.
        ImportError: without Pillow.

    Examples:
        >>> import tempfile, PIL.Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PIL.Image.new("1", (40, 30)).save(f"{folder}/black.png")
        ...     read_image(f"{folder}/black.png").shape
        (30, 40, 3)
        >>> stream = io.BytesIO()
        >>> PIL.Image.new("RGB", (40, 30)).save(stream, "JPEG")
        >>> read_image(stream).shape
        (30, 40, 3)
    """
    with _opened(file) as image:
        with alone_with(image):
            _load(image)
        return _as_rgb(_upright(image))


def check_header(file: str | os.PathLike | BinaryIO | Any) -> None:
    """Complain as `read_image` does, but over the first bytes only: about a millisecond, and no proof of the rest."""
    with _opened(file):
        pass


@contextmanager
def _opened(file: Any) -> Iterator[Any]:
    """The image in a file, for Pillow to read; whatever is wrong with it is a `ValueError`."""
    _interruption.check()
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(f"Reading image files needs Pillow: {install_command('cli')}") from None
    name, kind, opened = name_of(file), None, None
    if is_pillow_image(file):
        opened = contextlib.nullcontext(file)
    else:
        source = io.BytesIO(content_of(file)) if is_stream(file) else regular_file(file)
        kind = heif_kind(source)
    try:
        if kind is not None:
            can_read_heif()
        with opened or Image.open(source) as image:
            # Pillow refuses twice as many, and only warns before. That warning cannot be made an error here: filters of
            # warnings are the whole process's, and there are threads.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"a side of it has more than {MAX_SIDE:,} pixels")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"Images have at most {Image.MAX_IMAGE_PIXELS:,} pixels. Received: {name}") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{_unknown(kind)}. Received: {name}") from None
    except Exception as error:  # over damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"The image cannot be read: {printable(reason)}. Received: {name}") from None


def _unknown(kind: str | None) -> str:
    """What to say of a file that no plugin of Pillow knows."""
    if kind is None:
        return "This is no image file that Pillow knows"
    if kind == "HEIC" and can_read_heif():
        return "The image cannot be read: its HEIC is damaged, or of a kind that pillow-heif does not know"
    more = " (AVIF also with Pillow 11.3 or newer)" if kind == "AVIF" else ""
    return f"Pillow reads {kind} files with a plugin: pip install pillow-heif{more}"


def _load(image: Any) -> None:
    """Decode an image. What is wrong with its EXIF does not count."""
    if image.format != "TIFF":
        image.load()
        return
    exif = image.getexif()  # Pillow looks through all of it when it loads a TIFF, and turns the image itself
    for group in EXIF_GROUPS:
        try:
            exif.get_ifd(group)
        except Exception:
            exif.pop(group, None)
    name, image.filename = image.filename, ""  # else it maps the file into memory in the size of the turned image
    try:
        image.load()
    finally:
        image.filename = name


def _upright(image: Any) -> Any:
    """The image turned as its EXIF says. (Pillow's `exif_transpose` writes the EXIF anew, which may fail.)"""
    from PIL import Image

    turn = Image.Transpose
    try:
        method = {
            2: turn.FLIP_LEFT_RIGHT,
            3: turn.ROTATE_180,
            4: turn.FLIP_TOP_BOTTOM,
            5: turn.TRANSPOSE,
            6: turn.ROTATE_270,
            7: turn.TRANSVERSE,
            8: turn.ROTATE_90,
        }.get(image.getexif().get(ORIENTATION))
    except Exception:  # Pillow raises whatever over damaged EXIF
        return image
    return image if method is None else image.transpose(method)


def _as_rgb(image: Any) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # 16 or 32 bits, or floats
        image = Image.fromarray(stretched(np.asarray(image)))
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
