"""Read a CSV file of image paths and labels, to train on."""

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from keras_vit_edu._files import printable, read_bounded
from keras_vit_edu.datasets.image_file import check_header, read_image
from keras_vit_edu.datasets.image_folder import ImageFolder, image_folder, normalized, reason_of, scan_folder
from keras_vit_edu.datasets.image_source import name_of, path_of

LARGEST = 64 << 20  # bytes
MOST = 1_500_000  # files; ImageNet has 1.3 million
FIRST = 1000  # files; if none of these can be read, the others are not tried
SUFFIXES = (".csv", ".tsv")
# Names of the two columns.
PATH = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path")
LABEL = ("label", "class", "class_name", "classname", "category", "target")
FORMAT = "A CSV of images has the columns `path` and `label`, named in the first line, or these two and no header."


def scan_csv(
    path: str | os.PathLike, decode: bool = True, progress: Callable[[int, int], object] | None = None
) -> ImageFolder:
    """Find the images that a CSV file lists, and check that each can be read.

    The file is UTF-8. Its columns are separated by commas (or by semicolons or tabs, if its first line has no comma),
    with quotes as usual:

        path,label
        cat/felix.jpg,cat
        dog/rex.jpg,dog

    The first line may name the columns. Then they have any order, and other columns are ignored. (`file`, `filename`,
    `image`, ... also mean `path`, and `class`, `category`, ... mean `label`.) Without such a line there are two
    columns, the path first. A path is absolute, or relative to the folder of the CSV file. A label is the name of a
    class, also if it is a number. A file that is listed twice counts once. Files that `read_image` refuses are listed
    in `skipped`.

    Args:
        path: the CSV file, of at most 64 MiB and 1.5 million files.
        decode: True decodes every image once; False reads only its first bytes, as in `scan_folder`.
        progress: called as `progress(done, total)` after every file.

    Returns:
        An `ImageFolder` with the files in the order of the lines.

    Raises:
        ValueError: if there is no such file, or it has another format; if a file has two labels; if the names of two
            classes differ only in case or in how accents are stored; if there are images of fewer than two classes; if
            none of the first 1000 files can be read.
        ImportError: without Pillow.

    Examples:
        >>> import tempfile, PIL.Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("rex.png", "tom.png"):
        ...         PIL.Image.new("RGB", (40, 30)).save(f"{folder}/{name}")
        ...     _ = Path(folder, "pets.csv").write_text("path,label\\nrex.png,dog\\ntom.png,cat\\n")
        ...     photographs = scan_csv(f"{folder}/pets.csv")
        >>> photographs.class_names, photographs.files, photographs.labels.tolist()
        (('cat', 'dog'), ('rex.png', 'tom.png'), [1, 0])
    """
    file = Path(path_of(path, "A CSV file"))
    root = file.parent
    class_of: dict[str, str] = {}
    for number, image, label in _rows(file):
        if class_of.setdefault(image, label) != label:
            raise ValueError(
                f"Each file must have one label. Received: {printable(image)}, which is "
                f"{printable(class_of[image])} and, in line {number} of {name_of(file)}, {printable(label)}"
            )
        if len(class_of) > MOST:
            raise ValueError(f"A CSV of images may list at most {MOST:,} files. Received: {name_of(file)} with more")
    _check_names(set(class_of.values()), file)
    check = read_image if decode else check_header
    sound: list[str] = []
    skipped: list[tuple[str, str]] = []
    for done, image in enumerate(class_of, 1):
        try:
            check(root / image)
            sound.append(image)
        except ValueError as error:
            skipped.append((image, reason_of(error, root / image)))
        if done == FIRST and not sound:
            break
        if progress is not None:
            progress(done, len(class_of))
    names = sorted({class_of[image] for image in sound})
    place = {name: i for i, name in enumerate(names)}
    labels = np.array([place[class_of[image]] for image in sound], "int32")
    return image_folder(root, tuple(names), tuple(sound), labels, skipped, file)


def is_csv(path: str | os.PathLike) -> bool:
    """Whether a path has the suffix of a CSV file."""
    text = os.fsdecode(path)
    return text.lower().endswith(SUFFIXES) and not os.path.isdir(text)


def scan_images(
    path: str | os.PathLike, decode: bool = True, progress: Callable[[int, int], object] | None = None
) -> ImageFolder:
    """`scan_csv` of a CSV file, `scan_folder` of anything else."""
    path = path_of(path, "A folder of images")
    return scan_csv(path, decode, progress) if is_csv(path) else scan_folder(path, decode, progress)


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, path and label of each row."""
    data = read_bounded(file, LARGEST)
    first = next((line for line in io.BytesIO(data) if line.strip()), b"").decode("utf-8", "replace")
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True, skipinitialspace=True)
    columns: tuple[int, int] | None = None
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if columns is None:
                columns = _columns(cells)
                if columns is not None:
                    continue
                columns = (0, 1)
                if len(cells) != 2:
                    raise ValueError(f"the first line has {len(cells)} columns")
            if max(columns) >= len(cells):
                raise ValueError(f"line {reader.line_num} has {len(cells)} columns")
            image, label = cells[columns[0]], normalized(cells[columns[1]])
            if not image or not label:
                raise ValueError(f"line {reader.line_num} has no {'label' if image else 'path'}")
            yield reader.line_num, image, sys.intern(label)
    except UnicodeDecodeError:
        raise ValueError(f"A CSV of images must be UTF-8. Received: {name_of(file)}") from None
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{FORMAT} Received: {name_of(file)}, where {error}") from None


def _columns(cells: list[str]) -> tuple[int, int] | None:
    """The columns of path and label, if the first line names them."""
    names = [cell.casefold() for cell in cells]
    path, label = ([names.index(name) for name in known if name in names][:1] for known in (PATH, LABEL))
    return (path[0], label[0]) if path and label else None


def _check_names(names: set[str], file: Path) -> None:
    same: dict[str, str] = {}
    for name in sorted(names):
        other = same.setdefault(normalized(name.casefold()), name)
        if other != name:
            raise ValueError(
                "The names of two classes differ only in case or in how accents are stored. "
                f"Received: {other!r} and {name!r} in {name_of(file)}"
            )
