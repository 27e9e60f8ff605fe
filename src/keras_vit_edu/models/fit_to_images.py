"""A preset's configuration for other images than it was made for: their size and channels, and how many classes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_vit_edu.models.flat_config import flattened
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.preset_files import CONFIG, read_json

MOST_PATCHES = 16  # along a side, where the preset does not have more: attention takes the square of their number
STEM = ("stem", "stem_filters", "stem_strides", "stem_pools")


class NoFit(ValueError):
    """A preset that cannot be adapted to images of that size."""


def overrides_for_images(
    preset: str | Path,
    image_shape: Sequence[int],
    num_classes: int,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments in which a preset's model must differ to be trained on other images.

    `image_shape` and `num_classes` are those of the images. If the preset's patches do not divide them, or would be
    more than 16 along a side, `patch_size` becomes the nearest size that does; with the stem `"conv"`, `stem_pools`
    make patches of that size. What is among `overrides` is left as it is. For images and classes like the preset's own
    there is nothing to change. With a `patch_size` among `overrides`, `stem_pools` follow that.

    Args:
        preset: the name of a bundled preset, or a folder.
        image_shape: `(H, W, C)` of the images.
        num_classes: how many classes they have.
        overrides: what is changed already.

    Returns:
        `overrides` and what follows from the images, for `Preset.from_preset(preset, load_weights=False, **found)`.

    Raises:
        ValueError: if there is no such preset, or no such size: says what to override.

    Examples:
        >>> overrides_for_images("vit_mnist_program_p", (28, 28, 1), 10)
        {}
        >>> overrides_for_images("vit_mnist_program_p", (32, 32, 3), 100)
        {'image_shape': [32, 32, 3], 'num_classes': 100, 'patch_size': [8, 8]}
        >>> overrides_for_images("vit_mnist_hybrid", (96, 96, 3), 10, {"num_layers": 4})
        {'num_layers': 4, 'image_shape': [96, 96, 3], 'patch_size': [6, 6], 'stem_pools': [1, 2, 1, 3, 1, 1]}
    """
    found = dict(overrides or {})
    config = read_json(Preset._find(preset) / CONFIG).get("config")
    if not isinstance(config, dict):
        return found  # `from_preset` says what is wrong
    config = flattened(config)
    merged = {**config, **found}
    height, width, channels = image_shape
    is_first = merged.get("data_format") == "channels_first"
    wanted = [channels, height, width] if is_first else [height, width, channels]
    before = config.get("image_shape")
    if "image_shape" not in found and before != wanted:
        found["image_shape"] = wanted
    if "num_classes" not in found and config.get("num_classes") != num_classes:
        found["num_classes"] = num_classes
    if merged.get("image_shape") != wanted and found.get("image_shape") != wanted:
        return found  # the user wants images of another shape, and gets an error that says so
    sides = _sides(before, is_first)
    if "patch_size" in config and "patch_size" not in found and sides is not None:
        if not any(name in found for name in STEM) or merged.get("stem") != "conv":
            found.update(_patches(str(preset), merged, (height, width), sides))
    elif type(found.get("patch_size")) is int and merged.get("stem") == "conv" and "stem_pools" not in found:
        pools = _pools(merged, found["patch_size"])
        found.update({} if pools is None or pools == merged.get("stem_pools") else {"stem_pools": pools})
    elif isinstance(merged.get("filters"), (list, tuple)) and min(height, width) < 2 ** len(merged["filters"]):
        most = int(math.log2(min(height, width)))
        raise NoFit(
            f"{preset} halves an image {len(merged['filters'])} times, and one of {height}x{width} pixels can be "
            f"halved {most} times: "
            + (f"override filters={list(merged['filters'])[:most]}, or " if most else "")
            + "make the images larger."
        )
    return found


def _sides(shape: Any, is_first: bool) -> tuple[int, int] | None:
    """Height and width of an `image_shape`; None if it is none."""
    if not isinstance(shape, (list, tuple)) or len(shape) != 3 or not all(type(side) is int for side in shape):
        return None
    return (shape[1], shape[2]) if is_first else (shape[0], shape[1])


def _patches(preset: str, config: Mapping[str, Any], sides: tuple[int, int], before: tuple[int, int]) -> dict[str, Any]:
    """`patch_size`, and with the stem `"conv"` its pools, for images of other sides than the preset's."""
    size = config["patch_size"]
    patch = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    if len(patch) != 2 or not all(type(side) is int and side > 0 for side in patch):
        return {}
    is_square = config.get("stem") == "conv"
    least = 2 if config.get("stem") == "shifted" else 1
    found = []
    for side, side_before, patch_side in zip(sides, before, patch, strict=True):
        most = max(MOST_PATCHES, side_before // patch_side)
        # Larger images keep the size of patches, smaller ones their number.
        target = max(patch_side * min(side / side_before, 1), side / most, least)
        allowed = math.gcd(*sides) if is_square else side
        enough = [n for n in _divisors(allowed) if n >= max(side / most, least)]
        sizes = [n for n in enough if n <= 1.5 * target] or [n for n in enough if n <= 2 * target]
        if not sizes:
            raise _no_fit(preset, sides, patch)
        # A stem pools in small steps; a plain cut takes any size.
        found.append(min(sizes, key=lambda n: (is_square and max(_prime_factors(n), default=1) > 3, _ratio(n, target))))
    new = (max(found),) * 2 if is_square else tuple(found)
    if new == patch:
        return {}
    if not is_square:
        return {"patch_size": list(new)}
    pools = _pools(config, new[0])
    if pools is None:
        raise _no_fit(preset, sides, patch)
    return {"patch_size": list(new), "stem_pools": pools}


def _pools(config: Mapping[str, Any], patch: int) -> list[int] | None:
    """Pools of a convolutional stem whose product with its strides is `patch`, where the preset pools if possible."""
    count = len(config.get("stem_filters") or ())
    strides = math.prod(config.get("stem_strides") or [2] * count)
    before = list(config.get("stem_pools") or [1] * count)
    if not count or patch % strides:
        return None
    factors = _prime_factors(patch // strides)
    own = [place for place, pool in enumerate(before) if pool > 1]
    others = [place for place in range(count - 1, -1, -1) if place not in own]
    places = sorted([*own, *others][: len(factors)])
    if len(places) < len(factors):
        return None
    pools = [1] * count
    for place, factor in zip(places, factors, strict=True):
        pools[place] = factor
    return pools


def _ratio(a: float, b: float) -> float:
    return max(a / b, b / a)


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def _prime_factors(number: int) -> list[int]:
    factors = []
    for n in range(2, number + 1):
        while number % n == 0:
            factors.append(n)
            number //= n
    return factors


def _no_fit(preset: str, sides: tuple[int, int], patch: tuple[int, ...]) -> NoFit:
    height, width = sides
    of_both = math.gcd(height, width)
    which = f"{', '.join(map(str, _divisors(of_both)[:8]))} divide both sides" if of_both > 1 else "only 1 divides both"
    return NoFit(
        f"{preset} has patches of {patch[0]}x{patch[1]} pixels, and no size near that divides images of "
        f"{height}x{width}: override patch_size=N ({which}), or resize the images."
    )
