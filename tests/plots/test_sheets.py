import functools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from keras_vit_edu import plots
from keras_vit_edu.captions import mistake

pytestmark = [pytest.mark.any_backend, pytest.mark.lowest]


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


def test_a_line_stands_between_two_phases(tmp_path, drawn):
    plots.learning_curve({"loss": [4.0, 3.0, 2.0, 1.0, 0.0]}, "loss", tmp_path / "a.png", phases=[("x", 3), ("y", 2)])
    _, line = drawn[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [3.5, 3.5])
    assert [(text.get_text(), text.get_position()[0]) for text in drawn[0].texts] == [("x", 2), ("y", 4.5)]


def test_one_phase_needs_no_line(tmp_path, drawn):
    plots.learning_curve({"loss": [4.0, 3.0]}, "loss", tmp_path / "a.png", phases=[("x", 2)])
    assert len(drawn[0].lines) == 1
    assert not drawn[0].texts


LONG = "dogs/" + 30 * "a long name " + ".jpg"


def boxes(axes):
    """Where the titles of axes are drawn, in pixels."""
    canvas = FigureCanvasAgg(axes[0].figure)
    canvas.draw()
    return [one.title.get_window_extent(canvas.get_renderer()) for one in axes if one.get_title()]


@pytest.mark.parametrize("side", [28, 300])
def test_a_sheet_of_mistakes_has_captions_that_neither_overlap_nor_are_cut(side, tmp_path, drawn):
    images = [np.full((side, side, 3), 90, "uint8")] * 9
    captions = [functools.partial(mistake, "a" * 60, "W" * 60, 0.9, LONG)] * 9
    plots.mistakes(images, captions, tmp_path / "sheet.png")
    assert [len(axes.get_title().split("\n")) for axes in drawn[:9]] == [3] * 9
    assert all(axes.get_title().endswith(".jpg") for axes in drawn[:9])
    found = boxes(drawn)
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    width = drawn[0].figure.bbox.width
    assert all(box.x0 >= 0 and box.x1 <= width for box in found)


def test_a_sheet_without_mistakes(tmp_path, drawn):
    plots.mistakes([], [], tmp_path / "sheet.png")
    assert [text.get_text() for text in drawn[0].texts] == ["no mistakes"]


def test_a_sheet_of_photographs(tmp_path, drawn):
    given = [np.full((40, 30, 3), 200, "uint8"), np.full((20, 90, 3), 10, "uint8")]
    seen = [np.full((16, 16, 3), 100, "uint8")] * 2
    best = [[("cat", 0.75), (LONG, 0.25)], [("$dog_{", 1.0)]]
    plots.classified_photographs([LONG, "$b_{.png"], given, seen, best, tmp_path / "sheet.png")
    for row in range(2):
        first, second, third = drawn[3 * row : 3 * row + 3]
        np.testing.assert_array_equal(first.images[0].get_array(), given[row])
        np.testing.assert_array_equal(second.images[0].get_array(), seen[row])
        np.testing.assert_allclose([bar.get_width() for bar in third.patches], [share for _, share in best[row]])
    assert [text.get_text() for text in drawn[5].texts] == ["$dog_{ (100.0%)"]
    long = drawn[2].texts[1]
    assert long.get_text().endswith(" (25.0%)")
    canvas = FigureCanvasAgg(drawn[2].figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    assert long.get_window_extent(renderer).x1 <= drawn[2].get_window_extent(renderer).x1
    assert drawn[3].get_title() == "$b_{.png"


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
