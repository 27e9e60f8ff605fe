"""Find the photographs in a folder with one subfolder per class."""

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
    """The image files and labels of a folder or a CSV file. The images themselves stay in their files.

    Attributes:
        path: the folder, or the folder of the CSV file.
        class_names: names of the classes: the subfolders, in Unicode's NFC form, sorted by code points, which is the
            same order on every system.
        files: path of each image, relative to `path`, with `/`; class by class, sorted in the same way. Files of a CSV
            keep its order.
        labels: int32 `(n,)`, an index into `class_names` for each file.
        skipped: pairs of a skipped file or folder and the reason.

    Examples:
        >>> ImageFolder(Path("pets"), ("cat", "dog"), ("cat/tom.png",), np.zeros(1, "int32"), ())
        <1 images of 2 classes in pets, 0 skipped>
    """

    path: Path
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    skipped: tuple[tuple[str, str], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The path of each image, to open it."""
        return tuple(self.path / file for file in self.files)

    def __repr__(self) -> str:
        return (
            f"<{len(self.files)} images of {len(self.class_names)} classes in {self.path}, {len(self.skipped)} skipped>"
        )


def scan_folder(
    path: str | Path, decode: bool = True, progress: Callable[[int, int], object] | None = None
) -> ImageFolder:
    """Find the images in a folder with one subfolder per class, and check that each can be read.

    An image belongs to the class of the subfolder at the top, at any depth. Links are followed. Every file that
    `read_image` reads is an image, of any name, kind or size: 16 bits, CMYK, the first frame of an animation, a single
    pixel. The following are listed in `skipped`:

    - files that `read_image` refuses: damaged, empty, no image, not readable, more than 89 million pixels or a million
      along a side
    - files beside the subfolders, folders that cannot be opened, and names that are not valid Unicode
    - a subfolder without images: it is no class
    - links that lead in a circle: to themselves, or to a folder that contains them

    Names that begin with a dot are hidden, and ignored without a message.

    Args:
        path: the folder.
        decode: True decodes every image once, some tenths of a second for a photograph of 12 megapixels. False reads
            only the first bytes of each file, which saves minutes with thousands of photographs. A photograph that is
            damaged further in then stays, and is an error when it is loaded.
        progress: called as `progress(done, total)` after every file.

    Returns:
        An `ImageFolder`.

    Raises:
        ValueError: if there is no such folder, or it cannot be opened; if it is split into `train`, `val` or `test`
            (see `find_split`): scan one of these folders; if the names of two classes differ only in case or in how
            accents are stored, because other systems cannot tell them apart; if there are fewer images than subfolders,
            or images of fewer than two classes.
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
            f"This dataset is split already. Pass one of its parts: {parts}. (`TransferClassifier.fit` and "
            f"`keras-vit-edu fine-tune` take the whole.) Received: {name_of(root)}"
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
    """The text of an error without the path."""
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
    """Make an `ImageFolder`, if there is enough to train on. `given` is the scanned path, with this many subfolders."""
    why = f" ({len(skipped)} skipped, the first is {printable(skipped[0][0])}: {skipped[0][1]})" if skipped else ""
    if len(files) < subfolders:
        raise ValueError(
            "Every class needs at least one image in its subfolder. "
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
    """The files in each subfolder, as paths relative to the root."""
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
                "The names of two classes differ only in case or in how accents are stored. Other systems cannot tell "
                f"them apart. Received: {other!r} and {folder!r} in {name_of(root)}"
            )
    return {folder: list(_files_below(root, folder, above, skipped)) for folder in folders}


def _files_below(root: Path, folder: str, above: tuple[str, ...], skipped: list[tuple[str, str]]) -> Iterator[str]:
    """The files in a folder and below. `above` are the folders that contain it, links resolved."""
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
    """The names in a folder that are not hidden, in portable order, as paths relative to the root."""
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
    """The name in NFC form: one code point for a letter with its accent (macOS stores two)."""
    return unicodedata.normalize("NFC", name)
