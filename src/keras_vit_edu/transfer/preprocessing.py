"""Preprocess photographs for a pretrained model, in NumPy, with the pixels of keras_hub's `ImageConverter`."""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit_edu import _checks, _pixels
from keras_vit_edu._types import Images
from keras_vit_edu.transfer.given_images import array_of, arrays_of
from keras_vit_edu.transfer.resampling import INTERPOLATIONS, resize, resize_as_pillow

# Fields that the first version did not have, and their values there.
LATER_FIELDS: dict[str, Any] = {"resize_size": None, "pillow": False}


@dataclass(frozen=True)
class Preprocessing:
    """Crop or pad, resize, then `pixels * scale + offset`.

    The computation does not use a backend, so the result has the same bits on all backends. keras_hub's converter gives
    the same pixels: to 0.02 of 255 for floats, because it computes positions in float32, and to 1 of 255 for integers,
    because halves may be rounded differently. See Notes for larger differences.

    Attributes:
        image_size: `(height, width)` that the model takes; an int for a square; None to leave images as they are.
        crop_to_aspect_ratio: crop the largest centre with the aspect ratio of `image_size`.
        pad_to_aspect_ratio: pad the image with black to the aspect ratio of `image_size`, up to one pixel. With neither
            option the image is distorted; both together are an error.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"`, `"lanczos3"` or `"lanczos5"`.
        antialias: use every pixel when the image shrinks.
        scale: a number, or three for red, green and blue; None for 1.
        offset: likewise; None for 0. A mean and standard deviation of pixels in [0, 1] are
            `scale = 1 / (255 * std)`, `offset = -mean / std`.
        data_format: `"channels_last"` or `"channels_first"`, of the images and of the result.
        resize_size: resize to this first, then crop `image_size` from the centre (black where the image is smaller). An
            int is the shorter side, and the longer side follows in proportion; a pair is `(height, width)`. None
            resizes to `image_size` directly. Excludes `crop_to_aspect_ratio` and `pad_to_aspect_ratio`.
        pillow: resample integer images as Pillow does (transformers uses Pillow): with antialiasing, one side after the
            other, rounding to whole numbers after each.

    Call arguments:
        images: one image `(H, W, 3)` or a batch `(B, H, W, 3)`, or a list of images `(H, W, 3)` of any sizes; any
            integers or floats from 0 to 255 (not bool). Grey images have one channel, which is repeated. If a uint16
            image of a call has a value above 255, all uint16 images of the call are converted from 16 bits as in
            `read_image`: grey values are stretched to the range that they use, colours keep their high byte. Tensors
            and images of Pillow are accepted too.

    Returns:
        float32 `(height, width, 3)` for one image, else `(B, height, width, 3)`.

    Raises:
        ValueError: for arguments or images that are none of these, empty, or hold NaN, infinity, or anything else below
            0 or above 255. (Up to 0.001 outside is treated as rounding, and clipped.)

    Warns:
        UserWarning: if no value is above 1, which looks like images from 0 to 1; and for images of 16 bits.

    Notes:
        Without `antialias`, keras_hub on PyTorch uses another bicubic kernel (a = -3/4, repeated edges), so its pixels
        differ. TensorFlow reads this kernel from a table, which changes a pixel by up to 0.2 of 255.

    References:
        keras_hub's `ImageConverter` and Keras's `Resizing` layer.

    Examples:
        >>> preprocessing = Preprocessing(image_size=2, scale=1 / 127.5, offset=-1.0)
        >>> photo = np.zeros((4, 6, 3), "uint8")
        >>> photo[:, 3:] = 255  # black, then white
        >>> preprocessing(photo)[..., 0].tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]
        >>> preprocessing([photo, photo[1:]]).shape
        (2, 2, 2, 3)
    """

    image_size: tuple[int, int] | None
    crop_to_aspect_ratio: bool = True
    pad_to_aspect_ratio: bool = False
    interpolation: str = "bilinear"
    antialias: bool = False
    scale: float | tuple[float, ...] | None = None
    offset: float | tuple[float, ...] | None = None
    data_format: str = "channels_last"
    resize_size: int | tuple[int, int] | None = None
    pillow: bool = False

    def __post_init__(self) -> None:
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _checks.pair_of_ints("image_size", self.image_size))
        for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias", "pillow"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be True or False. Received: {name}={getattr(self, name)!r}")
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise ValueError(
                "`pad_to_aspect_ratio=True` requires `crop_to_aspect_ratio=False` (the default is True). "
                "Received: crop_to_aspect_ratio=True, pad_to_aspect_ratio=True"
            )
        self._check_resizing()
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"`interpolation` must be one of {', '.join(INTERPOLATIONS)}. "
                f"Received: interpolation={self.interpolation!r}"
            )
        for name in ("scale", "offset"):
            object.__setattr__(self, name, _per_channel(name, getattr(self, name)))
        object.__setattr__(self, "data_format", _checks.data_format(self.data_format))

    def _check_resizing(self) -> None:
        if self.pillow and (not self.antialias or self.pad_to_aspect_ratio):
            raise ValueError(
                "`pillow=True` requires `antialias=True` and `pad_to_aspect_ratio=False`. Received: "
                f"antialias={self.antialias}, pad_to_aspect_ratio={self.pad_to_aspect_ratio}"
            )
        if self.resize_size is None:
            return
        if self.image_size is None or self.crop_to_aspect_ratio or self.pad_to_aspect_ratio:
            raise ValueError(
                "`resize_size` requires `image_size`, `crop_to_aspect_ratio=False` and `pad_to_aspect_ratio=False`. "
                f"Received: resize_size={self.resize_size}, image_size={self.image_size}, "
                f"crop_to_aspect_ratio={self.crop_to_aspect_ratio}, pad_to_aspect_ratio={self.pad_to_aspect_ratio}"
            )
        if isinstance(self.resize_size, (tuple, list)):
            object.__setattr__(self, "resize_size", _checks.pair_of_ints("resize_size", self.resize_size))
        else:
            object.__setattr__(self, "resize_size", _checks.positive_int("resize_size", self.resize_size))

    @classmethod
    def from_converter(cls, image_converter: Any) -> "Preprocessing":
        """What a keras_hub `ImageConverter` does, such as `classifier.preprocessor.image_converter`.

        Args:
            image_converter: a keras_hub `ImageConverter`, or a subclass that does not override `call` (ViT, DeiT, most
                others). Only its attributes are read.

        Returns:
            A `Preprocessing`.

        Raises:
            ValueError: if it is no image converter, or one with its own `call`.

        Examples:
            >>> from types import SimpleNamespace
            >>> converter = SimpleNamespace(
            ...     image_size=(224, 224), crop_to_aspect_ratio=True, pad_to_aspect_ratio=False, antialias=False,
            ...     interpolation="bilinear", scale=[1 / 127.5] * 3, offset=[-1] * 3, data_format="channels_last")
            >>> Preprocessing.from_converter(converter).offset
            (-1.0, -1.0, -1.0)
        """
        for method in ("call", "_call_python"):
            owner = next((kind for kind in type(image_converter).__mro__ if method in vars(kind)), None)
            if owner is not None and owner.__name__ != "ImageConverter":
                raise ValueError(
                    "Only image converters that crop, pad, resize and scale can be read; this one has steps of its "
                    f"own. Received: {type(image_converter).__name__}"
                )
        names = [field.name for field in dataclasses.fields(cls) if field.name not in LATER_FIELDS]
        missing = [name for name in names if not hasattr(image_converter, name)]
        if missing:
            raise ValueError(
                f"An image converter must have `{missing[0]}`. Received: {type(image_converter).__name__} without it"
            )
        return cls(**{name: getattr(image_converter, name) for name in names})

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of a converted image, `(height, width, 3)` or `(3, height, width)`; None for unknown sides."""
        size = self.image_size or (None, None)
        return (3, *size) if self.data_format == "channels_first" else (*size, 3)

    def at_image_size(self, image_size: int | Sequence[int]) -> "Preprocessing":
        """The same for another size; `resize_size` grows or shrinks in proportion.

        Args:
            image_size: `(height, width)` in pixels, or an int for a square.

        Returns:
            A new `Preprocessing`.

        Raises:
            ValueError: if a side is not a whole number of 1 or more.

        Examples:
            >>> cropping = Preprocessing(224, crop_to_aspect_ratio=False, resize_size=256)
            >>> cropping.at_image_size(112).resize_size
            128
        """
        new = _checks.pair_of_ints("image_size", image_size)
        wanted = self.resize_size
        if isinstance(wanted, int) and self.image_size is not None:
            wanted = max(round(wanted * min(new) / min(self.image_size)), 1)
        elif isinstance(wanted, tuple) and self.image_size is not None:
            sides = zip(wanted, new, self.image_size, strict=True)
            height, width = (max(round(first * side / old), 1) for first, side, old in sides)
            wanted = (height, width)
        return dataclasses.replace(self, image_size=new, resize_size=wanted)

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON holds it: an object with a key for each attribute.

        `resize_size` and `pillow` have a key only where they are used, so that earlier versions read all the rest.
        """
        values = dataclasses.asdict(self)
        for name, default in LATER_FIELDS.items():
            if values[name] == default:
                del values[name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Any) -> "Preprocessing":
        """The preprocessing of a JSON object.

        Args:
            values: what `to_json` gave.

        Returns:
            A `Preprocessing`.

        Raises:
            ValueError: if it is no object, if a key is missing or is none of the attributes, or if a value is refused.

        Examples:
            >>> preprocessing = Preprocessing(image_size=(224, 224), scale=1 / 255)
            >>> Preprocessing.from_json(preprocessing.to_json()) == preprocessing
            True
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict):
            raise ValueError(f"A preprocessing is a JSON object. Received: {type(values).__name__}")
        unknown, missing = sorted(set(values) - names), sorted(names - set(values) - set(LATER_FIELDS))
        if unknown or missing:
            raise ValueError(
                f"A preprocessing has the keys {', '.join(sorted(names - set(LATER_FIELDS)))}, and may have "
                f"{' and '.join(LATER_FIELDS)}. Received: unknown {unknown}, missing {missing}"
            )
        return cls(**values)

    def __call__(self, images: Images) -> np.ndarray:
        several, is_single = arrays_of(images)
        checked = checked_images(several, self.data_format, stacklevel=3)  # each (H, W, 1 or 3)
        sizes = {image.shape[:2] for image in checked}
        if self.image_size is None and len(sizes) > 1:
            raise ValueError(f"Without `image_size`, images must be of one size. Received: sizes {sorted(sizes)}")
        result = np.stack([self.convert_unchecked(image) for image in checked])  # (B, height, width, 3)
        if self.data_format == "channels_first":
            result = np.moveaxis(result, -1, 1)
        return result[0] if is_single else result

    def convert(self, image: np.ndarray) -> np.ndarray:
        """Convert one image without the warning about values in [0, 1], for an image that is known to be dark.

        Args:
            image: `(H, W, 3)`, values from 0 to 255.

        Returns:
            float32 `(height, width, 3)`.

        Raises:
            ValueError: as a call does.

        Examples:
            >>> Preprocessing(image_size=2).convert(np.ones((8, 8, 3), "uint8")).shape
            (2, 2, 3)
        """
        array = array_of(image)
        has_16_bits = _pixels.largest_of_16_bits([array]) is not None
        result = self.convert_unchecked(_checked(array, self.data_format, has_16_bits))
        return np.moveaxis(result, -1, 0) if self.data_format == "channels_first" else result

    def convert_unchecked(self, image: np.ndarray) -> np.ndarray:
        """As `convert`, without the checks: `(H, W, 1 or 3)` to float32 `(height, width, 3)`.

        Channels are last, whatever `data_format` says. Without `image_size`, it may be a batch.
        """
        pixels = image if self.image_size is None else self._resized(image, self.image_size)
        pixels = np.repeat(pixels.astype("float32"), 3 // pixels.shape[-1], axis=-1)
        if self.scale is not None:
            pixels = pixels * np.asarray(self.scale, "float32")
        if self.offset is not None:
            pixels = pixels + np.asarray(self.offset, "float32")
        return pixels

    def _resized(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        image = _cropped(image, size) if self.crop_to_aspect_ratio else image
        padding = _padding(image, size) if self.pad_to_aspect_ratio else (0, 0)
        whole = _size_before_crop(image, self.resize_size or size)
        window = ((whole[0] - size[0]) // 2, (whole[1] - size[1]) // 2, *size)
        if self.pillow and image.dtype.kind != "f":
            return resize_as_pillow(image, whole, self.interpolation, window)
        resized = resize(image, whole, self.interpolation, self.antialias, padding, window)
        if image.dtype.kind == "f":
            return resized
        limits = np.iinfo(image.dtype)
        return np.clip(np.rint(resized), limits.min, limits.max)


def _cropped(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest centre of the image with the aspect ratio of `size`, rounded down to whole pixels."""
    height, width = image.shape[:2]
    crop_height = max(min(height, int(width * size[0] / size[1])), 1)
    crop_width = max(min(width, int(height * size[1] / size[0])), 1)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return image[top : top + crop_height, left : left + crop_width]


def _size_before_crop(image: np.ndarray, wanted: int | tuple[int, int]) -> tuple[int, int]:
    """The size to resize to: a pair as it is; for an int that is the shorter side, the longer one rounded down."""
    if not isinstance(wanted, int):
        return wanted
    height, width = image.shape[:2]
    longer = wanted * max(height, width) // min(height, width)
    return (wanted, longer) if height <= width else (longer, wanted)


def _padding(image: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """The padding (top and bottom each, left and right each) that gives the aspect ratio of `size`, up to one pixel."""
    height, width = image.shape[:2]
    above = max(int(width * size[0] / size[1]) - height, 0) // 2
    beside = max(int(height * size[1] / size[0]) - width, 0) // 2
    return above, beside


def checked_images(several: Sequence[np.ndarray], data_format: str, stacklevel: int) -> list[np.ndarray]:
    """Images as `(H, W, 1 or 3)`, from 0 to 255 each.

    Raises:
        ValueError: if there is none, or one is no image.

    Warns:
        UserWarning: if no value is above 1; and for images of 16 bits.
    """
    if not len(several):
        raise ValueError("There must be an image. Received: none")
    largest = _pixels.largest_of_16_bits(several)
    checked = [_checked(image, data_format, largest is not None) for image in several]
    if 0 < max(image.max() for image in checked) <= 1:
        warnings.warn("The images look like values in [0, 1]. Expected: 0 to 255.", stacklevel=stacklevel)
    if largest is not None:
        warnings.warn(f"{_pixels.STATED} Received: uint16 up to {largest}", stacklevel=stacklevel)
    return checked


def _checked(image: np.ndarray, data_format: str, has_16_bits: bool) -> np.ndarray:
    """One image as `(H, W, 1 or 3)`, from 0 to 255. With `has_16_bits`, uint16 is converted from 16 bits to 8."""
    axis = -3 if data_format == "channels_first" else -1
    if image.ndim != 3 or image.size == 0 or image.shape[axis] not in (1, 3) or image.dtype.kind not in "uif":
        form = "(3, H, W) or (1, H, W)" if axis == -3 else "(H, W, 3) or (H, W, 1)"
        raise ValueError(
            f"An image is {form}, of integers or floats from 0 to 255; a batch has one axis more. "
            f"Received: {image.dtype} of shape {image.shape}"
        )
    image = np.moveaxis(image, axis, -1)
    return _pixels.from_16_bits(image) if has_16_bits and _pixels.is_uint16(image) else _pixels.in_range(image)


def _per_channel(name: str, value: Any) -> float | tuple[float, ...] | None:
    """None, a float, or three of them."""
    if value is None:
        return None
    several = value.tolist() if isinstance(value, np.ndarray) else value
    several = list(several) if isinstance(several, (list, tuple)) else [several]
    is_number = [math.isfinite(_checks.number(one)) for one in several]
    if not all(is_number) or len(several) not in (1, 3):
        raise ValueError(f"`{name}` must be a number, three of them, or None. Received: {name}={value!r}")
    return float(several[0]) if len(several) == 1 else tuple(float(one) for one in several)
