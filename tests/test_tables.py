"""Tables on terminals of several widths."""

import io

import pytest
from rich.console import Console

from keras_vit_edu._tables import folding_table

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]

NAME = "deit_small_distilled_patch16_224_imagenet"
ROWS = [(NAME, "no attention maps, used unchanged", "195,198,516"), ("vgg_11", "a plain one", "9,220,480")]


def shown(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)
    console.print(folding_table(("name", "what", "parameters"), ROWS, width, whole=("name", "parameters")))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_names_and_numbers_stay_whole(width):
    text = shown(width)
    for whole in (NAME, "195,198,516", "vgg_11"):
        assert whole in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [30, 45])
def test_a_very_narrow_terminal_folds_names_but_loses_no_letter(width):
    text = shown(width)
    assert "…" not in text
    cells = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert NAME in "".join(cells)
