"""Write and read a safetensors file of weights. The whole file is checked before any weight is used.

The file holds the length of its header (8 bytes), the header (JSON: dtype, shape and place of every array), and then
the arrays without gaps. See https://github.com/huggingface/safetensors#format.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy

from keras_vit_edu._files import parse_json

WEIGHTS = "weights.safetensors"
LARGEST_FILE = 3 << 30  # bytes; the largest ViT of keras_hub has 2.5e9, and its check takes about 4 s
LARGEST_HEADER = 4 << 20  # bytes; an array takes about 100
FREE_ARRAYS, BYTES_PER_ARRAY, MOST_ARRAYS = 800, 8_000, 5_000  # each takes time to build; real arrays are large
MOST_AXES = 8
PIECE = 1 << 20  # bytes read at once
# The dtypes of the format: NumPy's name, and bytes per number. Errors name dtypes that are not for weights.
DTYPES = {
    "F16": ("float16", 2), "F32": ("float32", 4), "F64": ("float64", 8), "BF16": ("bfloat16", 2), "BOOL": ("bool", 1),
    "I8": ("int8", 1), "I16": ("int16", 2), "I32": ("int32", 4), "I64": ("int64", 8), "U8": ("uint8", 1),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The contents of a file.

    Attributes:
        shapes: shape of every array, by name, in the order of the file.
        dtypes: NumPy's name of the dtype of every array, by name.
        begin: position of the first array in the file, in bytes.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    begin: int

    @property
    def dtype(self) -> str:
        """The dtype of all arrays. Several dtypes are joined by "and", which matches no expected dtype."""
        return " and ".join(sorted(set(self.dtypes.values())))

    @property
    def elements(self) -> int:
        """Number of elements in all arrays."""
        return sum(map(math.prod, self.shapes.values()))


def encoded(arrays: Mapping[str, np.ndarray], dtype: str, header: dict[str, str] | None = None) -> bytes:
    """The content of a safetensors file that `verified` accepts.

    Args:
        arrays: float32 arrays, by path.
        dtype: `"float32"` or `"float16"`.
        header: further entries of the header; None for nothing.

    Raises:
        ValueError: if a weight is not finite, or would be infinite in `dtype`, or if `verified` refuses the file.
    """
    stored = {}
    for path, array in arrays.items():
        with np.errstate(over="ignore"):
            stored[path] = np.ascontiguousarray(array.astype(dtype))
        too_large = np.isfinite(array) & ~np.isfinite(stored[path])
        if too_large.any():
            raise ValueError(
                f"{dtype} holds numbers up to {np.finfo(dtype).max:.0f}; store these weights in float32. "
                f"Received: {path} with a weight of {array[too_large][0]:g}"
            )
    data = safetensors.numpy.save(stored, metadata=header)
    verified(io.BytesIO(data), len(data), WEIGHTS, "it", hashlib.sha256(data).hexdigest(), dtype, (dtype,))
    return data


def check_size(size: int, name: Any) -> None:
    """Raise ValueError if a weights file has more than `LARGEST_FILE` bytes."""
    if size > LARGEST_FILE:
        raise ValueError(f"Weights may have at most {LARGEST_FILE:,} bytes. Received: {name} with {size:,}")


def verified(
    stream: BinaryIO, size: int, name: Any, said_in: str, checksum: Any, dtype: Any, dtypes: Sequence[str]
) -> Header:
    """Read a weights file once, and check all of it.

    Args:
        stream: the file, at its beginning.
        size: size of the file in bytes.
        name: name of the file, for errors.
        said_in: name of the file that states `checksum` and `dtype`, for errors.
        checksum: SHA-256 of the file, in hexadecimal digits.
        dtype: stated dtype of the arrays.
        dtypes: the allowed dtypes.

    Returns:
        The header.

    Raises:
        ValueError: if the file is too large, if its checksum or dtype differs, or if it holds NaN or infinity.
    """
    check_size(size, name)
    digest = hashlib.sha256()
    header, problem = None, None
    try:
        header = read_header(stream, size, digest.update)
    except ValueError as error:
        problem = f"{name} cannot be read: {error}"
    is_finite = True
    while piece := stream.read(PIECE):
        digest.update(piece)
        if header is not None and header.dtype in dtypes and is_finite:
            stored = np.dtype(header.dtype).newbyteorder("<")
            count = len(piece) // stored.itemsize
            is_finite = bool(np.isfinite(np.frombuffer(piece, stored, count)).all())
    if digest.hexdigest() != checksum:
        raise ValueError(
            f"{name} is damaged, or belongs to another preset. Its SHA-256 is {digest.hexdigest()}; {said_in} says "
            f"{str(checksum)[:100]}."
        )
    if problem is not None or header is None:
        raise ValueError(problem)
    if header.dtype not in dtypes or header.dtype != dtype:
        raise ValueError(
            f"The weights are all {' or all '.join(dtypes)}, and {said_in} says which. "
            f"Received: {name} with {header.dtype}, weights_dtype={str(dtype)[:40]!r}"
        )
    if not is_finite:
        raise ValueError(f"Weights are finite numbers. Received: {name}, which holds NaN or infinity")
    return header


def arrays(stream: BinaryIO, header: Header) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of every array, and the array in float32.

    Args:
        stream: the file, at its beginning.
        header: header of the file.
    """
    _skip(stream, header.begin)
    for name, shape in header.shapes.items():
        count = math.prod(shape) * np.dtype(header.dtype).itemsize
        data = stream.read(count)
        if len(data) != count:
            raise ValueError("The weights file changed while it was read.")
        stored = np.frombuffer(data, np.dtype(header.dtype).newbyteorder("<")).reshape(shape)
        yield name, stored.astype("float32")


def _skip(stream: BinaryIO, count: int) -> None:
    while count:
        piece = stream.read(min(count, PIECE))
        if not piece:
            raise ValueError("The weights file changed while it was read.")
        count -= len(piece)


def read_header(stream: BinaryIO, size: int, seen: Callable[[bytes], None] = lambda data: None) -> Header:
    """Read the header, and check that it fits the size of the file.

    Args:
        stream: the file, at its beginning.
        size: size of the file in bytes.
        seen: receives the bytes that are read.

    Raises:
        ValueError: if the header is missing or too long, does not fit the file, or has too many arrays.
    """
    first = stream.read(8)
    seen(first)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > min(LARGEST_HEADER, size - 8):
        raise ValueError(f"it has no header, or one that is larger than {LARGEST_HEADER:,} bytes or than the file")
    text = stream.read(length)
    seen(text)
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("its header is no object")
    content.pop("__metadata__", None)
    most = min(FREE_ARRAYS + size // BYTES_PER_ARRAY, MOST_ARRAYS)
    if not 1 <= len(content) <= most:
        raise ValueError(f"a file of its size holds 1 to {most:,} arrays, and this one {len(content):,}")
    places = {name: _place(name, entry) for name, entry in content.items()}
    end = 0
    in_order = sorted(places, key=lambda name: places[name][2:])
    for name in in_order:
        _, _, begins, ends = places[name]
        if begins != end:
            raise ValueError("there are gaps between its arrays, or they overlap")
        end = ends
    if end != size - 8 - length:
        raise ValueError(f"its arrays have {end:,} bytes, and the file has {size - 8 - length:,} for them")
    return Header({name: places[name][1] for name in in_order}, {name: places[name][0] for name in places}, 8 + length)


def _place(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """The dtype and shape of an array, and the positions of its first and last byte."""
    try:
        dtype, shape, (begins, ends) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begins, ends]
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"its header lacks the dtype, the shape or the place of {name[:80]!r}") from None
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name[:80]!r} is of dtype {str(dtype)[:20]!r}")
    kind, itemsize = DTYPES[dtype]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise ValueError(f"the shape and the place of {name[:80]!r} must be whole numbers")
    if len(shape) > MOST_AXES or any(side < 1 for side in shape):
        raise ValueError(f"{name[:80]!r} has a shape that no weight has, {str(shape)[:80]}")
    if begins < 0 or ends - begins != math.prod(shape) * itemsize:
        raise ValueError(f"{name[:80]!r} has another size than its shape says")
    return kind, tuple(shape), begins, ends
