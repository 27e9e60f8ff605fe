"""A folder of photographs with one subfolder per class, to learn from."""

import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit_edu._files import printable
from keras_vit_edu.datasets.image_file import check_header, read_image
from keras_vit_edu.datasets.image_source import leads_above, leads_to_itself, name_of, names_in, path_of
from keras_vit_edu.datasets.split_folder import find_split

CIRCLE = "The link leads in a circle, to a folder that it lies in"
TO_ITSELF = "The link leads in a circle, to itself"


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Which images a folder or a CSV file names, and what they show. The images themselves stay in their files.

    Attributes:
        path: the folder; that of the CSV file.
        class_names: what the labels stand for: names of subfolders in Unicode's NFC form, in the order of their code
            points, which is the same on every system.
        files: of each image the path from `path` on, with `/`; class after class, in the same order of names. Those of
            a CSV file in its order.
        labels: int32 `(n,)`, an index into `class_names` for each of the files.
        skipped: pairs of a file or folder that was left out and the reason.
    """

    path: Path
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    skipped: tuple[tuple[str, str], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where each image can be opened."""
        return tuple(self.path / file for file in self.files)

    def __repr__(self) -> str:
        return (
            f"<{len(self.files)} images of {len(self.class_names)} classes in {self.path}, {len(self.skipped)} skipped>"
        )


def scan_folder(
    path: str | Path, decode: bool = True, progress: Callable[[int, int], object] | None = None
) -> ImageFolder:
    """Find the images of a folder that has one subfolder per class, and make sure that each can be read.

    An image belongs to the class of the subfolder at the top, however deep it lies within. Links are followed. Every
    file that `read_image` reads is an image, whatever its name, kind or size: 16 bits, CMYK, the first frame of an
    animation, a single pixel. The following is left out, and told in `skipped`:

    - files that `read_image` refuses: damaged, empty, no image, not allowed to be opened, more than 89 million pixels
      or a million along a side;
    - files beside the subfolders, folders that may not be opened, and names that are no valid Unicode;
    - a subfolder without any image: it makes no class;
    - links that lead in a circle: to themselves, or to a folder that they lie in.

    Names that begin with a dot are hidden, and passed over without a word.

    Args:
        path: the folder.
        decode: True to decode every image once, some tenths of a second for a photograph of 12 megapixels. With
            thousands of them, False saves the minutes: only the first bytes of each file are read, so that a photograph
            that is cut off or damaged further in stays in, and is an error when it is loaded.
        progress: called as `progress(done, total)` after every file.

    Returns:
        An `ImageFolder`.

    Raises:
        ValueError: if there is no such folder, or it may not be opened; if it is split into `train`, `val` or `test`
            (see `find_split`), as each of these is a folder to scan; if the names of two classes differ only in upper
            and lower case or in how accents are stored, as other systems take them for one; if there are fewer images
            than subfolders, or images of less than two classes.
        ImportError: without Pillow.

    Examples:
        >>> import tempfile, PIL.Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("dog/rex.png", "cat/tom.png", "cat/felix.png"):
        ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
        ...         PIL.Image.new("RGB", (40, 30)).save(f"{folder}/{name}")
        ...     photographs = scan_folder(folder, progress=lambda done, total: print(f"{done}/{total}"))
        1/3
        2/3
        3/3
        >>> photographs.class_names, photographs.files, photographs.labels.tolist()
        (('cat', 'dog'), ('cat/felix.png', 'cat/tom.png', 'dog/rex.png'), [0, 0, 1])
    """
    root = Path(path_of(path, "A folder of images"))
    if not os.path.isdir(root):
        kind = "A file is no folder of images" if os.path.exists(root) else "There is no such folder"
        raise ValueError(f"{kind}. Received: {name_of(path)}")
    split = find_split(root)
    if split is not None:
        parts = ", ".join(name_of(part) for part in split.parts)
        raise ValueError(
            f"This data set is split already. Pass one of its parts: {parts}. (`TransferClassifier.fit` and "
            f"`keras-vit-edu fine-tune` take it whole.) Received: {name_of(root)}"
        )
    skipped: list[tuple[str, str]] = []
    candidates = _files_of_classes(root, skipped)
    check = read_image if decode else check_header
    done, total = 0, sum(len(files) for files in candidates.values())
    sound: dict[str, list[str]] = {folder: [] for folder in candidates}
    for folder, files in candidates.items():
        for file in files:
            try:
                check(root / file)
                sound[folder].append(file)
            except ValueError as error:
                skipped.append((file, reason_of(error, root / file)))
            done += 1
            if progress is not None:
                progress(done, total)
        if not sound[folder]:
            skipped.append((folder, "The folder holds no image, so it makes no class"))
    classes = [folder for folder, files in sound.items() if files]
    return image_folder(
        root,
        class_names=tuple(normalized(folder) for folder in classes),
        files=tuple(file for folder in classes for file in sound[folder]),
        labels=np.repeat(np.arange(len(classes), dtype="int32"), [len(sound[folder]) for folder in classes]),
        skipped=skipped,
        given=root,
        subfolders=len(sound),
    )


def reason_of(error: ValueError, path: Path) -> str:
    """What an error says, without the path, which stands beside it."""
    return str(error).removesuffix(f". Received: {name_of(path)}")


def image_folder(
    root: Path,
    class_names: tuple[str, ...],
    files: tuple[str, ...],
    labels: np.ndarray,
    skipped: list[tuple[str, str]],
    given: Path,
    subfolders: int = 0,
) -> ImageFolder:
    """What was found, if it is enough to learn from; `given` is what was looked through, with so many subfolders."""
    why = f" ({len(skipped)} skipped, the first is {printable(skipped[0][0])}: {skipped[0][1]})" if skipped else ""
    if len(files) < subfolders:
        raise ValueError(
            "There must be an image of every class at least, in one subfolder per class. "
            f"Received: {name_of(given)} with {len(files)} images in {subfolders} subfolders{why}"
        )
    if len(class_names) < 2:
        where = "" if given != root else ", in one subfolder per class"
        raise ValueError(
            f"There must be images of two classes or more{where}. Received: {name_of(given)} with "
            f"{len(files)} images of {printable(class_names[0]) if class_names else 'no class'}{why}"
        )
    return ImageFolder(root, class_names, files, labels, tuple(sorted(skipped)))


def _files_of_classes(root: Path, skipped: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The files in each subfolder, as paths from the root on."""
    names = _visible_names(root, "", names_in(root), skipped)
    above = (os.path.realpath(root),)
    folders = []
    for name in names:
        if not os.path.isdir(root / name):
            skipped.append((name, "The file lies in no subfolder, so it has no class"))
        elif leads_above(root / name, *above):
            skipped.append((name, CIRCLE))
        else:
            folders.append(name)
    same: dict[str, str] = {}
    for folder in folders:
        other = same.setdefault(normalized(normalized(folder).casefold()), folder)
        if other != folder:
            raise ValueError(
                "The names of two classes differ only in case or in how accents are stored: other systems take them "
                f"for one. Received: {other!r} and {folder!r} in {name_of(root)}"
            )
    return {folder: list(_files_below(root, folder, above, skipped)) for folder in folders}


def _files_below(root: Path, folder: str, above: tuple[str, ...], skipped: list[tuple[str, str]]) -> Iterator[str]:
    """The files in a folder and in the folders within; `above` are the folders that it lies in, links resolved."""
    if leads_above(root / folder, *above):
        skipped.append((folder, CIRCLE))
        return
    real = os.path.realpath(root / folder)
    try:
        inside = names_in(root / folder)
    except ValueError as error:
        skipped.append((folder, reason_of(error, root / folder)))
        return
    for name in _visible_names(root, folder, inside, skipped):
        if os.path.isdir(root / name):
            yield from _files_below(root, name, (*above, real), skipped)
        elif os.path.isfile(root / name):
            yield name
        else:
            skipped.append((name, "This is no ordinary file, or a link to nothing"))


def _visible_names(root: Path, folder: str, inside: list[str], skipped: list[tuple[str, str]]) -> list[str]:
    """What is inside a folder and seen, in portable order, each as a path from the root on."""
    names = []
    for name in inside:
        if name.startswith("."):
            continue
        path = f"{folder}/{name}" if folder else name
        text = path.encode("utf-8", "backslashreplace").decode()
        if text != path:
            skipped.append((text, "The name is no valid Unicode"))
            continue
        if leads_to_itself(root / path):
            skipped.append((path, TO_ITSELF))
            continue
        names.append(path)
    return sorted(names, key=lambda path: (normalized(path), path))


def normalized(name: str) -> str:
    """The name with one code point for a letter and its accent (macOS stores two)."""
    return unicodedata.normalize("NFC", name)
