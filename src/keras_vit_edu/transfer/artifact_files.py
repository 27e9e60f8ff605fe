"""The two files of an artifact, in a folder or in one zip: written in one step, and read with every size known before.

    artifact.json          what it is: JSON, see `artifact.py`
    weights.safetensors    the weights; `artifact.json` says how many bytes, and their SHA-256

Nothing is ever unpacked to a disk. In a folder that is written a second time the new weights lie beside the old ones,
under the other of two names, until `artifact.json`, which is replaced in one step, names them.
"""

import contextlib
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import safetensors

from keras_vit_edu._files import (
    check_lies_in,
    is_aside,
    open_regular,
    open_zip,
    parse_json,
    read_json,
    remove_leftovers,
    replacing,
    to_json,
    write_atomically,
)
from keras_vit_edu.training.run_folder import CLASSIFIER

MANIFEST = "artifact.json"
WEIGHTS_NAMES = ("weights.safetensors", "weights-2.safetensors")
PART_OF = "an artifact of keras_vit_edu"  # in the header of its weights
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of the others, Python unpacks more than it is asked for
LARGEST_MANIFEST = 1 << 23  # bytes; the names of 1000 classes take 20,000. Python's objects take up to 40 times as much
LARGEST_DEFLATED = 1 << 30  # bytes of weights that are unpacked: it takes a second or two
LARGEST_EXPANSION = 10  # a zip unpacks to at most so many times its own size, and a manifest; weights hardly shrink
MOST_ENTRIES = 50  # of a zip that are looked at: the two, folders, and what a file manager adds
CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the date of every entry, so that the same classifier makes the same file


class ArtifactError(ValueError):
    """Something is wrong with an artifact; its text says what, in one line."""


# Writing. -------------------------------------------------------------------------------------------------------------


def write(path: Path, manifest: Mapping[str, Any], weights: bytes) -> None:
    """Write an artifact, into a zip if the name ends so, else into a folder.

    Args:
        path: a file ending in `.zip`, or a folder.
        manifest: JSON, its `"weights"` an object; that will say which file they are in.
        weights: the content of a safetensors file, whose header has `part_of`: `PART_OF`.

    Raises:
        ArtifactError: if something else is there, or the manifest is not JSON, or larger than what is read again.
        OSError: if it cannot be written; an artifact that was there is as it was.
    """
    try:
        if path.suffix.lower() == ".zip":
            _write_zip(path, manifest, weights)
        else:
            _write_folder(path, manifest, weights)
    except OSError as error:
        raise OSError(f"The artifact {path} could not be written: {error.strerror or error}") from error


def _write_zip(file: Path, manifest: Mapping[str, Any], weights: bytes) -> None:
    if file.is_dir() or (file.exists() and MANIFEST not in _names_in_zip(file)):
        raise ArtifactError(f"Only an artifact is overwritten, and this is something else. Received: {file}")
    content = _to_json(manifest, WEIGHTS_NAMES[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream, zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_entry(MANIFEST), content, zipfile.ZIP_DEFLATED)
        archive.writestr(_entry(WEIGHTS_NAMES[0]), weights, zipfile.ZIP_STORED)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EARLIEST)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16  # whoever unpacks it can read it
    return entry


def _names_in_zip(file: Path) -> list[str]:
    try:
        with open_regular(file) as stream, open_zip(stream) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError):
        return []


def _write_folder(folder: Path, manifest: Mapping[str, Any], weights: bytes) -> None:
    is_new = not folder.exists()
    if not is_new and not folder.is_dir():
        raise ArtifactError(f"An artifact is a folder or a file that ends in .zip. Received: {folder}, another file")
    if not is_new and not (folder / MANIFEST).is_file() and not all(map(_is_left_over, folder.iterdir())):
        raise ArtifactError(
            f"Only an artifact is overwritten, and this folder holds something else. Received: {folder}"
        )
    in_use = _weights_name_in(folder)
    name = next(name for name in WEIGHTS_NAMES if name != in_use)
    content = _to_json(manifest, name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_atomically(folder / name, weights)
        write_atomically(folder / MANIFEST, content)
    except BaseException:
        with contextlib.suppress(OSError):
            if _weights_name_in(folder) != name:  # else the new artifact is whole: what failed came after
                (folder / name).unlink(missing_ok=True)
            if is_new:
                folder.rmdir()
        raise
    for other in WEIGHTS_NAMES:
        remove_leftovers(folder / other)
        if other != name:
            (folder / other).unlink(missing_ok=True)  # the old weights


def _is_left_over(file: Path) -> bool:
    """Whether a file was left by a process that was killed while it wrote an artifact."""
    if file.name not in WEIGHTS_NAMES:
        return is_aside(file.name, MANIFEST, *WEIGHTS_NAMES)
    try:
        with safetensors.safe_open(file, framework="numpy") as stored:
            return (stored.metadata() or {}).get("part_of") == PART_OF
    except (OSError, safetensors.SafetensorError):
        return False


def _weights_name_in(folder: Path) -> Any:
    """Under which name the weights lie that the folder's manifest tells of; None if it tells of none."""
    try:
        return read_json(folder / MANIFEST, LARGEST_MANIFEST)["weights"]["file"]
    except (ValueError, LookupError, TypeError):
        return None


def _to_json(manifest: Mapping[str, Any], name: str) -> bytes:
    content = {**manifest, "weights": {"file": name, **manifest["weights"]}}
    try:
        return to_json(MANIFEST, content, LARGEST_MANIFEST)
    except ValueError as error:
        raise ArtifactError(str(error)) from None


# Reading. -------------------------------------------------------------------------------------------------------------


def is_artifact(path: str | Path) -> bool:
    """Whether there is what looks like an artifact: a folder with an `artifact.json`, or a file that ends in `.zip`."""
    path = Path(path)
    return (path / MANIFEST).is_file() or (path.is_file() and path.suffix.lower() == ".zip")


def located(path: str | Path) -> Path:
    """The artifact that a path means: `classifier` in the folder of a run, the folder of an `artifact.json`.

    Any other path is given back as it is.
    """
    path = Path(path)
    if path.name == MANIFEST and path.is_file():
        return path.parent
    within = path / CLASSIFIER
    return within if not (path / MANIFEST).is_file() and (within / MANIFEST).is_file() else path


@contextlib.contextmanager
def opened(path: Path) -> "Iterator[Folder | Zip]":
    """The artifact at `path`, to read from.

    Raises:
        ArtifactError: if there is none, or a zip that is damaged or not what this library writes.
    """
    if path.is_dir():
        if not any((path / name).is_file() for name in (MANIFEST, *WEIGHTS_NAMES)):
            raise ArtifactError(_what_else(path))
        yield Folder(path)
        return
    if not path.is_file():
        raise ArtifactError(f"There is no artifact, neither a folder nor a file. Received: {path}")
    try:
        with open_regular(path) as stream, open_zip(stream) as archive:
            yield Zip(path, archive)
    except zipfile.BadZipFile as error:
        with open(path, "rb") as stream:
            begins_as_zip = stream.read(4) == b"PK\x03\x04"
        if begins_as_zip:
            raise ArtifactError(
                f"The zip is damaged, cut off, or holds much else ({error}). Received: {path}"
            ) from None
        raise ArtifactError(f"An artifact is a folder or a zip, and this file is no zip. Received: {path}") from None
    except (NotImplementedError, RuntimeError, EOFError, OSError) as error:  # of another compression, encrypted...
        raise ArtifactError(f"The artifact cannot be read: {error}. Received: {path}") from None


def _what_else(folder: Path) -> str:
    """What a folder is that holds no artifact, and what to do with it."""
    if (folder / "run.json").is_file():
        return (
            f"The run holds no {CLASSIFIER} of photographs. `fine-tune` or `fit` saves one at its end, and resumes a "
            f"run that was interrupted; `train` saves none. Received: {folder}"
        )
    if (folder / "config.json").is_file():
        return f"This is a preset, not an artifact: `from_preset` takes it. Received: {folder}"
    return f"The artifact lacks {MANIFEST}: the folder holds none. Received: {folder}"


class Folder:
    """An artifact in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self, name: str) -> int:
        """How many bytes a file has."""
        file = self.path / name
        if not file.is_file():
            raise ArtifactError(f"The artifact lacks {name}. Received: {self.path}")
        check_lies_in(self.path, name, "an artifact", ArtifactError)
        return file.stat().st_size

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """The content of a file, to read in pieces."""
        self.size(name)  # complains if it is not there
        try:
            with open_regular(self.path / name) as stream:
                yield stream
        except OSError as error:
            raise ArtifactError(
                f"The artifact's {name} cannot be read: {error.strerror}. Received: {self.path}"
            ) from None

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file; `limit` bytes and one more at most are read."""
        _check_size(self.size(name), limit, name, self.path)
        with self.stream(name) as stream:
            return _read(stream, limit, name, self.path)


class Zip:
    """An artifact in a zip, whose directory has been looked through."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        entries = archive.infolist()
        self._check_number(entries, MOST_ENTRIES)
        for entry in entries:
            self._check_place(entry)
        entries = [entry for entry in entries if not _is_clutter(entry)]
        for entry in entries[: len(WEIGHTS_NAMES) + 1]:
            self._check_entry(entry)
        self._check_number(entries, 2, 2)
        folders, names = zip(*(_folder_and_name(entry) for entry in entries), strict=True)
        if len(set(names)) != 2:
            raise ArtifactError(f"The zip has two entries of one name, {names[0]}. Received: {path}")
        if len(set(folders)) != 1:
            raise ArtifactError(f"The two entries of an artifact lie in one folder. Received: {path} with {folders}")
        self._entries = dict(zip(names, entries, strict=True))
        unpacked, packed = sum(entry.file_size for entry in entries), path.stat().st_size
        if unpacked > LARGEST_EXPANSION * packed + LARGEST_MANIFEST:
            raise ArtifactError(
                f"The zip of an artifact unpacks to about its own size. Received: {path}, {packed:,} bytes that unpack "
                f"to {unpacked:,}"
            )

    def _check_number(self, entries: list[zipfile.ZipInfo], most: int, least: int = 0) -> None:
        if not least <= len(entries) <= most:
            raise ArtifactError(
                f"The zip of an artifact has two entries, {MANIFEST} and the weights; zip that folder alone. "
                f"Received: {self.path} with {len(entries):,} entries"
            )

    def _check_place(self, entry: zipfile.ZipInfo) -> None:
        name = entry.orig_filename
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in name:
            raise ArtifactError(f"The zip has an entry that leads out of its folder, {name!r}. Received: {self.path}")

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        self._check_place(entry)
        name = entry.orig_filename
        if entry.compress_type not in COMPRESSIONS:
            raise ArtifactError(
                f"The entries of an artifact's zip are stored or deflated. Received: {self.path}, where {name!r} is of "
                f"compression method {entry.compress_type}"
            )
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ArtifactError(f"The zip has an entry that is a link or no file, {name!r}. Received: {self.path}")
        if _folder_and_name(entry)[1] not in (MANIFEST, *WEIGHTS_NAMES) or entry.filename != name:
            raise ArtifactError(
                f"The zip of an artifact has {MANIFEST} and {WEIGHTS_NAMES[0]}, and nothing else. Received: "
                f"{self.path} with {name!r}"
            )

    def size(self, name: str) -> int:
        """How many bytes an entry has, unpacked, as the zip's directory says."""
        if name not in self._entries:
            raise ArtifactError(f"The artifact lacks {name}. Received: {self.path}")
        return self._entries[name].file_size

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """The content of an entry, to unpack in pieces."""
        is_packed = self._entries[name].compress_type != zipfile.ZIP_STORED
        if is_packed and self.size(name) > LARGEST_DEFLATED:
            raise ArtifactError(
                f"Weights of more than {LARGEST_DEFLATED:,} bytes must lie in the zip uncompressed; unpacked into a "
                f"folder, the artifact loads. Received: {self.path}, where {name} has {self.size(name):,}"
            )
        try:
            with self.archive.open(self._entries[name]) as stream:
                yield cast(BinaryIO, stream)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ArtifactError(f"{name} in the zip is damaged ({error}). Received: {self.path}") from None

    def read(self, name: str, limit: int) -> bytes:
        """The content of an entry; `limit` bytes and one more at most are unpacked, whatever the directory says."""
        _check_size(self.size(name), limit, name, self.path)
        with self.stream(name) as stream:
            return _read(stream, limit, name, self.path)


def _folder_and_name(entry: zipfile.ZipInfo) -> tuple[str, str]:
    """Where an entry lies in the zip, and its name there. (Some programs on Windows write backslashes.)"""
    folder, _, name = entry.orig_filename.replace("\\", "/").rpartition("/")
    return folder, name


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    """Whether a file manager has put an entry beside what it packed: the folder itself, or notes of its own."""
    folder, name = _folder_and_name(entry)
    return not name or "__MACOSX" in folder.split("/") or name in CLUTTER or name.startswith("._")


def _check_size(size: int, limit: int, name: str, path: Path) -> None:
    if size > limit:
        raise ArtifactError(f"{name} must have at most {limit:,} bytes. Received: {path}, where it has {size:,}")


def _read(stream: Any, limit: int, name: str, path: Path) -> bytes:
    data = stream.read(limit + 1)
    _check_size(len(data), limit, name, path)
    return data


def parse_manifest(data: bytes, path: Path) -> dict[str, Any]:
    """The object in `artifact.json`."""
    try:
        manifest = parse_json(data)
    except ValueError as error:
        raise ArtifactError(f"{MANIFEST} is damaged: {error}. Received: {path}") from None
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{MANIFEST} must hold a JSON object. Received: {path}, {type(manifest).__name__}")
    return manifest
