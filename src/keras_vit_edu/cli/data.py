"""The value of `--image-size`, and the size of a classifier's images."""

from __future__ import annotations

from typing import Any

from keras_vit_edu.cli.mistakes import UsersMistake


def image_size_of(text: str | None) -> tuple[int, int] | None:
    """`"64"` to `(64, 64)`, `"48x64"` to `(48, 64)`."""
    if text is None:
        return None
    try:
        sides = [int(side) for side in text.lower().split("x")]
        height, width = sides * 2 if len(sides) == 1 else sides
        if min(height, width) < 1:
            raise ValueError
    except ValueError:
        raise UsersMistake(
            f"`--image-size` must be a number of pixels (64) or height x width (48x64). Received: {text!r}"
        ) from None
    return height, width


def sides(model: Any) -> tuple[int, int]:
    """Height and width of a classifier's images."""
    shape = tuple(model.input_shape[1:])
    return shape[1:] if getattr(model, "data_format", "") == "channels_first" else shape[:2]
