"""What a model must be to classify photographs."""

import keras
import pytest

from keras_vit_edu.transfer import Preprocessing, TransferClassifier
from tests.transfer.small_classifier import NAMES, small


@pytest.fixture(scope="module")
def classifier():
    return small()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ["a", "b"]}, r"a logit for each of the 2 class names\. Received: .*\(None, 3\)"),
        ({"class_names": "abc"}, "must be a list of 1 to 100,000 texts, none of them empty. Received: 'abc'"),
        ({"class_names": ["a", "", "c"]}, "must be a list of 1 to 100,000 texts, none of them empty"),
        ({"preprocessing": Preprocessing(16)}, r"images of shape \(16, 16, 3\), and .*takes \(32, 32, 3\)"),
        ({"preprocessing": None}, "must be a Preprocessing. Received: NoneType"),
    ],
)
def test_parts_that_do_not_fit(classifier, arguments, message):
    parts = {"preprocessing": classifier.preprocessing, "class_names": NAMES, **arguments}
    with pytest.raises(ValueError, match=message):
        TransferClassifier(classifier.model, **parts)


def test_a_model_that_takes_its_own_softmax_is_refused():
    with pytest.raises(ValueError, match=r"must give logits.*which ends in softmax$"):
        small(activation="softmax")


@pytest.mark.parametrize("last", [None, lambda: keras.layers.Activation("softmax"), keras.layers.Softmax])
@pytest.mark.parametrize("functional", [True, False])
def test_a_plain_model_that_takes_its_own_softmax_is_refused(last, functional):
    head = keras.layers.Dense(2, activation=None if last else "softmax")
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), head, *([last()] if last else [])])
    if functional:
        model = keras.Model(model.inputs, model.outputs)
    with pytest.raises(ValueError, match=r"must give logits.*which ends in softmax$"):
        TransferClassifier(model, Preprocessing(16), ["a", "b"])
    if last:
        without_last = keras.Model(model.inputs, head.output)
        assert TransferClassifier(without_last, Preprocessing(16), ["a", "b"]).num_classes == 2
    logits = keras.Model(model.inputs, head.input)  # all but the head: no logits, but no softmax either
    with pytest.raises(ValueError, match="a logit for each"):
        TransferClassifier(logits, Preprocessing(16), ["a", "b"])


def test_an_activation_in_the_middle_of_a_model_is_no_activation_at_its_end():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.activation = keras.layers.ReLU()
            self.flatten, self.hidden, self.head = keras.layers.Flatten(), keras.layers.Dense(5), keras.layers.Dense(2)

        def call(self, images):
            return self.head(self.activation(self.hidden(self.flatten(images))))

    assert TransferClassifier(Model(), Preprocessing(8), ["a", "b"]).num_classes == 2
