"""`keras-vit-edu classify` and `evaluate` on photographs, and `presets --hub`."""

import json
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit_edu import cli, datasets, training
from keras_vit_edu._install import install_command
from keras_vit_edu.load_classifier import is_of_hub
from keras_vit_edu.models import CNNClassifier, ViTBackbone
from keras_vit_edu.transfer import Preprocessing, TransferClassifier
from tests.support import opened_vit, random_weights
from tests.transfer.hub_cache import fill_cache, random_classifier

DEIT_TINY = "deit_tiny_distilled_patch16_224_imagenet"
NAMES = ["cat", "dog", "Löwe$"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of three animals with random weights, and the zip that it is saved in."""
    backbone = ViTBackbone((32, 32, 3), 8, 12, num_layers=1, num_heads=3, key_dim=4, mlp_dim=24, num_prefix_tokens=1)
    model = opened_vit(backbone, len(NAMES))
    random_weights(model, scale=0.5)
    ours = TransferClassifier(model, Preprocessing(32, scale=1 / 127.5, offset=-1.0), NAMES)
    file = tmp_path_factory.mktemp("saved") / "animals.zip"
    ours.save(file)
    return ours, file


@pytest.fixture(autouse=True)
def photographs(tmp_path, monkeypatch):
    """Photographs in the working directory, one subfolder per class; as arrays, by path."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {}
    for name in ("photos/dog/a.png", "photos/dog/b.png", "photos/cat/c.png", "photos/cat/d.png", "photos/Löwe$/e.png"):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        color = rng.integers(0, 256, 3)
        arrays[name] = np.uint8(np.clip(rng.normal(color, 60, (400 + len(arrays), 700, 3)), 0, 255))
        Image.fromarray(arrays[name]).save(name)
    with open("photos/dog/text.jpg", "w") as file:
        file.write("no image")
    return arrays


# Classify. ------------------------------------------------------------------------------------------------------------


def test_each_photograph_gets_a_line(classifier, photographs, capsys):
    files = list(photographs)[:2]
    assert cli.run(["classify", *files, "--preset", str(classifier[1])]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = [classifier[0].predict(photographs[file])[0] for file in files]
    assert lines == [
        f"{file}: {', '.join(f'{name} ({p:.1%})' for name, p in best)}"
        for file, best in zip(files, expected, strict=True)
    ]


@pytest.mark.any_backend
def test_json_and_top_and_a_folder(classifier, photographs, capsys):
    assert cli.run(["classify", "photos", "--preset", str(classifier[1]), "--top", "2", "--json"]) == 1
    shown = capsys.readouterr()
    results = json.loads(shown.out)
    assert [result["file"].replace(os.sep, "/") for result in results] == sorted([*photographs, "photos/dog/text.jpg"])
    for result in results:
        if "error" in result:
            assert "no image file" in result["error"]
            continue
        expected = classifier[0].predict(photographs[result["file"].replace(os.sep, "/")], top=2)[0]
        assert [entry["class"] for entry in result["classes"]] == [name for name, _ in expected]
        found = [entry["probability"] for entry in result["classes"]]
        np.testing.assert_allclose(found, [p for _, p in expected], atol=1e-6)
    (complaint,) = shown.err.splitlines()
    assert re.fullmatch(r"keras-vit-edu: photos.dog.text\.jpg: .*no image file.*", complaint)


@pytest.mark.any_backend
def test_bad_files_are_reported_and_the_rest_goes_on(classifier, capsys):
    files = ["nowhere.png", "photos/dog/a.png", "photos/dog/text.jpg", "photos/dog/b.png"]
    assert cli.run(["classify", *files, "--preset", str(classifier[1])]) == 1
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ["photos/dog/a.png", "photos/dog/b.png"]
    assert [line.split(":")[1].strip() for line in shown.err.splitlines()] == ["nowhere.png", "photos/dog/text.jpg"]


@pytest.mark.any_backend
def test_a_sheet_shows_photographs_and_what_the_model_saw(classifier, photographs, monkeypatch, capsys):
    from keras_vit_edu import plots

    drawn = []
    monkeypatch.setattr(plots, "classified_photographs", lambda *arguments: drawn.append(arguments))
    arguments = ["--preset", str(classifier[1]), "--picture", "out/sheet.png", "--csv", "out/o.csv", "--top", "2"]
    assert cli.run(["classify", "photos/dog", *arguments]) == 1
    ((names, given, seen, best, file),) = drawn
    assert names == ("a.png", "b.png")
    assert str(file) == os.path.join("out", "sheet.png")
    for image, view, classes, path in zip(given, seen, best, list(photographs)[:2], strict=True):
        assert image.shape == (200, 350, 3)  # every 2 by 2 pixels of 400 x 700 made one
        expected = classifier[0].preprocess(photographs[path])[0]  # pixels / 127.5 - 1
        np.testing.assert_allclose(view, (expected + 1) * 127.5, atol=0.51)
        assert [name for name, _ in classes] == [name for name, _ in classifier[0].predict(photographs[path], top=2)[0]]


@pytest.mark.any_backend
def test_a_sheet_of_photographs_is_drawn(classifier, tmp_path, capsys):
    assert cli.run(["classify", "photos/dog/a.png", "--preset", str(classifier[1]), "--picture", "sheet.png"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sheet.png"
    with Image.open(tmp_path / "sheet.png") as image:
        assert min(image.size) > 200


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--preset", "SAVED", "--picture", "sheet.jpg"], "`--picture` must name a PNG file. Received: sheet.jpg"),
        (["--preset", "SAVED", "--top", "0"], "'--top'"),
        (["--preset", "photos/dog"], "The folder photos/dog holds no preset"),
        (
            ["--preset", "damaged.zip"],
            "An artifact is a folder or a zip, and this file is not a zip. Received: damaged.zip",
        ),
        (["--fallback"], "--fallback works only with a preset of keras_hub. Received: --preset vit_mnist_hybrid"),
    ],
)
def test_a_mistake_gives_one_line_and_2(arguments, complaint, classifier, capsys):
    with open("damaged.zip", "w") as file:
        file.write("no zip")
    arguments = [str(classifier[1]) if argument == "SAVED" else argument for argument in arguments]
    assert cli.run(["classify", "photos/dog/a.png", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


@pytest.mark.any_backend
def test_an_unfinished_fine_tuning_is_reported(tmp_path, capsys):
    with training.RunFolder(tmp_path / "run") as run:
        run.configure({"fine_tuning": {}})
        run.update(status="interrupted", fine_tuning={})
    classify, evaluate = ["classify", "photos/dog/a.png", "--preset", "run"], ["evaluate", "run"]
    fine_tune = ["fine-tune", "photos", "--preset", "run", "--run", "another"]
    for arguments in (classify, evaluate, [*evaluate, "photos"], fine_tune):
        assert cli.run(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "The run in run is not finished (its status is 'interrupted'). Resume it with fine-tune." in line


@pytest.mark.any_backend
def test_a_run_of_train_is_not_fine_tuned(tmp_path, capsys):
    sample = datasets.load("mnist-sample")
    x, y = sample.x_test[:32], sample.y_test[:32]
    few = datasets.ImageDataset("few", "here", x, y, x, y, sample.class_names)
    model = CNNClassifier(filters=(2,), convolutions=1, head_units=())
    with training.RunFolder(tmp_path / "digits") as run:
        training.train(model, few, run, training.Recipe(epochs=1))
    assert cli.run(["fine-tune", "photos", "--preset", "digits", "--run", "another"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "The run in digits is a run of `train`. Its model does not classify photographs." in line


@pytest.mark.any_backend
def test_a_file_name_of_other_bytes_is_shown_as_it_can_be(classifier, photographs, capsys):
    name = os.fsdecode(b"f\xfcr.png")
    shutil.copy("photos/dog/a.png", name)
    assert cli.run(["classify", name, "--preset", str(classifier[1])]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("f\\udcfcr.png: ")


@pytest.mark.any_backend
def test_several_sizes_for_a_model_that_takes_images_as_they_are(classifier, tmp_path, capsys):
    as_they_are = TransferClassifier(classifier[0].model, Preprocessing(None, scale=1 / 255), NAMES)
    as_they_are.save(tmp_path / "as-they-are.zip")
    for height in (32, 33):
        Image.new("RGB", (32, height)).save(f"{height}.png")
    assert cli.run(["classify", "32.png", "33.png", "--preset", "as-they-are.zip"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "must be of one size" in line


def test_without_keras_hub_one_line_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    for arguments in (["classify", "photos/dog/a.png", "--preset", DEIT_TINY], ["presets", "--hub"]):
        assert cli.run(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(install_command("hub"))


# Evaluate. ------------------------------------------------------------------------------------------------------------


def test_evaluate_prints_tables_and_draws(classifier, photographs, capsys, tmp_path):
    assert cli.run(["evaluate", str(classifier[1]), "photos", "--out", "report"]) == 0
    shown = capsys.readouterr()
    labels = {name: NAMES.index(name.split("/")[1]) for name in photographs}
    best = {name: classifier[0].probabilities(array)[0].argmax() for name, array in photographs.items()}
    right = np.mean([best[name] == label for name, label in labels.items()])
    error = np.sqrt(right * (1 - right) / 5)
    assert f"accuracy {right:.4f} +- {error:.4f} (standard error, 5 images, 1 skipped)" in shown.out
    assert re.search(r"cat +│ 2 ", shown.out)
    assert "dog/text.jpg: This is no image file" in shown.err
    content = json.loads((tmp_path / "report" / "evaluate.json").read_text())
    assert content["accuracy"] == right
    assert [entry["file"] for entry in content["skipped"]] == ["dog/text.jpg"]
    names = [row["class"] for row in content["per_class"]]
    for name, array in photographs.items():
        assert content["confusion"][names.index(name.split("/")[1])][names.index(NAMES[best[name]])] > 0, array.shape
    assert np.sum(content["confusion"]) == 5
    for picture in ("confusion.png", "mistakes.png"):
        with Image.open(tmp_path / "report" / picture) as image:
            assert min(image.size) > 200


@pytest.mark.any_backend
@pytest.mark.parametrize("images", [["photos"], []], ids=["photographs", "digits"])
def test_an_unwritable_report_is_an_error_before_the_work(images, classifier, tmp_path, monkeypatch, capsys):
    (tmp_path / "report").write_text("a file")
    monkeypatch.setattr(TransferClassifier, "evaluate", None)
    monkeypatch.setattr(training, "evaluate", None)
    model = str(classifier[1]) if images else "vit_mnist_hybrid"
    assert cli.run(["evaluate", model, *images, "--out", "report"]) == 2
    assert capsys.readouterr().err.endswith("--out must name a folder. Received: report, a file\n")


@pytest.mark.any_backend
def test_a_name_that_the_output_has_no_letters_for_stops_nothing(classifier, photographs, tmp_path, monkeypatch):
    os.rename("photos/dog/a.png", "猫.png")
    with open(tmp_path / "output", "w", encoding="latin-1") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert cli.run(["classify", "猫.png", "photos/dog/b.png", "--preset", str(classifier[1])]) == 0
    first, second = (tmp_path / "output").read_text("latin-1").splitlines()
    assert first.startswith(r"\u732b.png: ")
    assert second.startswith("photos/dog/b.png: ")


@pytest.mark.any_backend
def test_a_csv_is_evaluated_as_the_folder_is(classifier, photographs, capsys, tmp_path):
    rows = [f"{name},{name.split('/')[1]}" for name in photographs]
    (tmp_path / "test.csv").write_text("path,label\n" + "\n".join(rows))
    found = []
    for images in ("test.csv", "photos"):
        assert cli.run(["evaluate", str(classifier[1]), images, "--json", "--out", f"report-{images}"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["per_class"] == found[1]["per_class"]
    assert found[0]["images"] == 5
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)
    (tmp_path / "test.csv").write_text("only one column\n")
    assert cli.run(["evaluate", str(classifier[1]), "test.csv"]) == 2
    assert "has the columns `path` and `label`" in capsys.readouterr().err


@pytest.mark.any_backend
def test_a_split_data_set_is_refused_by_evaluate_with_its_parts(classifier, capsys, tmp_path):
    for part in ("train", "val"):
        shutil.copytree("photos", f"set/{part}")
    assert cli.run(["evaluate", str(classifier[1]), "set"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "Pass one of its parts: " in errors
    assert os.path.join("set", "val") in errors


@pytest.mark.any_backend
def test_each_run_is_evaluated_into_a_folder_of_its_own_name(classifier, tmp_path, capsys):
    for name in ("pets", "v1.2"):
        classifier[0].save(tmp_path / "runs" / name / "classifier")
        assert cli.run(["evaluate", f"runs/{name}", "photos", "--json"]) == 0
        assert (tmp_path / f"evaluate-{name}-photos" / "evaluate.json").is_file()
    assert not (tmp_path / "evaluate-classifier-photos").exists()


@pytest.mark.any_backend
def test_evaluate_as_json_into_a_folder_of_its_own_name(classifier, capsys, tmp_path):
    assert cli.run(["evaluate", str(classifier[1]), "photos", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads((tmp_path / "evaluate-animals-photos" / "evaluate.json").read_text())
    assert content["images"] == 5


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["SAVED"], "needs a folder of photographs"),
        (["SAVED", "nowhere"], "There is no such folder"),
        (["SAVED", "photos", "--dataset", "mnist"], "Leave out --dataset and --data: PHOTOS"),
        (["SAVED", "others"], "The subfolders must have the names of classes; the classifier has 3: cat, dog, Löwe$"),
        (["nowhere.zip", "photos"], "There is no artifact, neither a folder nor a file. Received: nowhere.zip"),
    ],
)
def test_data_that_cannot_be_evaluated_are_refused(arguments, complaint, classifier, capsys):
    for name in ("others/wolf", "others/dog"):
        os.makedirs(name)
        Image.new("RGB", (9, 9)).save(f"{name}/x.png")
    arguments = [str(classifier[1]) if argument == "SAVED" else argument for argument in arguments]
    assert cli.run(["evaluate", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


# With keras_hub. ------------------------------------------------------------------------------------------------------


def test_presets_of_keras_hub_are_listed(keras_hub, capsys):
    assert cli.run(["presets", "--hub"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"{DEIT_TINY} +│ deit +│ 224 +│ +5,524,800 +│ 1000 +│ attention maps", re.sub(" +", " ", shown))
    assert cli.run(["presets", "--hub", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} >= set(keras_hub.models.ImageClassifier.presets)
    assert all(f" {row['name']} " in shown for row in rows)
    assert rows[0]["note"] == "attention maps"


def test_a_folder_that_keras_hub_wrote_is_recognized(keras_hub, tmp_path, capsys):
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
    )
    converter = keras_hub.layers.ViTImageConverter(image_size=(32, 32), scale=1 / 255)
    preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(converter)
    theirs = keras_hub.models.ViTImageClassifier(backbone=backbone, num_classes=3, preprocessor=preprocessor)
    theirs.save_to_preset(str(tmp_path / "preset"))
    assert (tmp_path / "preset" / "metadata.json").is_file()
    assert cli.run(["classify", "photos/dog/a.png", "--preset", "preset", "--json"]) == 0
    ((result),) = json.loads(capsys.readouterr().out)
    assert {entry["class"] for entry in result["classes"]} == {"0", "1", "2"}


def test_every_name_of_keras_hub_is_recognized(keras_hub):
    assert all(is_of_hub(name) for name in keras_hub.models.Backbone.presets)


def test_a_name_that_cannot_be_had_gives_one_line(keras_hub, capsys):
    assert cli.run(["classify", "photos/dog/a.png", "--preset", DEIT_TINY]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"The preset {DEIT_TINY} is not in the cache" in line
    assert cli.run(["classify", "photos/dog/a.png", "--preset", DEIT_TINY, "--fallback"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "Loading vit_base_patch16_224_imagenet instead" in lines[0]
    assert "The preset vit_base_patch16_224_imagenet is not in the cache" in lines[1]


def test_a_name_that_nobody_knows(keras_hub, capsys):
    assert cli.run(["classify", "photos/dog/a.png", "--preset", "deit_tinny"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`preset` must be a name" in line


def test_imagenets_classes_by_a_presets_name_in_a_process_of_its_own(keras_hub, tmp_path, photographs):
    theirs = random_classifier(DEIT_TINY)
    fill_cache(tmp_path / "cache", DEIT_TINY, theirs)
    done = subprocess.run(
        [sys.executable, "-m", "keras_vit_edu", "classify", "photos/dog/a.png", "--preset", DEIT_TINY, "--json"],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ((result),) = json.loads(done.stdout)
    photo = photographs["photos/dog/a.png"]
    logits = keras.ops.convert_to_numpy(theirs(theirs.preprocessor(photo[None]), training=False))
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    (decoded,) = keras_hub.utils.decode_imagenet_predictions(shares, top=5)
    assert [entry["class"] for entry in result["classes"]] == [name for name, _ in decoded]
    np.testing.assert_allclose(
        [entry["probability"] for entry in result["classes"]], [p for _, p in decoded], atol=2e-3
    )
