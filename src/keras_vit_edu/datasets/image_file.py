"""Read an image file of any kind as an RGB array."""

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from keras_vit_edu import _interruption
from keras_vit_edu._files import printable
from keras_vit_edu._install import install_command
from keras_vit_edu._pixels import stretched
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

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 1 << 16  # pixels
MAX_SIDE = 1_000_000  # pixels
ORIENTATION = 0x0112  # EXIF's tag
EXIF_GROUPS = (0x8769, 0x8825, 0xA005)  # tags that hold further tags: camera, GPS, interoperability


def read_image(file: "str | os.PathLike | BinaryIO | Image") -> np.ndarray:
    """Read an image file: its first frame, upright, as RGB.

    A photograph is rotated as its EXIF says. Damaged EXIF is ignored. Transparent areas become white, or black beneath
    a bright drawing. Grey values of more than 8 bits are stretched to the range that they use. Colours of 16 bits keep
    their high byte.

    Args:
        file: a path, a binary stream such as `io.BytesIO` (at most 256 MiB, read from its beginning), or an image of
            Pillow. Formats are those of Pillow (PNG, JPEG, GIF, TIFF, BMP, WebP...), and HEIC if pillow-heif is
            installed.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        ValueError: if it is something else; if there is no such file; if it is a folder, not an ordinary file, empty,
            damaged or no image; if it has more than `PIL.Image.MAX_IMAGE_PIXELS` (89 million) pixels, which a small
            file can claim, or more than a million along a side.
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


def check_header(file: "str | os.PathLike | BinaryIO | Image") -> None:
    """Raise the errors of `read_image` for the first bytes only: about a millisecond, without the rest."""
    with _opened(file):
        pass


@contextmanager
def _opened(file: Any) -> Iterator[Any]:
    """Open an image file with Pillow. Every problem with the file is a `ValueError`."""
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
            # Pillow refuses twice as many pixels, and only warns below. Warning filters belong to the whole process,
            # which may have threads, so the warning cannot become an error here.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"a side of it has more than {MAX_SIDE:,} pixels")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"Images have at most {Image.MAX_IMAGE_PIXELS:,} pixels. Received: {name}") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{_unknown(kind)}. Received: {name}") from None
    except Exception as error:  # for damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"The image cannot be read: {printable(reason)}. Received: {name}") from None


def _unknown(kind: str | None) -> str:
    """The message for a file that no plugin of Pillow knows."""
    if kind is None:
        return "This is no image file that Pillow knows"
    if kind == "HEIC" and can_read_heif():
        return "The image cannot be read: its HEIC is damaged, or of a kind that pillow-heif does not know"
    more = " (AVIF also with Pillow 11.3 or newer)" if kind == "AVIF" else ""
    return f"Pillow reads {kind} files with a plugin: pip install pillow-heif{more}"


def _load(image: Any) -> None:
    """Decode an image. Damaged EXIF is ignored."""
    if image.format != "TIFF":
        image.load()
        return
    exif = image.getexif()  # when Pillow loads a TIFF, it reads all EXIF and rotates the image itself
    for group in EXIF_GROUPS:
        try:
            exif.get_ifd(group)
        except Exception:
            exif.pop(group, None)
    name, image.filename = image.filename, ""  # else it maps the file into memory with the rotated size
    try:
        image.load()
    finally:
        image.filename = name


def _upright(image: Any) -> Any:
    """Rotate an image as its EXIF says. (Pillow's `exif_transpose` writes the EXIF again, which may fail.)"""
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
    except Exception:  # Pillow raises anything for damaged EXIF
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
    """The mean of an RGBA image, 0 to 255, weighted by opacity; 0 if all pixels are transparent."""
    pixels = np.asarray(image).reshape(-1, 4)
    drawn = opacity = 0
    for start in range(0, len(pixels), CHUNK):  # wider numbers for some pixels at a time, not for 89 million
        some = pixels[start : start + CHUNK].astype("int64")
        drawn += int((some[:, :3] * some[:, 3:]).sum())
        opacity += int(some[:, 3].sum())
    return drawn / max(3 * opacity, 1)
