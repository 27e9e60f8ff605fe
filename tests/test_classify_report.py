import csv
from pathlib import Path

import pytest

from keras_vit_edu.classify_report import Classified, as_json, as_line, write_csv

pytestmark = pytest.mark.any_backend

SURE = Classified(Path("photos/a.png"), (("cat", 0.75), ("dog", 0.25)))
UNSURE = Classified(Path("b.png"), (("dog", 0.5), ("cat", 0.3), ("=owl", 0.2)))
FAILED = Classified(Path("c.png"), error="There is no such file. Received: c.png")


def rows(file):
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_row_for_each_file_with_its_classes_by_rank(tmp_path):
    write_csv([SURE, UNSURE, FAILED], 0.6, tmp_path / "new" / "out.csv")
    first, second, third = rows(tmp_path / "new" / "out.csv")
    names = ["class_1", "probability_1", "class_2", "probability_2", "class_3", "probability_3"]
    assert list(first) == ["file", "class", "probability", *names, "error"]
    assert [first[name] for name in ("class", "probability", *names)] == [
        "cat", "0.75", "cat", "0.75", "dog", "0.25", "", "",
    ]  # fmt: skip
    assert (second["class"], second["class_1"], second["probability"]) == ("unknown", "dog", "0.5")
    assert third == {**dict.fromkeys(first, ""), "file": "c.png", "error": FAILED.error}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_cell_begins_a_formula(start, tmp_path):
    bad = Classified(Path(f"{start}cmd"), ((f"{start}1+1", 1.0),))
    write_csv([bad, Classified(Path("a"), error=f"{start}2")], 0.0, tmp_path / "out.csv")
    for row in rows(tmp_path / "out.csv"):
        for name, cell in row.items():
            assert not cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")), name
    assert rows(tmp_path / "out.csv")[0]["file"].startswith("./")  # still a path of the same file


def test_texts_are_quoted_so_that_a_reader_that_parts_at_semicolons_sees_one_cell(tmp_path):
    write_csv([Classified(Path("a;=1+1.png"), (("cat", 1.0),))], 0.0, tmp_path / "out.csv")
    line = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1]
    assert next(csv.reader([line], delimiter=";"))[0].startswith("a;=1+1.png")


def test_control_characters_and_bytes_that_are_no_letters_are_escaped(tmp_path):
    bad = Classified(Path("a\x1b[2J\nb\udcfc.png"), (("c\u202e", 1.0),))
    write_csv([bad], 0.0, tmp_path / "out.csv")
    (row,) = rows(tmp_path / "out.csv")
    assert (row["file"], row["class"]) == ("a\\x1b[2J\\nb\\udcfc.png", "c\\u202e")
    assert as_line(bad, 0.0) == "a\\x1b[2J\\nb\\udcfc.png: c\\u202e (100.0%)"


@pytest.mark.parametrize(("threshold", "named"), [(0.0, "dog"), (0.5, "dog"), (0.51, "unknown"), (1.0, "unknown")])
def test_below_the_threshold_a_class_is_unknown(threshold, named):
    assert UNSURE.named(threshold) == named
    assert as_json(UNSURE, threshold)["class"] == named
    assert as_line(UNSURE, threshold).startswith("b.png: unknown, at best dog (50.0%)") == (named == "unknown")


def test_a_class_that_is_called_unknown():
    assert as_line(Classified(Path("a"), (("unknown", 0.9),)), 0.5) == "a: unknown (90.0%)"
