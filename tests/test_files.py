"""Files of a stranger: bounded, refused where they are no files, and safe to print."""

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_vit_edu._files import (
    open_zip,
    parse_json,
    printable,
    read_bounded,
    read_json,
    replace_together,
    write_atomically,
)
from keras_vit_edu.models.keras_file import load_keras_file
from keras_vit_edu.parity.arrays import load_arrays
from keras_vit_edu.transfer import TransferClassifier

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


def test_a_file_is_read_up_to_its_limit(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"x" * 10)
    assert read_bounded(file, 10) == b"x" * 10
    with pytest.raises(ValueError, match="at most 9 bytes"):
        read_bounded(file, 9)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_regular_file_is_refused(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(ValueError, match=r"regular file|cannot be opened"):
        read_bounded(tmp_path / "a", 10)


@pytest.mark.parametrize("path", ["/dev/zero", "/nowhere/at/all", "a\0b", "/proc/self/mem"])
def test_devices_and_paths_that_lead_nowhere_are_refused(path):
    with pytest.raises(ValueError, match="Received"):
        read_bounded(path, 10)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "NaN", "[-Infinity]", "1e999", "{", "\ud800".encode("utf-8", "surrogatepass"), "1" * 5000]
)
def test_what_is_no_json_is_a_value_error(text, tmp_path):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_json_is_read(tmp_path):
    write_atomically(tmp_path / "a.json", json.dumps({"a": [1, 2.5, "ç"]}).encode())
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, "ç"]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_as_windows_writes_it_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "ç"}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"a": "ç"}


def test_a_link_is_not_followed_in_writing(tmp_path):
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / "a.json.0a1b2c3d.new").symlink_to(other)
    write_atomically(tmp_path / "a.json", b"{}")
    assert other.read_text() == "precious"
    assert (tmp_path / "a.json").read_text() == "{}"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "other"]


def test_a_zip_is_read(tmp_path):
    data = np.random.default_rng(0).bytes(3_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", data)
        archive.writestr("b", data, zipfile.ZIP_DEFLATED)
    with open(tmp_path / "a.zip", "rb") as stream, open_zip(stream) as archive:
        assert archive.read("a") == archive.read("b") == data


@pytest.mark.parametrize("read", [load_keras_file, TransferClassifier.load, load_arrays])
def test_a_zip_with_a_long_table_of_contents_takes_little_memory(read, tmp_path):
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    contents = entry * 100_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(contents), 4, 0)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + contents + end)
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, zipfile.BadZipFile), match="table of contents is longer than 1,048,576 bytes"):
            read(tmp_path / "a.zip")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_control_characters_are_escaped_and_letters_of_any_script_kept():
    assert printable("a\x1b[31m\r\n\0b\u202ec\u2066\x9b") == "a\\x1b[31m\\r\\n\\x00b\\u202ec\\u2066\\x9b"
    kept = "Käse 猫 می‌خواهم 👩‍🔬 non\u00a0breaking"
    assert printable(kept) == kept


# Several writers, and writers that were killed. -----------------------------------------------------------------------

WRITE = """
import sys
from pathlib import Path
from keras_vit_edu._files import replacing

with replacing(Path(sys.argv[1])) as stream:
    stream.write(sys.argv[2].encode() * 1000)
    print("written", flush=True)
    sys.stdin.readline()
"""


def start_writing(file, letter):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(file), letter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "written\n"
    return process


def test_two_processes_that_write_one_file_do_not_disturb_each_other(tmp_path):
    file = tmp_path / "a.json"
    first, second = start_writing(file, "a"), start_writing(file, "b")
    for process, letter in ((first, "a"), (second, "b")):
        process.communicate("go on\n")
        assert process.returncode == 0
        assert file.read_text() == letter * 1000
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_a_killed_process_left_is_removed_by_the_next_write_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    killed, writing = start_writing(file, "a"), start_writing(file, "b")
    killed.kill()
    killed.communicate()
    others = ["a.json.bak", "a.json.new", "a.json.new.txt", "b.json.0a1b2c3d.new", "xa.json.new"]
    for name in others:
        (tmp_path / name).write_text("precious")
    write_atomically(file, b"c")
    left = sorted(set(os.listdir(tmp_path)) - {"a.json", *others})
    assert len(left) == 1  # of the process that is still writing
    assert (tmp_path / left[0]).stat().st_size in (0, 1000)  # it may not have left the process yet
    writing.communicate("go on\n")
    assert file.read_text() == "b" * 1000
    assert sorted(os.listdir(tmp_path)) == sorted(["a.json", *others])


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path):
    file = tmp_path / "a"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda letter: write_atomically(file, letter * 10_000), [b"a", b"b", b"c", b"d"] * 10))
    assert len(set(file.read_bytes())) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_a_pipe_of_such_a_name_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / "a.0a1b2c3d.new")
    write_atomically(tmp_path / "a", b"a")
    assert (tmp_path / "a").read_bytes() == b"a"


def test_files_that_are_replaced_together_are_all_there_or_none(tmp_path, monkeypatch):
    replace_together(tmp_path, {"weights": b"1", "manifest": b"1"})
    calls = []

    def full_the_second_time(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_the_second_time)
    with pytest.raises(OSError, match="No space left"):
        replace_together(tmp_path, {"weights": b"2", "manifest": b"2"}, remove_first="manifest")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"weights": b"1", "manifest": b"1"}


def test_files_are_replaced_in_order_and_what_is_removed_first_is_gone_before(tmp_path, monkeypatch):
    replace_together(tmp_path, {"weights": b"1", "manifest": b"1"})
    seen, replace = [], os.replace

    def watched(source, target):
        seen.append((os.path.basename(target), (tmp_path / "manifest").exists()))
        replace(source, target)

    monkeypatch.setattr("os.replace", watched)
    replace_together(tmp_path, {"weights": b"2", "manifest": b"2"}, remove_first="manifest")
    assert seen == [("weights", False), ("manifest", False)]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"weights": b"2", "manifest": b"2"}
