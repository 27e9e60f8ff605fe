"""Write and read the two files of an artifact, in a folder or in one zip.

    artifact.json          the manifest, JSON; see `artifact.py`
    weights.safetensors    the weights; `artifact.json` holds their size and SHA-256

Writing is atomic. In a folder, new weights get the unused one of two names; then `artifact.json` is replaced in one
step, and names them. Every size is checked before reading, and nothing is unpacked to a disk.
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
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # for others, Python unpacks more than requested
LARGEST_MANIFEST = 1 << 23  # bytes; the names of 1000 classes take 20,000. Python's objects take up to 40 times as much
LARGEST_DEFLATED = 1 << 30  # bytes of compressed weights to unpack, which takes a second or two
LARGEST_EXPANSION = 10  # largest ratio of unpacked to packed size, without the manifest; weights hardly shrink
MOST_ENTRIES = 50  # entries in a zip: the two files, folders, and files that a file manager adds
CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # date of every entry, so that the same classifier gives the same file


class ArtifactError(ValueError):
    """An artifact cannot be written or read. The message gives the reason in one line."""


# Writing. -------------------------------------------------------------------------------------------------------------


def write(path: Path, manifest: Mapping[str, Any], weights: bytes) -> None:
    """Write an artifact: a zip if the path ends in `.zip`, else a folder.

    Args:
        path: a file ending in `.zip`, or a folder.
        manifest: JSON. The name of the weights file is added to its `"weights"` object.
        weights: content of a safetensors file with `part_of`: `PART_OF` in its header.

    Raises:
        ArtifactError: if `path` holds something other than an artifact, or if the manifest is not JSON or too large.
        OSError: if it cannot be written. An existing artifact stays unchanged.
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
        raise ArtifactError(f"Only an artifact can be overwritten, and this is something else. Received: {file}")
    content = _to_json(manifest, WEIGHTS_NAMES[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream, zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_entry(MANIFEST), content, zipfile.ZIP_DEFLATED)
        archive.writestr(_entry(WEIGHTS_NAMES[0]), weights, zipfile.ZIP_STORED)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EARLIEST)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16  # readable after unpacking
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
            f"Only an artifact can be overwritten, and this folder holds something else. Received: {folder}"
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
            if _weights_name_in(folder) != name:  # if the manifest names it, the new artifact is complete
                (folder / name).unlink(missing_ok=True)
            if is_new:
                folder.rmdir()
        raise
    for other in WEIGHTS_NAMES:
        remove_leftovers(folder / other)
        if other != name:
            (folder / other).unlink(missing_ok=True)  # the old weights


def _is_left_over(file: Path) -> bool:
    """Whether a file is a leftover of a process that was killed while it wrote an artifact."""
    if file.name not in WEIGHTS_NAMES:
        return is_aside(file.name, MANIFEST, *WEIGHTS_NAMES)
    try:
        with safetensors.safe_open(file, framework="numpy") as stored:
            return (stored.metadata() or {}).get("part_of") == PART_OF
    except (OSError, safetensors.SafetensorError):
        return False


def _weights_name_in(folder: Path) -> Any:
    """The name of the weights file in the folder's manifest; None if the manifest does not name one."""
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
    """Whether `path` looks like an artifact: a folder with an `artifact.json`, or a file that ends in `.zip`."""
    path = Path(path)
    return (path / MANIFEST).is_file() or (path.is_file() and path.suffix.lower() == ".zip")


def located(path: str | Path) -> Path:
    """Find the artifact for a path: `classifier` in the folder of a run, or the folder of an `artifact.json`.

    Any other path is returned unchanged.
    """
    path = Path(path)
    if path.name == MANIFEST and path.is_file():
        return path.parent
    within = path / CLASSIFIER
    return within if not (path / MANIFEST).is_file() and (within / MANIFEST).is_file() else path


@contextlib.contextmanager
def opened(path: Path) -> "Iterator[Folder | Zip]":
    """Open the artifact at `path` for reading.

    Raises:
        ArtifactError: if there is none, or if its zip is damaged or was not written by this library.
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
                f"The zip is damaged, cut off, or holds many other files ({error}). Received: {path}"
            ) from None
        raise ArtifactError(f"An artifact is a folder or a zip, and this file is not a zip. Received: {path}") from None
    except (NotImplementedError, RuntimeError, EOFError, OSError) as error:  # another compression, encrypted...
        raise ArtifactError(f"The artifact cannot be read: {error}. Received: {path}") from None


def _what_else(folder: Path) -> str:
    """An error message for a folder without an artifact: what it is, and what to do."""
    if (folder / "run.json").is_file():
        return (
            f"The run has no {CLASSIFIER} for photographs. `fine-tune` and `fit` save one at the end, and resume an "
            f"interrupted run; `train` does not save one. Received: {folder}"
        )
    if (folder / "config.json").is_file():
        return f"This is a preset, not an artifact. Load it with `from_preset`. Received: {folder}"
    return f"The artifact lacks {MANIFEST}. Received: {folder}"


class Folder:
    """An artifact in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        file = self.path / name
        if not file.is_file():
            raise ArtifactError(f"The artifact lacks {name}. Received: {self.path}")
        check_lies_in(self.path, name, "an artifact", ArtifactError)
        return file.stat().st_size

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading in pieces."""
        self.size(name)  # raises an error if the file is missing
        try:
            with open_regular(self.path / name) as stream:
                yield stream
        except OSError as error:
            raise ArtifactError(
                f"The artifact's {name} cannot be read: {error.strerror}. Received: {self.path}"
            ) from None

    def read(self, name: str, limit: int) -> bytes:
        """Read a file of at most `limit` bytes. At most one byte more is read."""
        _check_size(self.size(name), limit, name, self.path)
        with self.stream(name) as stream:
            return _read(stream, limit, name, self.path)


class Zip:
    """An artifact in a zip. The constructor checks all entries."""

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
            raise ArtifactError(f"The zip has two entries with the name {names[0]}. Received: {path}")
        if len(set(folders)) != 1:
            raise ArtifactError(f"Both entries of an artifact must be in one folder. Received: {path} with {folders}")
        self._entries = dict(zip(names, entries, strict=True))
        unpacked, packed = sum(entry.file_size for entry in entries), path.stat().st_size
        if unpacked > LARGEST_EXPANSION * packed + LARGEST_MANIFEST:
            raise ArtifactError(
                f"The zip of an artifact must unpack to about its own size. Received: {path} of {packed:,} bytes, "
                f"which unpacks to {unpacked:,}"
            )

    def _check_number(self, entries: list[zipfile.ZipInfo], most: int, least: int = 0) -> None:
        if not least <= len(entries) <= most:
            raise ArtifactError(
                f"The zip of an artifact must have two entries, {MANIFEST} and the weights. Zip only this folder. "
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
                f"The entries of an artifact's zip must be stored or deflated. Received: {self.path}, where {name!r} "
                f"has compression method {entry.compress_type}"
            )
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ArtifactError(f"The zip has an entry that is a link or not a file, {name!r}. Received: {self.path}")
        if _folder_and_name(entry)[1] not in (MANIFEST, *WEIGHTS_NAMES) or entry.filename != name:
            raise ArtifactError(
                f"The zip of an artifact must hold {MANIFEST} and {WEIGHTS_NAMES[0]}, and nothing else. Received: "
                f"{self.path} with {name!r}"
            )

    def size(self, name: str) -> int:
        """Unpacked size of an entry in bytes, from the zip's directory."""
        if name not in self._entries:
            raise ArtifactError(f"The artifact lacks {name}. Received: {self.path}")
        return self._entries[name].file_size

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Open an entry for unpacking in pieces."""
        is_packed = self._entries[name].compress_type != zipfile.ZIP_STORED
        if is_packed and self.size(name) > LARGEST_DEFLATED:
            raise ArtifactError(
                f"Weights of more than {LARGEST_DEFLATED:,} bytes must be uncompressed in the zip. Unpack the zip, and "
                f"load the folder. Received: {self.path}, where {name} has {self.size(name):,}"
            )
        try:
            with self.archive.open(self._entries[name]) as stream:
                yield cast(BinaryIO, stream)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ArtifactError(f"{name} in the zip is damaged ({error}). Received: {self.path}") from None

    def read(self, name: str, limit: int) -> bytes:
        """Read an entry of at most `limit` bytes. At most one byte more is unpacked, whatever the directory says."""
        _check_size(self.size(name), limit, name, self.path)
        with self.stream(name) as stream:
            return _read(stream, limit, name, self.path)


def _folder_and_name(entry: zipfile.ZipInfo) -> tuple[str, str]:
    """The folder and the file name of an entry. (Some programs on Windows write backslashes.)"""
    folder, _, name = entry.orig_filename.replace("\\", "/").rpartition("/")
    return folder, name


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    """Whether a file manager added the entry: the folder itself, or its hidden files."""
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
