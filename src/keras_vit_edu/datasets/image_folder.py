"""A folder of photographs with one subfolder per class, to learn from."""

import errno
import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit_edu.datasets.image_file import check_header, read_image
from keras_vit_edu.datasets.image_source import names_in


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Which images a folder holds, and what they show. The images themselves stay in their files.

    Attributes:
        path: the folder.
        class_names: what the labels stand for: names of subfolders in Unicode's NFC form, in the order of their code
            points, which is the same on every system.
        files: of each image the path from `path` on, with `/`; class after class, in the same order of names.
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
    - a subfolder without any image: it makes no class.

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
        ValueError: if there is no such folder, or it may not be opened; if a link leads in a circle; if the names of
            two classes differ only in upper and lower case or in how accents are stored, as other systems take them for
            one; if there are fewer images than subfolders, or images of less than two classes.
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
    root = Path(path)
    if not os.path.isdir(root):
        kind = "A file is no folder of images" if os.path.exists(root) else "There is no such folder"
        raise ValueError(f"{kind}. Received: {path}")
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
                skipped.append((file, str(error).removesuffix(f". Received: {root / file}")))
            done += 1
            if progress is not None:
                progress(done, total)
        if not sound[folder]:
            skipped.append((folder, "The folder holds no image, so it makes no class"))
    return _image_folder(root, sound, skipped)


def _image_folder(root: Path, sound: dict[str, list[str]], skipped: list[tuple[str, str]]) -> ImageFolder:
    classes = [folder for folder, files in sound.items() if files]
    count = sum(len(files) for files in sound.values())
    why = f" ({len(skipped)} skipped, the first is {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    if count < len(sound):
        raise ValueError(
            "There must be an image of every class at least, in one subfolder per class. "
            f"Received: {root} with {count} images in {len(sound)} subfolders{why}"
        )
    if len(classes) < 2:
        raise ValueError(
            "There must be images of two classes or more, in one subfolder per class. "
            f"Received: {root} with {count} images of {_normalized(classes[0]) if classes else 'no class'}{why}"
        )
    return ImageFolder(
        path=root,
        class_names=tuple(_normalized(folder) for folder in classes),
        files=tuple(file for folder in classes for file in sound[folder]),
        labels=np.repeat(np.arange(len(classes), dtype="int32"), [len(sound[folder]) for folder in classes]),
        skipped=tuple(sorted(skipped)),
    )


def _files_of_classes(root: Path, skipped: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The files in each subfolder, as paths from the root on."""
    names = _visible_names(root, "", names_in(root), skipped)
    folders = [name for name in names if os.path.isdir(root / name)]
    same: dict[str, str] = {}
    for folder in folders:
        other = same.setdefault(_normalized(_normalized(folder).casefold()), folder)
        if other != folder:
            raise ValueError(
                "The names of two classes differ only in case or in how accents are stored: other systems take them "
                f"for one. Received: {other!r} and {folder!r} in {root}"
            )
    above = (os.path.realpath(root),)
    skipped += [(name, "The file lies in no subfolder, so it has no class") for name in names if name not in folders]
    return {folder: list(_files_below(root, folder, above, skipped)) for folder in folders}


def _files_below(root: Path, folder: str, above: tuple[str, ...], skipped: list[tuple[str, str]]) -> Iterator[str]:
    """The files in a folder and in the folders within; `above` are the folders that it lies in, links resolved."""
    real = os.path.realpath(root / folder)
    if real in above:
        raise ValueError(f"A link leads in a circle, to a folder that it lies in. Received: {root / folder}")
    try:
        inside = names_in(root / folder)
    except ValueError as error:
        skipped.append((folder, str(error).removesuffix(f". Received: {root / folder}")))
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
        _refuse_circle(root / path)
        names.append(path)
    return sorted(names, key=lambda path: (_normalized(path), path))


def _refuse_circle(path: Path) -> None:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"A link leads in a circle, to itself. Received: {path}") from None


def _normalized(name: str) -> str:
    """The name with one code point for a letter and its accent (macOS stores two)."""
    return unicodedata.normalize("NFC", name)
