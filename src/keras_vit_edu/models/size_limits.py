"""How large the model of a preset may be, checked before anything is built.

With weights, the weights file limits the model. Without weights, only these limits do: they leave room for ViT-H (32
blocks, 6.3e8 parameters), and none for ViT-G (48 blocks, 1.8e9).
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from keras_vit_edu._building import Budget

# The largest value of an argument, or of an entry of it if it is a list.
LIMITS = {
    "image_shape": 8192,  # pixels, and channels
    "patch_size": 8192,
    "projection_dim": 65_536,
    "num_layers": 512,
    "num_heads": 256,
    "key_dim": 65_536,
    "mlp_dim": 262_144,
    "num_prefix_tokens": 65_536,
    "num_classes": 1_000_000,
    "head_units": 262_144,
    "stem_filters": 65_536,
    "stem_strides": 1024,
    "stem_pools": 1024,
    "filters": 65_536,
    "convolutions": 64,
}
LONGEST_LIST = 64  # entries of any of them
MOST_PARAMETERS = 10**9
MOST_TOKENS = 65_536  # patches of an image
MOST_BIASED_TOKENS = 2_304  # with `locality`, which has a bias for each pair of them


def budget() -> Budget:
    """What a preset without weights may build."""
    return Budget(elements=2 * MOST_PARAMETERS, variables=50_000, layers=50_000)


def check(arguments: Mapping[str, Any]) -> None:
    """Complain about sizes beyond the limits. The model itself complains about values that are no sizes.

    Args:
        arguments: of `ViTClassifier` or `CNNClassifier`.

    Raises:
        ValueError: if a size, or the number of patches or parameters, is beyond its limit.

    Examples:
        >>> check({"num_layers": 10**6})
        Traceback (most recent call last):
        ...
        ValueError: `num_layers` of a preset may be at most 512. Received: num_layers=1000000
    """
    for name, limit in LIMITS.items():
        entries = _entries(arguments.get(name))
        if len(entries) > LONGEST_LIST:
            raise ValueError(f"`{name}` of a preset has at most {LONGEST_LIST} entries. Received: {len(entries):,}")
        if any(entry > limit for entry in entries):
            shown = str(max(entries)) if max(entries) < 10**30 else f"about 10**{int(math.log10(max(entries)))}"
            raise ValueError(f"`{name}` of a preset may be at most {limit:,}. Received: {name}={shown}")
    tokens = _tokens(arguments)
    most = MOST_TOKENS if arguments.get("locality") is None else MOST_BIASED_TOKENS
    if "filters" not in arguments and tokens > most:
        raise ValueError(f"The image of a preset has at most {most:,} patches. Received: {tokens:,}")
    parameters = parameters_at_most(arguments)
    if parameters > MOST_PARAMETERS:
        raise ValueError(
            f"A preset has at most {MOST_PARAMETERS:,} parameters. Received: sizes of about {parameters:,}"
        )


def parameters_at_most(arguments: Mapping[str, Any]) -> int:
    """An upper bound of the number of parameters: at most a few times the number itself.

    Examples:
        >>> parameters_at_most({"head": "mean", "head_units": []}) < 2 * 400_000
        True
    """
    classes = _first(arguments, "num_classes", 10)
    units = _several(arguments, "head_units", (128,) if "filters" in arguments else (2048, 1024))
    image = _several(arguments, "image_shape", (28, 28, 1)) or (1,)
    pixels, channels = math.prod(image), max(image[0], image[-1])
    if "filters" in arguments:  # of a `CNNClassifier`
        filters = _several(arguments, "filters", ())
        each = _first(arguments, "convolutions", 2)
        widths = [channels, *filters]
        body = sum(10 * (into + (each - 1) * out) * out for into, out in zip(widths, filters, strict=False))
        features = pixels * max(filters, default=1) // max(4 ** len(filters), 1) + max(filters, default=1)
    else:
        width, tokens = _first(arguments, "projection_dim", 64), _tokens(arguments)
        inner = _first(arguments, "num_heads", 4) * _first(arguments, "key_dim", 64)
        mlp, prefix = _first(arguments, "mlp_dim", 128), _first(arguments, "num_prefix_tokens", 0)
        filters = _several(arguments, "stem_filters", ())
        stem = sum(12 * into * out for into, out in zip([channels, *filters], filters, strict=False))
        patch = 5 * pixels // max(tokens, 1) + max(filters, default=0)
        block = 4 * (width + 1) * inner + 2 * (width + 1) * (mlp + 1) + 5 * width
        if arguments.get("locality") is not None:
            block += 4 * tokens * _first(arguments, "num_heads", 4)
        body = stem + patch * width + (tokens + prefix) * width + block * _first(arguments, "num_layers", 4)
        is_flat = arguments.get("head", "flatten") == "flatten"
        features = (tokens + prefix) * width if is_flat else 2 * width
    sizes = [features, *units, classes]
    return body + sum((into + 1) * out for into, out in itertools.pairwise(sizes))


def _tokens(arguments: Mapping[str, Any]) -> int:
    """How many patches an image has, at most: in `channels_first` the channels count as a side."""
    image = sorted(_several(arguments, "image_shape", (28, 28, 1)))
    patch = _several(arguments, "patch_size", (7,)) or (1,)
    area = math.prod(patch) if len(patch) > 1 else patch[0] ** 2
    return max(math.prod(image[-2:]) // max(area, 1), 1)


def _entries(value: Any) -> tuple[int, ...]:
    """The whole numbers in a value: of a list, those in it."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(entry for entry in values if isinstance(entry, int) and not isinstance(entry, bool))


def _several(arguments: Mapping[str, Any], name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """The whole numbers in an argument; the default where it is not given, or not a list of them."""
    value = arguments.get(name)
    entries = tuple(max(entry, 0) for entry in _entries(value))
    return entries if entries or (isinstance(value, (list, tuple)) and not value) else default


def _first(arguments: Mapping[str, Any], name: str, default: int) -> int:
    return (_several(arguments, name, (default,)) or (default,))[0]
