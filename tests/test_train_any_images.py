"""`train` and `evaluate` on images of any size, in arrays and in folders."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_vit_edu import cli

pytestmark = pytest.mark.any_backend

TINY = (
    "--override",
    "num_layers=1",
    "--override",
    "head=mean",
    "--override",
    "head_units=[]",
    "--override",
    "mlp_dim=8",
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_VIT_EDU_DATA", raising=False)


@pytest.fixture
def shapes(tmp_path, rng):
    """Colour images of 20x24 pixels: bright ones of class 0, dark ones of class 1, and noise."""
    labels = np.arange(36) % 3
    images = (
        rng.integers(0, 256, (36, 20, 24, 3), dtype="uint8") // 4
        + np.array([190, 0, 90], "uint8")[labels, None, None, None]
    )
    parts = {"x_train": images[:24], "y_train": labels[:24], "x_test": images[24:], "y_test": labels[24:]}
    np.savez(tmp_path / "shapes.npz", class_names=["bright", "dark", "grey"], **parts)
    return parts


def record(run):
    return json.loads((run / "run.json").read_text())


def test_a_preset_is_trained_on_colour_images_and_evaluated(tmp_path, shapes, capsys):
    arguments = ["train", "--data", "shapes.npz", *TINY, "--epochs", "1", "--augmentation", "digits", "--run", "out"]
    assert cli.run(arguments) == 0
    said = capsys.readouterr().out
    assert (
        "vit_mnist_program_p is adapted to the images: image_shape=[20, 24, 3], num_classes=3, patch_size=[5, 6]"
        in said
    )
    run = record(tmp_path / "out")
    assert run["class_names"] == ["bright", "dark", "grey"]
    assert run["configuration"]["dataset"]["name"] == "shapes"
    assert run["source"] == str(tmp_path / "shapes.npz")
    assert run["configuration"]["model"]["config"]["backbone"]["config"]["patch_size"] == [5, 6]

    assert cli.run(["evaluate", "out"]) == 0
    assert f"test accuracy {run['test_accuracy']:.4f}" in capsys.readouterr().out
    assert record(tmp_path / "out")["status"] == "finished"
    assert json.loads((tmp_path / "out/evaluate.json").read_text())["per_class"][0]["class"] == "bright"
    assert (tmp_path / "out/mistakes.png").is_file()

    (tmp_path / "shapes.npz").rename(tmp_path / "moved.npz")
    assert cli.run(["evaluate", "out"]) == 2
    assert "are no longer at" in capsys.readouterr().err
    assert cli.run(["evaluate", "out", "--data", "moved.npz", "--json"]) == 0


@pytest.mark.parametrize("preset", ["vit_mnist_hybrid", "vit_mnist_pure", "cnn_mnist"])
def test_a_folder_of_images_and_other_presets(tmp_path, shapes, preset, capsys):
    for i, (image, label) in enumerate(zip(shapes["x_train"], shapes["y_train"], strict=True)):
        folder = tmp_path / "photos" / ("bright", "dark", "grey")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[: 20 - i % 3]).save(folder / f"{i}.png")
    small = ["--override", "filters=[4,4]"] if preset == "cnn_mnist" else ["--override", "num_layers=1"]
    command = ["train", "--preset", preset, "--data", "photos", "--epochs", "1", "--batch-size", "8", *small]
    assert cli.run([*command, "--run", "out"]) == 2
    assert "--image-size 64" in capsys.readouterr().err
    assert cli.run([*command, "--image-size", "16x16", "--run", "out"]) == 0
    assert "a fifth of every class was kept for the test" in capsys.readouterr().out
    assert record(tmp_path / "out")["images"]["test"] == 6
    assert cli.run(["evaluate", "out"]) == 0
    assert cli.run([*command, "--image-size", "16x16", "--run", "out"]) == 2  # finished


def photographs(folder, shapes, first, count):
    for i in range(first, first + count):
        file = folder / ("bright", "dark", "grey")[shapes["y_train"][i]] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shapes["x_train"][i]).save(file)


def test_all_images_of_a_folder_without_a_test_are_tested_on(tmp_path, shapes, capsys):
    photographs(tmp_path / "photos", shapes, 0, 18)
    photographs(tmp_path / "others", shapes, 18, 6)  # two of each class
    photographs(tmp_path / "split/train", shapes, 0, 9)
    photographs(tmp_path / "split/test", shapes, 9, 12)
    assert cli.run(["train", "--data", "photos", *TINY, "--epochs", "1", "--run", "out", "--quiet"]) == 0

    def tested(data):
        assert cli.run(["evaluate", "out", "--data", data]) == 0
        said = capsys.readouterr().out
        return json.loads((tmp_path / said.splitlines()[-1].split("/")[0] / "evaluate.json").read_text())[
            "images"
        ], said

    count, said = tested("others")
    assert (count, "on all images of others" in said, "6 images)" in said) == (6, True, True)
    count, said = tested("split")
    assert (count, "on the test images of split" in said, "12 images)" in said) == (12, True, True)
    # The run has not seen a fifth of its own images, wherever they are now.
    (tmp_path / "photos").rename(tmp_path / "moved")
    count, said = tested("moved")
    assert (count, "on the test images of moved" in said) == (3, True)
    assert "a fifth of every class was kept for the test" in said


def test_an_interrupted_run_on_other_images_goes_on(tmp_path, shapes):
    command = ["train", "--data", "shapes.npz", *TINY, "--epochs", "2", "--quiet"]
    assert cli.run([*command, "--run", "whole"]) == 0
    assert cli.run([*command, "--run", "part"]) == 0
    found = record(tmp_path / "part")
    (tmp_path / "part/run.json").write_text(json.dumps({**found, "status": "interrupted"}))
    newest = max((tmp_path / "part/checkpoint").iterdir(), key=lambda file: file.name)
    newest.unlink()
    assert cli.run([*command, "--run", "part"]) == 0
    assert len(record(tmp_path / "part")["sessions"]) == 2
    assert (tmp_path / "part/history.csv").read_text().split(",")[:4] == (
        tmp_path / "whole/history.csv"
    ).read_text().split(",")[:4]
    assert record(tmp_path / "part")["test_loss"] == record(tmp_path / "whole")["test_loss"]


def test_digits_of_another_size(tmp_path, rng, capsys):
    images, labels = rng.integers(0, 256, (40, 28, 28), "uint8"), np.arange(40) % 10
    np.savez("few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert cli.run(["train", "--data", "few.npz", *TINY, "--epochs", "1", "--image-size", "14", "--run", "out"]) == 0
    assert "image_shape=[14, 14, 1]" in capsys.readouterr().out
    assert record(tmp_path / "out")["configuration"]["dataset"]["name"] == "mnist"
    assert cli.run(["evaluate", "out"]) == 0


def test_a_run_that_took_five_classes_for_mnist_goes_on(tmp_path, rng):
    """Before `train` looked at what `--data` holds, any 28x28 images were MNIST, with ten classes."""
    labels = np.arange(40) % 5
    images = rng.integers(0, 256, (40, 28, 28), dtype="uint8")
    np.savez("five.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    old = ["train", "--data", "five.npz", "--dataset", "mnist", *TINY, "--epochs", "1", "--run", "out", "--quiet"]
    assert cli.run(old) == 0
    found = record(tmp_path / "out")
    (tmp_path / "out/run.json").write_text(json.dumps({**found, "status": "interrupted"}))
    now = [argument for argument in old if argument not in ("--dataset", "mnist")]
    assert cli.run(now) == 0
    assert len(record(tmp_path / "out")["class_names"]) == 10
    assert cli.run([*now[:-2], "new", "--quiet"]) == 0
    assert record(tmp_path / "new")["class_names"] == list("01234")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--image-size", "big"], "`--image-size` must be a number of pixels"),
        (["--image-size", "0"], "`--image-size` must be a number of pixels"),
        (["--image-size", "2x3x4"], "`--image-size` must be a number of pixels"),
        (["--image-size", "1000000"], "at most 4 GiB"),
        (
            ["--image-size", "29"],
            "override patch_size=N (1, 29 divide both sides), or resize the images. (--override NAME=VALUE",
        ),
        (["--override", "patch_size=9"], "`patch_size` must divide the image"),
        (["--override", "image_shape=[14,14,1]"], "takes images of shape (14, 14, 1)"),
        (["--dataset", "mnist"], "shape (n, 28, 28)"),
        (["--data", "."], "There are no images to train on"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(shapes, arguments, complaint, capsys):
    assert cli.run(["train", "--data", "shapes.npz", "--run", "out", *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_the_sheet_of_augmented_images_shows_colours(tmp_path, shapes):
    command = ["train", "--data", "shapes.npz", "--show-augmentation", "--augmentation", "clothes", "--run", "out"]
    assert cli.run(command) == 0
    pixels = np.asarray(Image.open(tmp_path / "out/augmentation.png").convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=-1) > 10).any()


def test_validation_without_a_class_is_said(tmp_path, shapes, capsys):
    labels = np.arange(40) % 10
    images = np.zeros((40, 28, 28), "uint8")
    order = np.argsort(labels, kind="stable")
    np.savez("sorted.npz", x_train=images[order], y_train=labels[order], x_test=images, y_test=labels)
    assert cli.run(["train", "--data", "sorted.npz", *TINY, "--epochs", "1", "--run", "out"]) == 0
    assert "note: validation has no image of class 0, 1, 2, 3, 4 and 4 more" in capsys.readouterr().out
