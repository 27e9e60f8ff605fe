"""Names with control characters, and numbers that are none, reach no terminal, report or picture as they are."""

import io
import json

import keras
import matplotlib.text
import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from keras_vit_edu import cli, plots, training
from keras_vit_edu._printing import Console, print_json
from keras_vit_edu.models import ViTBackbone
from keras_vit_edu.parity.report import Report
from keras_vit_edu.parity.results import Results
from keras_vit_edu.transfer import Preprocessing, TransferClassifier
from tests.support import opened_vit

pytestmark = pytest.mark.any_backend
BAD = "c\x1b[31mat\n\0\u202e"
SHOWN = "c\\x1b[31mat\\n\\x00\\u202e"


@pytest.fixture
def classifier():
    sizes = {"num_layers": 1, "num_heads": 2, "key_dim": 3, "mlp_dim": 8, "num_prefix_tokens": 1}
    model = opened_vit(ViTBackbone((16, 16, 3), 8, 6, **sizes), 2)
    return TransferClassifier(model, Preprocessing(16, scale=1 / 255), [BAD, "dog"])


def test_the_console_escapes_texts_and_cells():
    console = Console(file=io.StringIO(), width=200, soft_wrap=True)
    table = Table("a\x1bb")
    table.add_row(BAD.replace("\n", ""))
    console.print("one [red]\x1b[31m line :cat:\nanother\u202e")
    console.print(table)
    printed = console.file.getvalue()
    assert printed.startswith("one [red]\\x1b[31m line :cat:\nanother\\u202e\n")
    assert "a\\x1bb" in printed
    assert not set(printed) & set("\x1b\0\u202e")


def test_classify_escapes_names_and_json_keeps_them(classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier.save("a")
    name = "photo\x1b[2J\n.png"
    Image.new("RGB", (40, 30), "red").save(name)
    assert cli.run(["classify", name, "gone\x1b\n.png", "--preset", "a"]) == 1
    out, err = capsys.readouterr()
    assert SHOWN in out
    assert "photo\\x1b[2J\\n.png" in out
    assert out.count("\n") == 1
    assert not set(out + err) & set("\x1b\0\u202e")
    assert cli.run(["classify", name, "--preset", "a", "--json"]) == 0
    out = capsys.readouterr().out
    assert {entry["class"] for entry in json.loads(out)[0]["classes"]} == {BAD, "dog"}
    assert not set(out) & set("\x1b\0\u202e")


def test_evaluate_escapes_names_everywhere(classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = BAD.replace("\0", "")
    classifier.class_names = (name, "dog")
    classifier.save("a")
    for folder in (name, "dog"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (40, 30), (i * 40, 90, 10)).save(tmp_path / "photos" / folder / f"{i}\x1b\n.png")
    drawn = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    assert cli.run(["evaluate", "a", "photos"]) == 0
    out, err = capsys.readouterr()
    assert not set(out + err) & set("\x1b\0\u202e")
    texts = [text.get_text() for figure in drawn for text in figure.findobj(matplotlib.text.Text)]
    assert any("c\\x1b[31mat\\n" in text for text in texts)
    assert not set("".join(texts)) & set("\x1b\0\u202e")


def test_the_parity_page_escapes_what_results_say(tmp_path):
    environment = {"device": f"cpu {BAD}", "versions": {BAD: BAD}}
    results = Results("jax", tmp_path / "jax", "quick", "0", False, environment=environment, broken=None)
    page = Report("quick", [results], []).to_html()
    assert SHOWN in page
    assert not set(page) & set("\x1b\0\u202e")


def test_logits_that_are_not_finite_are_an_error(classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.set_weights([np.full((2, 2), 1e38, "float32"), np.zeros(2, "float32")])
    with pytest.raises(ValueError, match="Logits must be finite"):
        training.probabilities(model, np.full((1, 2), 1e3, "float32"))
    logits = classifier.model.get_layer("logits")
    logits.set_weights([np.full((6, 2), 3e38, "float32"), np.full(2, 3e38, "float32")])
    classifier.save("a")
    Image.new("RGB", (40, 30), "red").save("red.png")
    for more in ([], ["--json"]):
        status = cli.run(["classify", "red.png", "--preset", "a", *more])
        out, err = capsys.readouterr()
        assert status in (1, 2)
        assert "finite" in err
        assert "nan" not in out.lower()


def test_json_holds_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        print_json({"a": float("nan")})
