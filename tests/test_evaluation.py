import math

import keras
import numpy as np
import pytest

from keras_vit_edu.evaluation import Evaluation, evaluate

pytestmark = [pytest.mark.quick, pytest.mark.lowest]

# Ten images of three classes. Wrong are 3 (a taken for b, 0.5 sure), 6 (b taken for c, 0.9) and 9 (c taken for a, 0.6).
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.8, 0.1, 0.1],
        [0.8, 0.1, 0.1],
        [0.3, 0.5, 0.2],
        [0.1, 0.8, 0.1],
        [0.1, 0.8, 0.1],
        [0.05, 0.05, 0.9],
        [0.1, 0.1, 0.8],
        [0.1, 0.1, 0.8],
        [0.6, 0.2, 0.2],
    ]
)


@pytest.fixture
def found():
    return Evaluation(LABELS, PROBABILITIES, ("a", "b", "c"))


def test_accuracy_and_its_standard_error(found):
    assert found.accuracy == 0.7
    assert found.standard_error == pytest.approx(math.sqrt(0.7 * 0.3 / 10))


def test_the_confusion_matrix_has_a_row_for_each_true_class(found):
    np.testing.assert_array_equal(found.confusion, [[3, 1, 0], [0, 2, 1], [1, 0, 2]])


def test_labels_of_few_bits_are_counted_too():
    labels = np.arange(20, dtype="uint8")  # 19 * 20 + 19 is more than 255
    found = Evaluation(labels, np.eye(20), tuple("abcdefghijklmnopqrst"))
    np.testing.assert_array_equal(found.confusion, np.eye(20))


def test_each_class_has_precision_recall_and_f1(found):
    rows = {row.pop("class"): row for row in found.per_class()}
    assert rows["a"] == {"images": 4, "precision": 3 / 4, "recall": 3 / 4, "f1": pytest.approx(3 / 4)}
    assert rows["b"] == {"images": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3)}


def test_a_class_without_images_or_predictions_has_no_ratios():
    found = Evaluation(np.array([0]), np.array([[1.0, 0.0]]), ("a", "b"))
    assert found.per_class()[1] == {"class": "b", "images": 0, "precision": None, "recall": None, "f1": None}


def test_the_most_confident_mistakes_come_first(found):
    assert found.mistakes(10).tolist() == [6, 9, 3]
    assert found.mistakes(2).tolist() == [6, 9]


def test_the_loss_is_the_mean_cross_entropy(found):
    expected = -(7 * math.log(0.8) + math.log(0.3) + math.log(0.05) + math.log(0.2)) / 10
    assert found.loss == pytest.approx(expected)


def test_a_model_is_evaluated_on_images_from_0_to_1_with_softmax():
    model = keras.Sequential([keras.layers.Input((1, 2, 1)), keras.layers.Flatten()])  # two pixels, two logits
    images = np.array([[0, 255], [255, 0], [51, 102]], "uint8").reshape(3, 1, 2, 1)
    found = evaluate(model, images, np.array([1, 0, 0]), ("left", "right"), batch_size=2)
    e = math.e
    expected = [[1 / (1 + e), e / (1 + e)], [e / (1 + e), 1 / (1 + e)], [1 / (1 + e**0.2), e**0.2 / (1 + e**0.2)]]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.accuracy == pytest.approx(2 / 3)


def test_a_model_for_other_images_or_classes_is_refused():
    model = keras.Sequential([keras.layers.Input((1, 2, 1)), keras.layers.Flatten()], name="two")
    with pytest.raises(ValueError, match=r"two takes images of shape \(1, 2, 1\).*\(3, 2, 1\)"):
        evaluate(model, np.zeros((1, 3, 2, 1), "uint8"), np.zeros(1, int), ("a", "b"))
    with pytest.raises(ValueError, match=r"has 2 classes.*of 3 classes"):
        evaluate(model, np.zeros((1, 1, 2, 1), "uint8"), np.zeros(1, int), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"labels": [0.7, 0.0]}, "`labels` must be whole numbers.*float64"),
        ({"labels": [0.0, 1.0]}, "`labels` must be whole numbers.*float64"),
        ({"labels": [True, False]}, "`labels` must be whole numbers.*bool"),
        ({"labels": np.eye(2)}, "argmax"),
        ({"labels": [0, -1]}, "`labels` must be 0 to 1. Received: from -1 to 0"),
        ({"labels": [0, 2]}, "`labels` must be 0 to 1. Received: from 0 to 2"),
        ({"labels": [0]}, "`labels` must be 2, one per image. Received: 1"),
        (
            {"images": np.ones((2, 1, 2, 1), "float32")},
            r"`images` must be a uint8 array.*float32 of shape \(2, 1, 2, 1\)",
        ),
        ({"images": np.ones((2, 1, 2, 1), "uint16")}, "`images` must be a uint8 array.*uint16"),
        ({"images": [[[[0], [1]]]]}, "`images` must be a uint8 array.*list"),
        ({"images": np.zeros((0, 1, 2, 1), "uint8"), "labels": []}, "one image at least"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_images_and_labels_are_checked(arguments, complaint):
    model = keras.Sequential([keras.layers.Input((1, 2, 1)), keras.layers.Flatten()], name="two")
    given = {"images": np.zeros((2, 1, 2, 1), "uint8"), "labels": [0, 1], "class_names": ("a", "b"), **arguments}
    with pytest.raises(ValueError, match=complaint):
        evaluate(model, **given)


def test_without_the_classes_that_do_not_occur_the_numbers_stay():
    probabilities = np.array([[0.1, 0.6, 0.1, 0.1, 0.1], [0.0, 0.2, 0.0, 0.7, 0.1], [0.1, 0.2, 0.1, 0.5, 0.1]])
    found = Evaluation(np.array([1, 1, 3]), probabilities, tuple("abcde"))
    few = found.of_occurring_classes()
    assert few.class_names == ("b", "d")
    assert few.labels.tolist() == [0, 0, 1]
    assert few.confusion.tolist() == [[1, 1], [0, 1]]
    assert (few.accuracy, few.loss) == (found.accuracy, found.loss)
    assert few.per_class() == [row for row in found.per_class() if row["class"] in "bd"]


def test_the_classes_with_most_mistakes_are_kept():
    labels = np.array([0, 1, 2, 2, 3])
    taken_for = np.array([0, 2, 1, 2, 0])
    few = Evaluation(labels, np.eye(4)[taken_for], tuple("abcd")).of_occurring_classes(most=2)
    assert few.class_names == ("b", "c")
    assert few.confusion.tolist() == [[0, 1], [1, 1]]
