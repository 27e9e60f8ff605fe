"""Augmentation: every image is rotated, shifted, stretched and distorted a little, differently in each epoch.

The pixels are equal, bit for bit, on every backend, because NumPy computes them. They are equal in every process and on
every machine, because nothing in them can be rounded differently. Draws are Philox's raw words. Processors round
cosines, powers and exponentials differently in the last digit, so these are rounded to a coarser step first. All later
steps use whole numbers, or floats that hold whole numbers exactly:

- Coordinates have steps of 2**-8 pixel, so bilinear weights have steps of 2**-16, and pixels have steps of 2**-16 of a
  grey value. They stay below 2**24 such steps, so float32 is exact.
- The smoothing of an elastic field uses weights in steps of 2**-12 and noise of 16 bits. The sums stay below 2**53, so
  float64 is exact, in any order of addition.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit_edu import _checks, random

# Streams under (seed, batch, epoch); the order of the batches is stream 0.
IMAGES, FIELDS, MIXING = 1, 2, 3
DRAWS = 16  # per image; each option has its own draws, so it does not change the draws of the others

STEP = 256  # coordinates are whole multiples of 1 / STEP pixel
MATRIX_STEP = 2**16
KERNEL_STEP = 2**12
TRIES = 32  # for Joehnk's algorithm; each succeeds with probability 1/2 or more


@dataclass(frozen=True)
class Augmentation:
    """How to vary images. The defaults change nothing.

    One bilinear interpolation rotates, stretches, shears, mirrors, shifts and elastically distorts an image. Then a
    rectangle of it may be erased. Then it may be mixed with the image before it in the batch.

    Attributes:
        rotation: largest angle in degrees, in both directions, 0 to 180.
        shift: largest shift in pixels, in both directions, along each axis.
        crop: largest shift in whole pixels, in both directions, along each axis: the image is padded by this number of
            pixels and cropped to its size again (He et al. 2016, arXiv 1512.03385). With `mirror` as the only other
            option, no pixel is interpolated, so fine textures stay as sharp as in the test images.
        scale: largest change of height and of width, independently, as a share, in [0, 1).
        shear: largest shear, in pixels sideways per row, in both directions, in [0, 1].
        mirror: probability of swapping left and right (not for digits), in [0, 1].
        elastic: standard deviation of the elastic displacement in pixels, along each axis (Simard et al. 2003: their
            alpha = 34 and sigma = 4 are 1.4 pixels).
        elastic_sigma: sigma of the Gaussian that smooths the displacement, in pixels, above 0.
        erase: probability of erasing a rectangle, in [0, 1] (Zhong et al. 2017, arXiv 1708.04896).
        erase_area: largest erased share of the image, in (0, 1]; shares are uniform up to it.
        mixup: alpha of the Beta distribution for blending images and labels, in [0.1, 1], or 0 for none
            (Zhang et al. 2018, arXiv 1710.09412).
        cutmix: alpha of the Beta distribution for the share of an image that a rectangle of another image replaces, in
            [0.1, 1], or 0 for none (Yun et al. 2019, arXiv 1905.04899). With `mixup` too, each image gets one of the
            two with equal probability.
        fill: grey value outside the image and in erased rectangles, 0 to 255.

    Raises:
        ValueError: for a value out of range; names the field.

    References:
        Simard, Steinkraus, Platt, "Best practices for convolutional neural networks applied to visual document
        analysis" (ICDAR 2003), on elastic distortions.

    Examples:
        >>> images = np.arange(2 * 28 * 28, dtype="uint8").reshape(2, 28, 28, 1)
        >>> varied, labels = Augmentation(rotation=15, shift=2)(images, np.array([3, 5]), seed=0, epoch=0, index=0)
        >>> varied.shape, varied.dtype, labels.tolist()
        ((2, 28, 28, 1), dtype('float32'), [3, 5])
    """

    rotation: float = 0.0
    shift: float = 0.0
    crop: int = 0
    scale: float = 0.0
    shear: float = 0.0
    mirror: float = 0.0
    elastic: float = 0.0
    elastic_sigma: float = 4.0
    erase: float = 0.0
    erase_area: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    fill: int = 0

    def __post_init__(self) -> None:
        for field, (is_right, wanted) in RULES.items():
            value = getattr(self, field)
            if not _checks.is_number(value) or not is_right(value):
                raise ValueError(f"The augmentation's `{field}` must be {wanted}. Received: {field}={value!r}")

    @property
    def mixes(self) -> bool:
        """Whether labels are mixed, so they must be rows of class probabilities."""
        return self.mixup > 0 or self.cutmix > 0

    def to_json(self) -> dict[str, Any]:
        """The augmentation as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> "Augmentation":
        """Make an augmentation from a JSON object.

        Args:
            values: the fields by name. Missing ones have their defaults.

        Returns:
            An `Augmentation`.

        Raises:
            ValueError: if it is not an object, has an unknown field, or has a value out of range.
        """
        _checks.json_object("An augmentation", values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, seed: int, epoch: int, index: int, strength: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vary a batch. The result depends only on the arguments.

        Args:
            images: uint8 `(B, H, W, C)`.
            labels: `(B,)`, or rows `(B, num_classes)`. `mixup` and `cutmix` need rows.
            seed: int in [0, 2**31).
            epoch: the epoch, from 0.
            index: the batch in the epoch, from 0.
            strength: factor from 0 to 1 of the largest angles, shifts and so on, and of the probabilities.

        Returns:
            float32 images in [0, 1], `(B, H, W, C)`, and labels.

        Raises:
            ValueError: if images are not uint8 of rank 4, or labels cannot be mixed.
        """
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"Images must be uint8 of shape (B, H, W, C). Received: {images.dtype} of shape {images.shape}"
            )
        if self.mixes and labels.ndim != 2:
            raise ValueError(
                "To mix images, labels must be rows of class probabilities, (B, num_classes). "
                f"Received: labels of shape {labels.shape}"
            )
        u = random.uniform(seed, (IMAGES, index, epoch), (len(images), DRAWS))
        resampled = self._resampled(images, u, strength, seed, epoch, index)
        pixels = resampled / np.float32(255)
        if self.erase:
            self._erase(pixels, u[:, 8:13], strength)
        if self.mixes:
            return self._mixed(pixels, labels, seed, epoch, index, strength)
        return pixels, labels

    # One interpolation. -----------------------------------------------------------------------------------------------

    def _resampled(
        self, images: np.ndarray, u: np.ndarray, strength: float, seed: int, epoch: int, index: int
    ) -> np.ndarray:
        """float32, 0 to 255."""
        moves = (self.rotation, self.shift, self.crop, self.scale, self.shear, self.mirror, self.elastic)
        if strength == 0 or not any(moves):
            return images.astype("float32")
        batch, height, width, _ = images.shape
        matrix, shift = self._motion(u, strength)  # the source of an output pixel p: matrix (p - shift)
        # Coordinates from the centre, in 1 / STEP pixel; doubling keeps half pixels whole. The product with the matrix
        # is in 1 / (STEP * MATRIX_STEP) pixel.
        y = (2 * np.arange(height) - (height - 1))[None, :, None] * (STEP // 2) - shift[:, 0, None, None]  # (B, H, 1)
        x = (2 * np.arange(width) - (width - 1))[None, None, :] * (STEP // 2) - shift[:, 1, None, None]  # (B, 1, W)
        source = []
        for axis, side in enumerate((height, width)):
            exact = matrix[:, axis, 0, None, None] * y + matrix[:, axis, 1, None, None] * x  # (B, H, W)
            rounded = (exact + MATRIX_STEP // 2) // MATRIX_STEP
            source.append(rounded + (side - 1) * (STEP // 2))
        if self.elastic:
            for axis, field in enumerate(self._fields(batch, height, width, strength, seed, epoch, index)):
                source[axis] += field
        return interpolate(images, source[0], source[1], self.fill)

    def _motion(self, u: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Whole numbers: matrices `(B, 2, 2)` in 1 / MATRIX_STEP and shifts `(B, 2)` in 1 / STEP, both (y, x)."""
        either_way = (2 * u - 1) * strength
        angle = np.deg2rad(self.rotation * either_way[:, 0])
        cos, sin = np.cos(angle), np.sin(angle)
        stretch_y, stretch_x = 1 + self.scale * either_way[:, 1], 1 + self.scale * either_way[:, 2]
        stretch_x = np.where(u[:, 4] < self.mirror * strength, -stretch_x, stretch_x)
        shear = self.shear * either_way[:, 3]
        # An image is stretched, then sheared, then rotated counter-clockwise. This is the inverse.
        inverse_y = np.stack([cos, sin], axis=1) / stretch_y[:, None]
        unsheared_x = np.stack([-sin, cos], axis=1) - shear[:, None] * np.stack([cos, sin], axis=1)
        inverse = np.stack([inverse_y, unsheared_x / stretch_x[:, None]], axis=1)  # (B, 2, 2)
        crop = round(self.crop * strength)
        whole = np.floor(u[:, 13:15] * (2 * crop + 1)).astype("int64") - crop
        return _rounded(inverse * MATRIX_STEP), _rounded(self.shift * either_way[:, 5:7] * STEP) + whole * STEP

    def _fields(
        self, batch: int, height: int, width: int, strength: float, seed: int, epoch: int, index: int
    ) -> np.ndarray:
        """Elastic displacements in 1 / STEP pixel, whole numbers `(2, B, H, W)`."""
        count = 2 * batch * height * width
        raw = random.words(seed, (FIELDS, index, epoch), -(-count // 4)).astype("<u8")
        noise = raw.view("<i2")[:count].reshape(2, batch, height, width).astype("float64")  # uniform, 16 bits
        smooth = smoothing(height, self.elastic_sigma) @ noise @ smoothing(width, self.elastic_sigma).T
        deviation = KERNEL_STEP**2 * 2**16 / math.sqrt(12)
        return _rounded(smooth * (self.elastic * strength * STEP / deviation))

    # Erasing and mixing. ----------------------------------------------------------------------------------------------

    def _erase(self, pixels: np.ndarray, u: np.ndarray, strength: float) -> None:
        """Fill a rectangle of some images, in place."""
        _, height, width, _ = pixels.shape
        inside = rectangles(height, width, self.erase_area * u[:, 1], 0.5 + 1.5 * u[:, 2], u[:, 3:5])
        inside &= (u[:, 0] < self.erase * strength)[:, None, None]
        pixels[inside] = np.float32(self.fill) / np.float32(255)

    def _mixed(
        self, pixels: np.ndarray, labels: np.ndarray, seed: int, epoch: int, index: int, strength: float
    ) -> tuple[np.ndarray, np.ndarray]:
        batch, height, width, _ = pixels.shape
        u = random.uniform(seed, (MIXING, index, epoch), (batch, 4 + 4 * TRIES))
        mixed = u[:, 0] < strength
        cut = mixed & (u[:, 1] < (0.5 if self.mixup else 1.0)) if self.cutmix else np.zeros(batch, bool)
        draws = u[:, 4:].reshape(batch, 2, TRIES, 2)
        own = np.ones((batch, height, width), "float32")  # the share of the image itself, pixel by pixel
        if self.mixup:
            blended = mixed & ~cut
            own[blended] = beta(self.mixup, draws[blended, 0])[:, None, None]
        if self.cutmix:
            share = 1 - beta(self.cutmix, draws[cut, 1])
            own[cut] = ~rectangles(height, width, share, np.ones(len(share)), u[cut, 2:4])
        other = np.roll(np.arange(batch), 1)
        kept = own[..., None]
        of_label = own.mean(axis=(1, 2), dtype="float64").astype("float32")[:, None]
        pixels = pixels * kept + pixels[other] * (1 - kept)
        return pixels, labels * of_label + labels[other] * (1 - of_label)


def interpolate(images: np.ndarray, y: np.ndarray, x: np.ndarray, fill: int = 0) -> np.ndarray:
    """Exact bilinear interpolation.

    Args:
        images: uint8 `(B, H, W, C)`.
        y: source row of each output pixel, in 1 / 256 pixel, whole numbers `(B, H', W')`.
        x: source column of each output pixel, likewise.
        fill: grey value outside an image.

    Returns:
        float32 `(B, H', W', C)`, 0 to 255.
    """
    batch, height, width, channels = images.shape
    padded = np.full((batch, height + 3, width + 3, channels), fill, "uint8")
    padded[:, 1 : height + 1, 1 : width + 1] = images
    y = np.clip(y, -STEP, height * STEP) + STEP  # one pixel outside, everything is `fill`
    x = np.clip(x, -STEP, width * STEP) + STEP
    corner = (np.arange(batch)[:, None, None] * (height + 3) + y // STEP) * (width + 3) + x // STEP
    below, right = (y % STEP)[..., None].astype("float32"), (x % STEP)[..., None].astype("float32")
    flat = padded.reshape(-1, channels).astype("float32")
    one = np.float32(STEP)
    top = flat[corner] * (one - right) + flat[corner + 1] * right
    corner += width + 3
    bottom = flat[corner] * (one - right) + flat[corner + 1] * right
    return (top * (one - below) + bottom * below) * np.float32(STEP**-2)


def smoothing(side: int, sigma: float) -> np.ndarray:
    """A Gaussian filter as a matrix `(side, side)`, in units of 1 / KERNEL_STEP, whole numbers as float64.

    The squares of a row sum to 1, so independent noise keeps its standard deviation, at the edges too.
    """
    distance = np.arange(side)[:, None] - np.arange(side)[None, :]
    kernel = np.exp(-(distance**2) / (2 * sigma**2))
    kernel /= np.sqrt((kernel**2).sum(axis=1, keepdims=True))
    return np.rint(kernel * KERNEL_STEP)


def rectangles(height: int, width: int, share: np.ndarray, shape: np.ndarray, place: np.ndarray) -> np.ndarray:
    """A mask of a rectangle in each image, bool `(B, H, W)`.

    Args:
        height: height of the images.
        width: width of the images.
        share: share of the image's area, `(B,)`.
        shape: share of the height divided by share of the width, `(B,)`.
        place: position between the edges, y and x in [0, 1), `(B, 2)`.
    """
    inside = np.ones((len(share), 1, 1), bool)
    for axis, (side, extent) in enumerate(((height, np.sqrt(share * shape)), (width, np.sqrt(share / shape)))):
        length = np.minimum(_rounded(extent * side), side)  # sqrt is rounded alike everywhere
        first = np.floor(place[:, axis] * (side - length + 1))
        pixel = np.arange(side)
        within = (pixel >= first[:, None]) & (pixel < (first + length)[:, None])  # (B, side)
        inside = inside & (within[:, :, None] if axis == 0 else within[:, None, :])
    return inside


def beta(alpha: float, u: np.ndarray) -> np.ndarray:
    """Draws from Beta(alpha, alpha), alpha at most 1, in steps of 2**-8.

    Args:
        alpha: parameter of the distribution.
        u: uniform numbers `(n, tries, 2)`.

    Returns:
        float32 `(n,)`.

    Reference:
        Joehnk, "Erzeugung von betaverteilten und gammaverteilten Zufallszahlen" (1964):
        X = U^(1 / alpha) and Y = V^(1 / alpha), with U and V uniform; if X + Y <= 1, X / (X + Y) is the draw.
    """
    x, y = np.moveaxis(u ** (1 / alpha), 2, 0)  # (n, tries)
    total = np.rint((x + y) * 2.0**40) * 2.0**-40  # a rounding difference must not change which try is taken
    first = np.argmax((total <= 1) & (total > 0), axis=1)
    row = np.arange(len(u))
    share = x[row, first] / np.maximum((x + y)[row, first], 2.0**-1000)
    return (np.rint(np.minimum(share, 1) * 256) / 256).astype("float32")


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.rint(x).astype("int64")


def _from_0_to_1(wanted: str) -> tuple[Any, str]:
    return lambda value: 0 <= value <= 1, wanted


# The allowed values of each field, as a test and in words.
RULES: dict[str, tuple[Any, str]] = {
    "rotation": (lambda value: 0 <= value <= 180, "degrees, 0 to 180"),
    "shift": (lambda value: value >= 0, "pixels, 0 or more"),
    "crop": (lambda value: isinstance(value, int) and value >= 0, "whole pixels, 0 or more"),
    "scale": (lambda value: 0 <= value < 1, "a share in [0, 1)"),
    "shear": _from_0_to_1("a number in [0, 1]"),
    "mirror": _from_0_to_1("a probability, 0 to 1"),
    "elastic": (lambda value: value >= 0, "pixels, 0 or more"),
    "elastic_sigma": (lambda value: value > 0, "pixels, above 0"),
    "erase": _from_0_to_1("a probability, 0 to 1"),
    "erase_area": (lambda value: 0 < value <= 1, "a share in (0, 1]"),
    "mixup": (lambda value: value == 0 or 0.1 <= value <= 1, "0 or a number in [0.1, 1]"),
    "cutmix": (lambda value: value == 0 or 0.1 <= value <= 1, "0 or a number in [0.1, 1]"),
    "fill": (lambda value: isinstance(value, int) and 0 <= value <= 255, "a whole number from 0 to 255"),
}

AUGMENTATIONS = {
    "digits": Augmentation(rotation=15, shift=2.5, scale=0.12, shear=0.2, elastic=0.8, erase=0.25, erase_area=0.06),
    "clothes": Augmentation(crop=2, mirror=0.5, erase=0.3, erase_area=0.15),
}


def load_augmentation(value: Augmentation | Mapping[str, Any] | str | None) -> Augmentation | None:
    """Get an augmentation.

    Args:
        value: an `Augmentation`, its JSON object, a name in `AUGMENTATIONS`, or `"none"` or None for none.

    Returns:
        An `Augmentation`, or None for none.

    Raises:
        ValueError: for an unknown name, or a JSON object that is not an augmentation.

    Examples:
        >>> load_augmentation("clothes").mirror
        0.5
    """
    if value is None or isinstance(value, Augmentation):
        return value
    if value == "none":
        return None
    if not isinstance(value, str):
        return Augmentation.from_json(value)
    if value not in AUGMENTATIONS:
        raise ValueError(f"There is no augmentation {value!r}. There are: none, {', '.join(AUGMENTATIONS)}.")
    return AUGMENTATIONS[value]
