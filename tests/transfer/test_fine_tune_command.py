"""The command `fine-tune`, on a small ViT of keras_hub that lies in a folder."""

import json
import os
import re
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

pytest.importorskip("keras_hub", reason="fine-tune loads models of keras_hub")
pytest.importorskip("typer")

from keras_vit_edu import cli
from keras_vit_edu.transfer import FineTuning, TransferClassifier
from tests.transfer.hub_cache import fill_cache
from tests.transfer.small import coloured

pytestmark = pytest.mark.hub


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    import keras_hub

    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=16, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=24
    )
    converter = keras_hub.layers.ViTImageConverter(image_size=(32, 32), scale=1 / 127.5, offset=-1)
    preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(converter)
    model = keras_hub.models.ViTImageClassifier(backbone=backbone, num_classes=7, preprocessor=preprocessor)
    folder = tmp_path_factory.mktemp("hub") / "preset"
    model.save_to_preset(str(folder))
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fine-tune") / "photos"
    images, labels = coloured(30)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "abc"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "abc"[label] / f"{i:02}.png")
    (folder / "a" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def fine_tune(preset, photographs, tmp_path, monkeypatch, capsys):
    """Runs the command with these further arguments; `(status, output, errors)`."""
    monkeypatch.setenv("KERAS_VIT_EDU_CACHE", str(tmp_path / "features"))

    def call(*arguments, photos=photographs, run=tmp_path / "run"):
        of_command = ["fine-tune", str(photos), "--preset", str(preset), "--run", str(run)]
        capsys.readouterr()
        status = cli.run([*of_command, *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


def test_from_a_folder_to_a_classifier(fine_tune, photographs, tmp_path, capsys):
    status, output, errors = fine_tune("--probe-epochs", 30, "--epochs", 1, "--batch-size", 8)
    assert (status, errors) == (0, "")
    assert "3 classes: a (10), b (10), c (10)" in output
    assert "skipped a/broken.png: This is no image file that Pillow knows" in output
    run = tmp_path / "run"
    record = json.loads((run / "run.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["probe", "lp-ft"]
    assert re.search(r"^probe: the head alone is trained, 39 weights$", output, re.MULTILINE)
    assert re.search(r"^probe 30/30 ", output, re.MULTILINE)
    assert re.search(r"^tuning: the whole model is trained, [\d,]+ weights$", output, re.MULTILINE)
    assert re.search(r"^tuning 1/1 ", output, re.MULTILINE)
    assert "lp-ft" not in output
    assert "opened" not in output
    assert f"validation accuracy {record['validation_accuracy']:.4f}" in output
    for name in ("accuracy.png", "loss.png", "confusion.png", "mistakes.png", "evaluate.json", "history.csv"):
        assert (run / name).is_file(), name
        assert name in output
    kept = TransferClassifier.load(run / "classifier")
    assert kept.class_names == ("a", "b", "c")
    evaluated = json.loads((run / "evaluate.json").read_text())
    assert kept.metrics["validation"] == {
        name: evaluated[name] for name in ("images", "accuracy", "standard_error", "loss")
    }
    with pytest.warns(UserWarning, match="1 of 11 files were skipped"):
        found = kept.predict(photographs / "a")
    assert [classes[0][0] in kept.class_names for classes in found if classes] == [True] * 10

    capsys.readouterr()
    assert cli.run(["classify", str(photographs / "b" / "01.png"), "--preset", str(run), "--json"]) == 0
    (classified,) = json.loads(capsys.readouterr().out)
    assert {entry["class"] for entry in classified["classes"]} == {"a", "b", "c"}
    assert cli.run(["evaluate", str(run), str(photographs), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["per_class"]) == 3

    status, _, errors = fine_tune()
    assert (status, errors.count("\n")) == (2, 1)
    assert "holds a finished run" in errors


def test_a_split_data_set_and_a_csv_train_alike(fine_tune, photographs, tmp_path):
    rows = []
    for i, file in enumerate(sorted(photographs.glob("*/*[0-9].png"))):
        part = tmp_path / "set" / ("Valid" if i % 5 == 0 else "train") / file.parent.name
        part.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, part)
        rows.append((part.parent.name, f"{part.relative_to(tmp_path).as_posix()}/{file.name},{file.parent.name}"))
    (tmp_path / "set" / "test").mkdir()
    for name in ("train", "Valid"):
        lines = [row for part, row in rows if part == name]
        (tmp_path / f"{name}.csv").write_text("path,label\n" + "\n".join(lines))
    options = ("--method", "probe", "--probe-epochs", 2, "--batch-size", 8)
    status, output, errors = fine_tune(*options, photos=tmp_path / "set", run=tmp_path / "split")
    assert (status, errors) == (0, "")
    assert f"{tmp_path / 'set'} is split: learning from train{os.sep}, validating on Valid{os.sep}" in output
    of_csv = fine_tune(
        *options, "--validation", tmp_path / "Valid.csv", photos=tmp_path / "train.csv", run=tmp_path / "csv"
    )
    assert of_csv[0] == 0
    assert "3 classes: a (8), b (8), c (8)" in of_csv[1]
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("split", "csv")]
    assert records[0]["images"] == records[1]["images"] == {"train": 24, "validation": 6}
    assert records[0]["history"]["loss"] == records[1]["history"]["loss"]
    assert records[0]["validation_accuracy"] == records[1]["validation_accuracy"]


def test_the_sheet_of_mistakes_shows_the_photographs_themselves(fine_tune, photographs, tmp_path, monkeypatch):
    from keras_vit_edu import plots

    drawn = []
    monkeypatch.setattr(plots, "mistakes", lambda images, captions, file: drawn.append((images, captions)))
    # The same photographs under the name of another class: whatever is learned from the right ones is a mistake here.
    classes = sorted(folder.name for folder in photographs.iterdir())
    for name, other in zip(classes, [*classes[1:], classes[0]], strict=True):
        shutil.copytree(photographs / name, tmp_path / "wrong" / other)
    arguments = ["--method", "probe", "--probe-epochs", 5, "--validation", tmp_path / "wrong"]
    with pytest.warns(UserWarning, match="30 of the validation's images are in training too"):
        assert fine_tune(*arguments, "--quiet")[0] == 0
    ((images, captions),) = drawn
    assert len(images) > 0
    for image, caption in zip(images, captions, strict=True):
        name = caption(lambda text: True).splitlines()[2]
        np.testing.assert_array_equal(image, np.asarray(Image.open(tmp_path / "wrong" / name)))


def test_lora_leaves_plain_weights(fine_tune, tmp_path):
    assert fine_tune("--method", "lora", "--probe-epochs", 1, "--epochs", 1, "--rank", 2, "--quiet")[0] == 0
    kept = TransferClassifier.load(tmp_path / "run" / "classifier")
    assert not any("lora" in weight.path for weight in kept.model.weights)
    assert np.isfinite(kept.model.get_weights()[0]).all()


def test_options_from_a_file(fine_tune, tmp_path):
    (tmp_path / "options.json").write_text('{"method": "probe", "probe_epochs": 5, "seed": 3}')
    assert fine_tune("--options", tmp_path / "options.json", "--probe-epochs", 2, "--quiet")[0] == 0
    said = json.loads((tmp_path / "run" / "run.json").read_text())["fine_tuning"]
    assert (said["method"], said["probe_epochs"], said["seed"]) == ("probe", 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "magic"], "`method` must be one of probe, lp-ft, lora, full"),
        (["--blocks", 3], "`blocks` must be None (all weights) or 0 to 2"),
        (["--options", "nowhere.json"], "The file cannot be opened: No such file or directory. Received: nowhere.json"),
        (["--preset", "nowhere"], "Received: 'nowhere'"),
        (["--augmentation", "wild"], "`augmentation` must be 'photographs'"),
    ],
)
def test_a_mistake_is_one_line(fine_tune, arguments, message):
    status, _, errors = fine_tune(*arguments)
    assert (status, errors.count("\n")) == (2, 1)
    assert message in errors


def test_an_error_of_numpy_is_not_shown_as_a_users_mistake(fine_tune, monkeypatch):
    def broken(*arguments, **more):
        np.zeros(2).reshape(3)

    monkeypatch.setattr(TransferClassifier, "fit", broken)
    with pytest.raises(ValueError, match="cannot reshape"):
        fine_tune()


def test_a_call_that_is_refused_overwrites_nothing(fine_tune, tmp_path):
    assert fine_tune("--method", "probe", "--probe-epochs", 1, "--quiet")[0] == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    status, _, errors = fine_tune("--overwrite", "--blocks", 99)
    assert (status, errors.count("\n")) == (2, 1)
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    assert fine_tune("--overwrite", "--method", "probe", "--probe-epochs", 2, "--quiet")[0] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["fine_tuning"]["probe_epochs"] == 2


def test_a_folder_with_one_class_is_refused(fine_tune, photographs, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a").symlink_to(photographs / "a")
    status, _, errors = fine_tune(photos=tmp_path / "one")
    assert (status, errors.count("\n")) == (2, 1)
    assert "There must be images of two classes or more" in errors


@pytest.mark.slow
def test_a_preset_by_name_at_its_real_size(fine_tune, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    preset = "deit_tiny_distilled_patch16_224_imagenet"
    fill_cache(tmp_path / "cache", preset)
    quick = ["--probe-epochs", 2, "--epochs", 1, "--blocks", 1, "--batch-size", 4, "--validation-split", 0.8]
    assert fine_tune(*quick, "--preset", preset)[0] == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    block, norm, head = 12 * 192**2 + 13 * 192, 2 * 192, 3 * 192 + 3
    assert record["phases"][1] == {
        "name": "lp-ft",
        "epochs": 1,
        "trainable": block + norm + head,
        "total": 5_524_800 + head,  # DeiT-tiny without a head
    }
    kept = TransferClassifier.load(tmp_path / "run" / "classifier")
    assert kept.preprocessing.image_size == (224, 224)
    before = TransferClassifier.from_preset(preset, ["a", "b", "c"]).model
    last_but_one = [model.backbone.transformer_blocks[10].get_weights() for model in (kept.model, before)]
    for mine, theirs in zip(*last_but_one, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_model_that_is_not_opened(tmp_path):
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )
    converter = keras_hub.layers.ResNetImageConverter(image_size=(32, 32), scale=1 / 127.5, offset=-1)
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(converter)
    model = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=7, preprocessor=preprocessor)
    model.save_to_preset(str(tmp_path / "preset"))
    classifier = TransferClassifier.from_preset(tmp_path / "preset", ["a", "b", "c"])
    data = coloured(12)
    quiet = {"cache": tmp_path / "features", "console": Console(quiet=True)}
    before = [w.copy() for w in classifier.model.backbone.get_weights()]
    classifier.fit(data, options=FineTuning(method="probe", probe_epochs=2, batch_size=4), **quiet)
    for mine, theirs in zip(classifier.model.backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    options = FineTuning(probe_epochs=2, epochs=1, batch_size=4)
    record = classifier.fit(data, options=options, run=tmp_path / "run", **quiet)
    assert record["phases"][1]["trainable"] > 64 * 64 * 9
    kept = TransferClassifier.load(tmp_path / "run" / "classifier")
    np.testing.assert_allclose(kept.probabilities(data[0]), classifier.probabilities(data[0]), atol=1e-6)
    with pytest.raises(ValueError, match="LoRA needs a model with attention layers of this library"):
        classifier.fit(data, options=FineTuning(method="lora"), **quiet)
