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


def packed(begin, megabytes):
    """`begin` and so many zeros: its CRC-32, as raw deflate has it, and its size. The zeros are packed once."""
    pack, crc = zlib.compressobj(1, wbits=-15), zlib.crc32(begin)
    first = pack.compress(begin) + pack.flush(zlib.Z_FULL_FLUSH)
    again = pack.compress(MEGABYTE) + pack.flush(zlib.Z_FULL_FLUSH)  # depends on nothing before
    for _ in range(megabytes):
        crc = zlib.crc32(MEGABYTE, crc)
    return crc, first + again * megabytes + pack.flush(), len(begin) + (megabytes << 20)


def gzip_of(begin, megabytes):
    crc, data, size = packed(begin, megabytes)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + data + struct.pack("<2L", crc, size)


def digits_of(megabytes):
    """How a file of digits begins that goes on with so many megabytes, and how many digits it has."""
    count = 1 + (megabytes << 20) // 784
    return idx((count, 28, 28), bytes(784 * count - (megabytes << 20))), count


def zip_of(entries):
    """An archive of what `packed` gives, by name."""
    archive, contents = b"", b""
    for name, (crc, data, size) in entries.items():
        said = struct.pack("<5H3L2H", 20, 0, 8, 0, 33, crc, len(data), size, len(name), 0)
        contents += b"PK\1\2" + struct.pack("<H", 20) + said + struct.pack("<3H2L", 0, 0, 0, 0, len(archive))
        contents += name.encode()
        archive += b"PK\3\4" + said + name.encode() + data
    count = len(entries)
    return archive + contents + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, count, count, len(contents), len(archive), 0)


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
    """The header says 10 images, and a gigabyte follows."""
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip_of(idx((10, 28, 28)), 1100))
    labels_and_test(folder, 10)
    return folder


def honest_gzip(folder):
    """The header says the gigabyte that there is."""
    begin, count = digits_of(1100)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip_of(begin, 1100))
    labels_and_test(folder, count)
    return folder


def broken_gzip(folder):
    """As much as may be packed, and a checksum that is wrong at the end."""
    begin, count = digits_of(1000)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip_of(begin, 1000)[:-8] + bytes(8))
    labels_and_test(folder, count)
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
    """The array is 784 bytes, and the entry has a gigabyte."""
    entries = {"x_train.npy": packed(npy((1, 28, 28)), 1100)}
    entries |= {f"{name}.npy": packed(npy((1,), content=b"\0"), 0) for name in ("x_test", "y_train", "y_test")}
    (folder / "data.npz").write_bytes(zip_of(entries))
    return folder / "data.npz"


def honest_npz(folder):
    entries = {
        "x_train.npy": packed(npy((1100, 1024, 1024)), 1100),
        "y_train.npy": packed(npy((1100,), content=bytes(1100)), 0),
        "x_test.npy": packed(npy((1, 1024, 1024)), 1),
        "y_test.npy": packed(npy((1,), content=b"\0"), 0),
    }
    (folder / "data.npz").write_bytes(zip_of(entries))
    return folder / "data.npz"


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


# Reads paths, a line each; each is loaded in a child of its own, and what that cost is printed.
LOADER = """
import os, resource, sys
from keras_vit_edu import datasets

use = lambda: resource.getrusage(resource.RUSAGE_SELF)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        before, lines = use(), "loaded"
        try:
            datasets.load_data(line.rstrip())
        except ValueError as error:
            lines = str(error).count(chr(10))
        after = use()
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(lines, after.ru_maxrss - before.ru_maxrss, seconds, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print("it ended", 0, 0, flush=True)
"""


@pytest.fixture(scope="module")
def loader():
    with subprocess.Popen(
        [sys.executable, "-c", LOADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as it:
        yield it


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
@pytest.mark.parametrize(
    "make",
    [long_gzip, honest_gzip, broken_gzip, endless_name, empty_members, long_npz, honest_npz, many_names, long_csv],
)
def test_refusing_costs_at_most_500_mb_and_5_s(tmp_path, make, loader):
    print(make(tmp_path), file=loader.stdin, flush=True)
    lines, kilobytes, seconds = loader.stdout.readline().split()
    assert lines == "0"
    assert int(kilobytes) <= 500_000
    assert float(seconds) <= 5


def test_the_large_files_are_sound(tmp_path):
    """What is refused above is refused for its size, not for how it is packed."""
    begin = npy((3, 1024, 1024))
    (tmp_path / "a.npz").write_bytes(zip_of({"a.npy": packed(begin, 3)}))
    assert not np.load(tmp_path / "a.npz")["a"].any()
    assert gzip.decompress(gzip_of(begin, 3)) == begin + 3 * MEGABYTE


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
    with pytest.raises(ValueError, match=r"There is no|Every class needs"):
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
