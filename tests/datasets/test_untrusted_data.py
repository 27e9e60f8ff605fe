"""What a stranger's file may cost: sizes are checked by headers, before anything is unpacked."""

import gzip
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

from keras_vit_edu import datasets
from keras_vit_edu.datasets import array_file
from keras_vit_edu.datasets.idx import open_idx
from keras_vit_edu.datasets.npz import open_npz

pytestmark = pytest.mark.any_backend

MEGABYTE = bytes(1 << 20)


def idx(shape, content=b""):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def npy(shape, dtype="u1", content=b"", version=1):
    header = repr({"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + content
    )


def zeros(stream, begin, megabytes):
    stream.write(begin)
    for _ in range(megabytes):
        stream.write(MEGABYTE)


def labels_and_test(folder, count):
    """The other three files of an IDX folder, which fit."""
    (folder / "train-labels-idx1-ubyte").write_bytes(idx((count,), bytes(count)))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx((1, 28, 28), bytes(784)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx((1,), b"\0"))


def npz_with(folder, x_train, **others):
    """An npz file of which one array has the given bytes."""
    arrays = {"y_train": npy((1,), content=b"\0"), "y_test": npy((1,), content=b"\0")}
    arrays |= {"x_test": npy((1, 28, 28), content=bytes(784)), "x_train": x_train} | others
    with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return folder / "data.npz"


# Files that take little and hold much. --------------------------------------------------------------------------------


def long_gzip(folder):
    """The header says 10 images, and gigabytes follow."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb", 1) as stream:
        zeros(stream, idx((10, 28, 28)), 2600)
    labels_and_test(folder, 10)
    return folder


def honest_gzip(folder):
    """The header says the gigabytes that there are."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb", 1) as stream:
        zeros(stream, idx((2600, 1024, 1024)), 2600)
    labels_and_test(folder, 2600)
    return folder


def broken_gzip(folder):
    """As much as may be packed, and a checksum that is wrong at the end."""
    pack = zlib.compressobj(1, wbits=31)
    with open(folder / "train-images-idx3-ubyte.gz", "wb") as stream:
        stream.write(pack.compress(idx((1000, 1024, 1024))))
        for _ in range(1000):
            stream.write(pack.compress(MEGABYTE))
        stream.write(pack.flush()[:-8] + bytes(8))
    labels_and_test(folder, 1000)
    return folder


def endless_name(folder):
    """A gzip header with a file name of gigabytes (holes, on most disks)."""
    with open(folder / "train-images-idx3-ubyte.gz", "wb") as stream:
        stream.write(b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * (2 << 20))
        stream.truncate(5 << 30)
    labels_and_test(folder, 10)
    return folder


def empty_members(folder):
    """A gzip file of a million parts with nothing in them."""
    content = gzip.compress(idx((10, 28, 28)), mtime=0) + gzip.compress(b"", mtime=0) * 1_000_000
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    labels_and_test(folder, 10)
    return folder


def long_npz(folder):
    """The array is 784 bytes, and the entry has gigabytes."""
    file = npz_with(folder, b"")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x_train.npy", "w", force_zip64=True) as stream:
            zeros(stream, npy((1, 28, 28)), 2600)
        for name in ("x_test", "y_train", "y_test"):
            archive.writestr(f"{name}.npy", npy((1,), content=b"\0"))
    return file


def honest_npz(folder):
    file = long_npz(folder)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x_train.npy", "w", force_zip64=True) as stream:
            zeros(stream, npy((2600, 1024, 1024)), 2600)
        archive.writestr("y_train.npy", npy((2600,), content=bytes(2600)))
        archive.writestr("x_test.npy", npy((1, 1024, 1024), content=MEGABYTE))
        archive.writestr("y_test.npy", npy((1,), content=b"\0"))
    return file


def many_names(folder):
    """A table of contents with a million arrays."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = len(entry) * 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, size, 4, 0)
    (folder / "data.npz").write_bytes(b"PK\x03\x04" + entry * 1_000_000 + end)
    return folder / "data.npz"


def long_csv(folder):
    with open(folder / "train.csv", "wb") as stream:
        stream.write(b"label" + b"".join(b",pixel%d" % i for i in range(784)) + b"\n")
        stream.truncate(5 << 30)
    return folder / "train.csv"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
@pytest.mark.parametrize(
    "make",
    [long_gzip, honest_gzip, broken_gzip, endless_name, empty_members, long_npz, honest_npz, many_names, long_csv],
)
def test_refusing_costs_at_most_500_mb_and_5_s(tmp_path, make):
    path = make(tmp_path)
    program = (
        "import resource, sys\n"
        "from keras_vit_edu import datasets\n"
        "use = lambda: resource.getrusage(resource.RUSAGE_SELF)\n"
        "before = use()\n"
        "try:\n    datasets.load_data(sys.argv[1])\n"
        "except ValueError as error:\n    print(str(error).count(chr(10)), end=' ')\n"
        "after = use()\n"
        "print(after.ru_maxrss - before.ru_maxrss, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    lines, kilobytes, seconds = done.stdout.split()
    assert lines == "0"
    assert int(kilobytes) <= 500_000
    assert float(seconds) <= 5


# Headers that cannot be. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "content", "complaint"),
    [
        ((2**32 - 1,) * 3, b"", "truncated|at most"),
        ((10, 28, 28), bytes(7839), "truncated"),
        ((10, 28, 28), bytes(7841), "too long"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_idx_file_is_as_long_as_its_header_says(tmp_path, shape, content, complaint, pack):
    (tmp_path / "a").write_bytes(pack(idx(shape, content)))
    with pytest.raises(ValueError, match=complaint):
        read_whole(tmp_path / "a")


def read_whole(file):
    array = open_idx(file)
    array_file.check_sizes({"a": array})
    return array.read()


def test_a_gzip_file_may_have_several_members(tmp_path):
    content = os.urandom(200_000)
    data = idx((200_000,), content)
    (tmp_path / "a").write_bytes(b"".join(gzip.compress(data[i : i + 65280]) for i in range(0, len(data), 65280)))
    assert open_idx(tmp_path / "a").read().tobytes() == content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (npy((2**40, 28, 28)), "truncated"),
        (npy((2**64, 2**64, 2**64)), "truncated"),
        (npy((-1, 28, 28)), "has the shape"),
        (npy((1, 28, 28), content=bytes(783)), "truncated"),
        (npy((1, 28, 28), content=bytes(785)), "too long"),
        (npy((1, 28, 28), "O", bytes(784)), "pickled"),
        (npy((1, 28, 28), content=bytes(784), version=3), "format"),
        (b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1) + b" " * 1000, "cannot be read as an npz file"),
        (b"\x93NUMPY\x01\0" + struct.pack("<H", 9000) + b"-" * 8999 + b"1", "cannot be read as an npz file"),
        (b"\x93NUMPY\x01\0" + struct.pack("<H", 9000) + b"[" * 9000, "cannot be read as an npz file"),
        (b"nothing", "cannot be read as an npz file"),
        (b"", "cannot be read as an npz file"),
    ],
)
def test_an_array_is_as_long_as_its_header_says(tmp_path, content, complaint):
    file = npz_with(tmp_path, content)
    with pytest.raises(ValueError, match=complaint) as error:
        datasets.load_data(file)
    assert str(error.value).startswith(f"{file} cannot be read as an npz file")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, method):
    """Python's zipfile unpacks these in one piece, however long."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("x_train.npy", npy((1, 28, 28), content=bytes(784)))
    with pytest.raises(ValueError, match="another method"):
        open_npz(tmp_path / "a.npz")["x_train"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_out_as_numpy_saved_them(tmp_path, rng, order, save):
    arrays = {
        "bytes": np.asarray(rng.integers(0, 256, (5, 4, 3)).astype("uint8"), order=order),
        "numbers": np.asarray(rng.integers(-9, 9, (3, 4)), order=order),
        "swapped": rng.integers(0, 9, 7).astype(">i2"),
        "text": np.array(["a", "bcd"]),
        "none": np.zeros((0, 3)),
        "one": np.array(3.5),
    }
    save(tmp_path / "a.npz", **arrays)
    files = open_npz(tmp_path / "a.npz")
    assert files.names() == list(arrays)
    for name, array in arrays.items():
        found = files[name].read()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_large_data_is_gone_through_before_it_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(array_file, "CHECKED_FIRST", 0)
    images, labels = np.arange(3 * 16, dtype="uint8").reshape(3, 4, 4), np.arange(3)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    np.testing.assert_array_equal(datasets.load_data(tmp_path / "a.npz").x_test[..., 0], images)


@pytest.mark.parametrize(("limit", "complaint"), [("LARGEST", "at most 0 GiB"), ("MOST_IMAGES", "at most 2 images")])
def test_what_is_too_large(tmp_path, monkeypatch, limit, complaint):
    monkeypatch.setattr(array_file, limit, 2)
    images, labels = np.zeros((3, 4, 4), "uint8"), np.arange(3)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(ValueError, match=complaint):
        datasets.load_data(tmp_path / "a.npz")


def test_compressed_data_has_a_limit_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(array_file, "LARGEST_PACKED", 90)
    images, labels = np.zeros((3, 4, 4), "uint8"), np.arange(3)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "a.npz", **arrays)
    datasets.load_data(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    with pytest.raises(ValueError, match=r"compressed files may hold.*numpy\.savez.*144 bytes"):
        datasets.load_data(tmp_path / "b.npz")


# What is no file. -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("load", [datasets.load_data, lambda path: datasets.load("mnist", path)])
def test_pipes_and_devices_are_refused_at_once(tmp_path, load):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.npz").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    (tmp_path / "mnist.npz").mkdir()
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path / "link.npz"):
        with pytest.raises(ValueError, match="no regular file"):
            load(path)
    with pytest.raises(ValueError, match=r"There (is no|must be)"):
        load(tmp_path)


@pytest.mark.parametrize("path", ["\0", "a" * 5000])
def test_names_that_no_file_can_have(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (datasets.load_data, lambda path: datasets.load("mnist", path)):
        with pytest.raises(ValueError, match=r"There (is|are) no"):
            load(path)


def test_a_large_label_makes_no_billions_of_classes(tmp_path):
    images = np.zeros((2, 8, 8), "uint8")
    for labels in ([0, 2**31 - 1], [0, 100_000]):
        arrays = {"x_train": images, "y_train": np.array(labels), "x_test": images, "y_test": np.array([0, 1])}
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(ValueError, match=r"labels must be 0 to 99999. Received: y_train from 0 to"):
            datasets.load_data(tmp_path / "a.npz")
