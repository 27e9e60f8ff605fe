"""A data set that comes split: `train/`, `val/` and `test/`, with the same subfolders in each."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from keras_vit_edu._files import printable
from keras_vit_edu.datasets.image_file import check_header
from keras_vit_edu.datasets.image_source import names_in, path_of

PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class SplitFolder:
    """The parts of a data set that is split already, each a folder with one subfolder per class.

    Attributes:
        path: the folder of the data set.
        train: what to train on; None if there is no such part.
        validation: what to validate on; None likewise.
        test: what tells how good the result is; None likewise.
    """

    path: Path
    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None

    @property
    def parts(self) -> tuple[Path, ...]:
        """The parts that there are."""
        return tuple(part for part in (self.train, self.validation, self.test) if part is not None)


def find_split(path: str | os.PathLike) -> SplitFolder | None:
    """See whether a folder holds a data set that is split.

    It does if two of its subfolders at least have names of parts (train, training; val, valid, validation, dev; test,
    testing; in any letter case), hold a common subfolder, and no image beside their subfolders. Photographs of trains
    in a class `train` make no such part.

    Args:
        path: the folder.

    Returns:
        Its parts; None if it is not split, or no folder.

    Raises:
        ValueError: if it has two folders for one part, such as `val` and `valid`, or may not be opened.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("train/cat", "train/dog", "Val/cat", "Val/dog"):
        ...         Path(folder, name).mkdir(parents=True)
        ...     [part.name for part in find_split(folder).parts]
        ['train', 'Val']
    """
    root = Path(path_of(path, "A folder"))
    if not os.path.isdir(root):
        return None
    named = [name for name in sorted(names_in(root)) if name.casefold() in PARTS and os.path.isdir(root / name)]
    if len(named) < 2:
        return None
    classes = {name: _subfolders(root / name) for name in named}
    alike = {name for pair in itertools.combinations(named, 2) if classes[pair[0]] & classes[pair[1]] for name in pair}
    alike = {name for name in alike if not _holds_an_image(root / name)}
    if len(alike) < 2:
        return None
    found: dict[str, Path] = {}
    for name in sorted(alike):
        part = PARTS[name.casefold()]
        if part in found:
            raise ValueError(
                f"A data set that is split has one folder of each part. Received: {printable(found[part].name)} and "
                f"{printable(name)} in {printable(str(root))}"
            )
        found[part] = root / name
    return SplitFolder(root, **found)


def _subfolders(folder: Path) -> set[str]:
    try:
        names = names_in(folder)
    except ValueError:
        return set()
    return {name for name in names if not name.startswith(".") and os.path.isdir(folder / name)}


def _holds_an_image(folder: Path) -> bool:
    """Whether an image lies directly in a folder."""
    for name in names_in(folder):
        if not name.startswith(".") and os.path.isfile(folder / name):
            try:
                check_header(folder / name)
            except ValueError:
                continue
            return True
    return False
