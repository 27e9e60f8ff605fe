"""A split dataset: folders `train/`, `val/` and `test/` with the same subfolders."""

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
    "eval": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class SplitFolder:
    """The parts of a split dataset, each a folder with one subfolder per class.

    Attributes:
        path: the folder of the dataset.
        train: the training part; None if there is none.
        validation: the validation part; None if there is none.
        test: the test part; None if there is none.
        without_classes: folders with the name of a part but without subfolders, such as a test with secret labels.

    Examples:
        >>> SplitFolder(Path("pets"), train=Path("pets/train")).parts == (Path("pets/train"),)
        True
    """

    path: Path
    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None
    without_classes: tuple[Path, ...] = ()

    @property
    def parts(self) -> tuple[Path, ...]:
        """The parts that exist."""
        return tuple(part for part in (self.train, self.validation, self.test) if part is not None)


def find_split(path: str | os.PathLike) -> SplitFolder | None:
    """Find the parts of a split dataset in a folder.

    Names of parts are train, training; val, valid, validation, dev, eval; test, testing; in upper or lower case. A
    folder is split if all its subfolders have such names, and the training part has at least two subfolders. Otherwise
    it is split if two of the parts have two subfolders in common, or have one in common and contain no images directly.
    So a class `train` with photographs of trains is not a part.

    Args:
        path: the folder.

    Returns:
        Its parts; None if it is not split, or not a folder.

    Raises:
        ValueError: if it has two folders for one part, such as `val` and `valid`, or cannot be opened.

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
    folders = sorted(_folders_among(names_in(root), root))
    named = [name for name in folders if name.casefold() in PARTS]
    classes = {name: _subfolders(root / name) for name in named}  # of each part
    to_train_on = any(PARTS[name.casefold()] == "train" and len(classes[name]) > 1 for name in named)
    if not (to_train_on and named == folders):
        named = [name for name in named if any(_are_alike(root, name, other, classes) for other in named)]
    found: dict[str, Path] = {}
    for name in named:
        part = PARTS[name.casefold()]
        if not classes[name]:
            continue
        if part in found:
            raise ValueError(
                f"A split dataset must have one folder per part. Received: {printable(found[part].name)} and "
                f"{printable(name)} in {printable(str(root))}"
            )
        found[part] = root / name
    without = tuple(root / name for name in classes if not classes[name])
    return SplitFolder(root, **found, without_classes=without) if found else None


def _are_alike(root: Path, name: str, other: str, classes: dict[str, set[str]]) -> bool:
    """Whether two folders are parts of one dataset, by their subfolders."""
    common = 0 if name == other else len(classes[name] & classes[other])
    return common > 1 or (common == 1 and not any(_holds_an_image(root / part) for part in (name, other)))


def _subfolders(folder: Path) -> set[str]:
    try:
        names = names_in(folder)
    except ValueError:
        return set()
    return _folders_among(names, folder)


def _folders_among(names: list[str], folder: Path) -> set[str]:
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
