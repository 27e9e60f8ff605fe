"""`keras-vit-edu classify`: the verb with a tiny model, and how many drawn digits the default preset reads."""

import csv
import json
import re
import sys

import keras
import numpy as np
import pytest
from PIL import Image, ImageDraw

from keras_vit_edu import cli, datasets, training
from keras_vit_edu._install import install_command
from keras_vit_edu.cli.classify import DIGIT_READER
from keras_vit_edu.models.preset import Preset
from tests.drawings import FONTS, printed, written
from tests.support import vit_classifier


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model with random weights, large enough to be sure of something, and the preset folder with it."""
    keras.utils.set_random_seed(1)
    model = vit_classifier(projection_dim=8, num_layers=1, key_dim=4, head="mean", head_units=(), name="tiny")
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model.save_to_preset(folder)
    return model, folder


@pytest.fixture(autouse=True)
def _pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(written(5, seed=1)).save("five.png")
    Image.fromarray(255 - printed(8, "DejaVuSerif")).save("eight.jpg")
    Image.new("L", (100, 100), 200).save("blank.png")
    (tmp_path / "text.png").write_text("no image")


@pytest.fixture
def classify(tiny):
    """`keras-vit-edu classify --preset TINY ...` in this process; the exit status."""
    return lambda *arguments: cli.run(["classify", "--preset", str(tiny[1]), *arguments])


def expected(model, file):
    """The softmax of the logits, once, by Keras."""
    digit = datasets.digit_from_photo(np.asarray(Image.open(file)))
    return keras.ops.convert_to_numpy(keras.ops.softmax(model(digit[None], training=False)))[0]


@pytest.mark.lowest
@pytest.mark.quick
def test_each_file_gets_a_line_with_its_most_probable_classes(classify, tiny, capsys):
    assert classify("five.png", "eight.jpg") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line, file in zip(lines, ("five.png", "eight.jpg"), strict=True):
        shares = expected(tiny[0], file)
        best = np.argsort(-shares)[:3]
        assert line == f"{file}: " + ", ".join(f"{digit} ({shares[digit]:.1%})" for digit in best)


@pytest.mark.lowest
@pytest.mark.quick
def test_json_holds_the_softmax_of_the_logits(classify, tiny, capsys):
    assert classify("eight.jpg", "--json", "--top", "10") == 0
    [result] = json.loads(capsys.readouterr().out)
    assert result["file"] == "eight.jpg"
    found = {entry["class"]: entry["probability"] for entry in result["classes"]}
    assert sum(found.values()) == pytest.approx(1)
    np.testing.assert_allclose([found[str(digit)] for digit in range(10)], expected(tiny[0], "eight.jpg"), atol=1e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.any_backend
@pytest.mark.lowest
def test_top(classify, capsys):
    for top, count in (("1", 1), ("10", 10), ("99", 10)):
        assert classify("five.png", "--top", top, "--json") == 0
        assert len(json.loads(capsys.readouterr().out)[0]["classes"]) == count


@pytest.mark.any_backend
def test_bad_files_among_good_ones_are_reported_on_their_own(classify, capsys):
    files = ["text.png", "five.png", "nowhere.png", "blank.png", "eight.jpg"]
    assert classify(*files) == 1
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ["five.png", "eight.jpg"]
    complaints = shown.err.splitlines()
    assert len(complaints) == 3
    for complaint, file, reason in zip(
        complaints,
        ["text.png", "nowhere.png", "blank.png"],
        ["no image file that Pillow knows", "There is no such file", "no ink on the paper"],
        strict=True,
    ):
        assert re.fullmatch(rf"keras-vit-edu: {re.escape(file)}: .*{reason}.*\. Received: .*", complaint)
    assert classify(*files, "--json") == 1
    results = json.loads(capsys.readouterr().out)
    assert [result["file"] for result in results] == files
    assert ["error" in result for result in results] == [True, False, True, True, False]


@pytest.mark.any_backend
def test_a_folder_stands_for_its_files(classify, tmp_path, capsys):
    (tmp_path / "pages" / "more").mkdir(parents=True)
    Image.open("five.png").save("pages/b.png")
    Image.open("eight.jpg").save("pages/more/a.png")
    (tmp_path / "pages" / ".hidden").write_text("no image")
    assert classify("five.png", "pages", "--top", "1") == 0
    lines = capsys.readouterr().out.replace("\\", "/").splitlines()
    assert [line.split(":")[0] for line in lines] == ["five.png", "pages/b.png", "pages/more/a.png"]


@pytest.fixture
def flower():
    """Petals around a middle, among blades of grass."""
    rng = np.random.default_rng(0)
    grass = Image.new("RGB", (400, 300), (30, 60, 20))
    pen = ImageDraw.Draw(grass)
    for x, y, lean, light in rng.integers((0, 0, -30, 40), (400, 300, 30, 250), (150, 4)).tolist():
        pen.line([x, y, x + lean, y - 80], fill=(light * 3 // 4, light, light // 3), width=6)
    for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
        x, y = 200 + 70 * np.cos(angle), 150 + 70 * np.sin(angle)
        pen.ellipse([x - 34, y - 34, x + 34, y + 34], fill=(240, 230, 250))
    pen.ellipse([170, 120, 230, 180], fill=(250, 200, 40))
    grass.save("flower.png")
    return "flower.png"


@pytest.mark.any_backend
@pytest.mark.lowest
def test_what_is_no_digit_is_said_to_be_none_and_the_rest_goes_on(classify, flower, capsys):
    assert datasets.digit_from_photo(datasets.read_image(flower)).shape == (28, 28, 1)  # something is found in it
    assert classify(flower, "five.png") == 1
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ["five.png"]
    (line,) = shown.err.splitlines()
    assert line.startswith(
        "keras-vit-edu: flower.png: This does not look like a digit on paper (for a photograph choose"
    )
    assert ". Received: a picture where " in line


@pytest.mark.any_backend
def test_no_check_takes_it_all_the_same(classify, flower, capsys):
    assert classify(flower, "--no-check") == 0
    assert capsys.readouterr().out.startswith("flower.png: ")


@pytest.mark.any_backend
@pytest.mark.parametrize("file", ["blank.png", "flower.png"])
def test_whatever_shows_no_digit_names_the_preset(file, classify, flower, capsys):
    assert classify(file) == 1
    assert "for a photograph choose another --preset" in capsys.readouterr().err


@pytest.mark.any_backend
def test_json_csv_picture_and_threshold_together(classify, tiny, tmp_path, capsys):
    sure = expected(tiny[0], "five.png").max()
    arguments = ["--json", "--csv", "out/o.csv", "--picture", "out/p.png", "--threshold", str(min(sure + 0.01, 1))]
    assert classify("five.png", "text.png", *arguments) == 1
    five, text = json.loads(capsys.readouterr().out)
    assert five["class"] == "unknown"
    assert five["classes"][0]["probability"] == pytest.approx(sure, abs=1e-5)
    with open("out/o.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["class"]) for row in rows] == [("five.png", "unknown"), ("text.png", "")]
    assert float(rows[0]["probability_1"]) == five["classes"][0]["probability"]
    assert rows[1]["error"] == text["error"]
    assert (tmp_path / "out" / "p.png").is_file()


@pytest.mark.any_backend
def test_predict_is_classify(classify, tiny, capsys):
    assert classify("five.png") == 0
    line = capsys.readouterr().out
    assert cli.run(["predict", "five.png", "--preset", str(tiny[1])]) == 0
    assert capsys.readouterr().out == line


@pytest.mark.any_backend
def test_a_picture_of_it(classify, capsys, tmp_path):
    assert classify("five.png", "text.png", "eight.jpg", "--picture", "out/sheet.png") == 1
    assert capsys.readouterr().out.splitlines()[-1].replace("\\", "/") == "out/sheet.png"
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.height > 300


@pytest.mark.any_backend
def test_without_a_digit_there_is_no_picture(classify, tmp_path):
    assert classify("blank.png", "--picture", "sheet.png") == 1
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.any_backend
def test_a_run_folder_is_a_model_too(tiny, tmp_path, capsys):
    sample = datasets.load("mnist-sample")
    np.savez(
        "few.npz",
        x_train=sample.x_train[:64],
        y_train=sample.y_train[:64],
        x_test=sample.x_test[:9],
        y_test=sample.y_test[:9],
    )
    train = ["train", "--preset", str(tiny[1]), "--data", "few.npz", "--epochs", "1", "--quiet"]
    assert cli.run([*train, "--run", "run"]) == 0
    assert cli.run(["classify", "--preset", "run", "five.png"]) == 0
    assert "five.png: " in capsys.readouterr().out
    assert cli.run([*train, "--dataset", "fashion-mnist", "--run", "clothes"]) == 0
    assert cli.run(["classify", "--preset", "clothes", "five.png"]) == 2
    assert "Received: clothes, images of shape (28, 28, 1), 10 classes: T-shirt/top" in capsys.readouterr().err


@pytest.mark.any_backend
@pytest.mark.lowest
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Missing argument 'FILE...'"),
        (["five.png", "--top", "0"], "'--top'"),
        (["five.png", "--picture", "sheet.txt"], "`--picture` must name a PNG file. Received: sheet.txt"),
        (["five.png", "--csv", "five.png"], "`--csv` must name a CSV file. Received: five.png"),
        (["five.png", "--csv", "five.png/out.csv"], "The file cannot be written: "),
        (["five.png", "--picture", "five.png/out.png"], "The file cannot be written: "),
        (["five.png", "--threshold", "1.5"], "'--threshold'"),
        (["five.png", "--threshold", "nan"], "--threshold"),
        (["empty"], "The folder holds no file. Received: empty"),
        (["five.png", "--preset", "vit_mnist_hybird"], "Did you mean vit_mnist_hybrid"),
        (["five.png", "--preset", "cnn"], "There is no preset 'cnn'"),
        (["five.png", "--preset", "."], "The folder . holds no preset"),
        (["five.png", "--preset", "vit_mnist_d16"], "without weights"),
        (["five.png", "--backend", "theano"], "'--backend'"),
    ],
)
def test_a_mistake_gives_one_line_and_2(arguments, complaint, classify, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert classify(*arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert complaint in line


@pytest.mark.any_backend
@pytest.mark.lowest
def test_an_empty_folder_stops_nothing(classify, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert classify("empty", "five.png", "--csv", "out.csv") == 1
    said = capsys.readouterr()
    assert "empty: The folder holds no file" in said.err
    assert "five.png: " in said.out
    assert (tmp_path / "out.csv").read_text().count("The folder holds no file") == 1


@pytest.mark.any_backend
@pytest.mark.lowest
def test_a_model_of_something_else_is_refused(tmp_path, capsys):
    vit_classifier(12, num_layers=1, name="twelve").save_to_preset("twelve")
    assert cli.run(["classify", "five.png", "--preset", "twelve"]) == 2
    assert "12 classes: without names" in capsys.readouterr().err
    vit_classifier(image_shape=(14, 14, 1), num_layers=1, name="half").save_to_preset("half")
    assert cli.run(["classify", "five.png", "--preset", "half"]) == 2
    assert "images of shape (14, 14, 1)" in capsys.readouterr().err


@pytest.mark.any_backend
@pytest.mark.lowest
def test_without_pillow_one_line_names_the_extra(classify, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert classify("five.png") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert install_command("cli") in line


@pytest.fixture(scope="module")
def digit_reader():
    if not Preset.presets[DIGIT_READER].get("weights_sha256"):
        pytest.skip(f"{DIGIT_READER} has no weights yet")
    return Preset.from_preset(DIGIT_READER)


def share_read_rightly(model, drawings):
    digits = np.stack([datasets.digit_from_photo(picture) for picture, _ in drawings])
    labels = [label for _, label in drawings]
    return float(np.mean(training.probabilities(model, digits).argmax(axis=1) == labels))


@pytest.mark.any_backend  # the logits of presets are compared with recorded ones on each
def test_the_default_preset_reads_print(digit_reader):
    drawings = [(printed(digit, font, 60), digit) for font in FONTS[::2] for digit in range(10)]
    assert share_read_rightly(digit_reader, drawings) >= 0.95


@pytest.mark.any_backend
@pytest.mark.parametrize("thickness", [0.02, 0.16])
def test_the_default_preset_reads_handwriting(thickness, digit_reader):
    drawings = [(written(digit, seed, 60, thickness), digit) for seed in range(5) for digit in range(10)]
    assert share_read_rightly(digit_reader, drawings) >= 0.9


@pytest.mark.any_backend
def test_the_default_preset_reads_mnist_from_files(digit_reader, tmp_path):
    """Written as JPEG files, enlarged, dark on light; at most 1 of 100 more goes wrong than of the arrays."""
    sample = datasets.load("mnist-sample")
    images, labels = sample.x_test[:100], sample.y_test[:100]
    drawings = []
    for image, label in zip(images, labels, strict=True):
        large = Image.fromarray(255 - image[..., 0]).resize((140, 140), Image.Resampling.BICUBIC)
        large.save(tmp_path / "digit.jpg")
        drawings.append((datasets.read_image(tmp_path / "digit.jpg"), label))
    directly = training.evaluate(digit_reader, images, labels, sample.class_names).accuracy
    assert share_read_rightly(digit_reader, drawings) >= directly - 0.01
