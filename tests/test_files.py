"""Files of a stranger: bounded, refused where they are no files, and safe to print."""

import json
import os

import pytest

from keras_vit_edu._files import parse_json, printable, read_bounded, read_json, write_atomically


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


def test_control_characters_are_escaped_and_letters_of_any_script_kept():
    assert printable("a\x1b[31m\r\n\0b\u202ec\u2066\x9b") == "a\\x1b[31m\\r\\n\\x00b\\u202ec\\u2066\\x9b"
    kept = "Käse 猫 می‌خواهم 👩‍🔬 non\u00a0breaking"
    assert printable(kept) == kept
