import numpy as np
import pytest
from PIL import Image

from keras_vit_edu import plots


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each figure that was saved."""
    axes = []
    original = plots.Figure.savefig

    def keep(figure, *arguments, **keywords):
        axes.extend(figure.axes)
        return original(figure, *arguments, **keywords)

    monkeypatch.setattr(plots.Figure, "savefig", keep)
    return axes


def test_a_learning_curve_shows_train_and_validation(tmp_path, drawn):
    history = {"loss": [3.0, 2.0, 1.0], "val_loss": [2.5, 2.25, 2.125]}
    plots.learning_curve(history, "loss", tmp_path / "loss.png", test_value=2.0)

    train, validation, test = drawn[0].lines
    np.testing.assert_array_equal(train.get_xydata(), [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(validation.get_xydata(), [[1, 2.5], [2, 2.25], [3, 2.125]])
    np.testing.assert_array_equal(test.get_xydata(), [[3, 2]])
    labels = [text.get_text() for text in drawn[0].get_legend().get_texts()]
    assert [label.split()[0].strip(",") for label in labels] == ["train", "validation", "test"]
    with Image.open(tmp_path / "loss.png") as image:
        assert image.format == "PNG"


def test_a_curve_without_validation_or_test_shows_training_alone(tmp_path, drawn):
    plots.learning_curve({"accuracy": [0.5]}, "accuracy", tmp_path / "a.png")
    assert len(drawn[0].lines) == 1


def test_a_sheet_of_augmented_images_has_the_original_first(tmp_path, drawn):
    images = np.arange(2 * 4 * 4, dtype="uint8").reshape(2, 4, 4, 1)
    varied = np.random.default_rng(0).random((2, 3, 4, 4, 1))
    plots.augmentation(images, varied, ["a", "b"], tmp_path / "sheet.png")
    shown = [np.asarray(axes.images[0].get_array()) for axes in drawn]
    assert len(shown) == 2 * 4
    for i in range(2):
        np.testing.assert_allclose(shown[4 * i], images[i, ..., 0] / 255)
        np.testing.assert_allclose(shown[4 * i + 1 : 4 * i + 4], varied[i, ..., 0])
    assert [axes.get_ylabel() for axes in drawn if axes.get_ylabel()] == ["a", "b"]


def test_a_sheet_of_what_was_classified(tmp_path, drawn):
    given = [np.full((40, 30, 3), 200, "uint8"), np.full((20, 90, 3), 10, "uint8")]
    seen = np.random.default_rng(0).random((2, 28, 28, 1))
    shares = [np.array([0.25, 0.75]), np.array([1.0, 0.0])]
    plots.classified(["a.png", "$b_{.png"], given, seen, shares, "xy", tmp_path / "sheet.png")
    for row in range(2):
        left, middle, right = drawn[3 * row : 3 * row + 3]
        np.testing.assert_array_equal(left.images[0].get_array(), given[row])
        np.testing.assert_allclose(middle.images[0].get_array(), seen[row, ..., 0])
        np.testing.assert_allclose([bar.get_height() for bar in right.patches], shares[row])
        assert [label.get_text() for label in right.get_xticklabels()] == ["x", "y"]
    assert [axes.get_title() for axes in drawn[2::3]] == ["y: 75.0%", "x: 100.0%"]
    assert drawn[3].get_title() == "$b_{.png"
