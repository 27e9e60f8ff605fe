import importlib.util
import io

import keras
import pytest
from rich.console import Console

from keras_vit_edu.training import RunFolder
from keras_vit_edu.training.pictures import draw_layers


@pytest.mark.parametrize(
    ("has_pydot", "has_dot", "named"),
    [(False, True, {"pydot"}), (True, False, {"`dot`"}), (False, False, {"pydot", "`dot`"})],
)
def test_what_is_missing_is_named_and_nothing_else(tmp_path, monkeypatch, has_pydot, has_dot, named):
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
