import importlib.util
import io

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu.datasets import ImageDataset
from keras_vit_edu.training import Recipe, RunFolder, draw_augmentation
from keras_vit_edu.training.pictures import draw_layers

pytestmark = pytest.mark.lowest


@pytest.mark.parametrize(
    ("has_pydot", "has_dot", "named"),
    [(False, True, {"pydot"}), (True, False, {"`dot`"}), (False, False, {"pydot", "`dot`"})],
)
def test_only_missing_programs_are_named(tmp_path, monkeypatch, has_pydot, has_dot, named):
    (tmp_path / "bin").mkdir()
    if has_dot:
        (tmp_path / "bin" / "dot").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: object() if has_pydot and name == "pydot" else None if name == "pydot" else find_spec(name),
    )
    console = Console(file=io.StringIO(), width=400, markup=False)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with RunFolder(tmp_path / "run") as run:
        draw_layers(model, run, console)
        (line,) = console.file.getvalue().splitlines()
        assert line.startswith("no model.png: it needs ")
        assert {name for name in ("pydot", "`dot`") if name in line} == named
        assert ("pip install" in line) == (not has_pydot)
        assert run.record["notes"] == [line]


def test_an_augmentation_is_drawn_into_a_new_folder(tmp_path):
    images, labels = np.zeros((4, 8, 8, 1), "uint8"), np.array([0, 1, 0, 1])
    dataset = ImageDataset("two", "memory", images, labels, images, labels, ("cat", "dog"))
    file = draw_augmentation(dataset, Recipe(augmentation={"mixup": 0.5, "shift": 1}), tmp_path / "sheets")
    assert file == tmp_path / "sheets" / "augmentation.png"
    assert file.stat().st_size > 1000
    with pytest.raises(ValueError, match="The recipe program-p has no augmentation to show"):
        draw_augmentation(dataset, Recipe(), tmp_path)
