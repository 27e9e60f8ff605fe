"""One model, many threads; and a model whose optimizer shares arrays with it."""

import threading

import keras
import numpy as np
import pytest

from keras_vit_edu._inference import predict_batch
from keras_vit_edu.models import ViTBackbone
from keras_vit_edu.transfer import Preprocessing, TransferClassifier
from tests.support import opened_vit

SIZES = {"num_layers": 2, "num_heads": 3, "key_dim": 8, "mlp_dim": 48, "num_prefix_tokens": 1}
THREADS = 8


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    backbone = ViTBackbone((32, 32, 3), 8, 24, **SIZES)
    preprocessing = Preprocessing(32, scale=1 / 127.5, offset=-1.0)
    return TransferClassifier(opened_vit(backbone, num_classes=3), preprocessing, ["a", "b", "c"])


def test_a_classifier_is_shared_by_threads(classifier, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (THREADS, 40, 50, 3)).astype("uint8")
    labels = np.zeros(1, "int64")
    alone = [
        (classifier.probabilities(image), classifier.attention_scores(image)[0], classifier.predict(image, top=1))
        for image in images
    ]
    problems, start = [], threading.Barrier(THREADS)

    def work(number):
        image, (probabilities, scores, best) = images[number], alone[number]
        start.wait()
        try:
            for _ in range(6):
                np.testing.assert_allclose(classifier.probabilities(image), probabilities, atol=1e-6)
                np.testing.assert_allclose(classifier.attention_scores(image)[0], scores, atol=1e-6)
                assert classifier.predict(image, top=1)[0][0][0] == best[0][0][0]
                assert 0 <= classifier.evaluate(image[None], labels).accuracy <= 1
                classifier.save(tmp_path / f"{number}.zip")
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    again = TransferClassifier.load(tmp_path / "0.zip")
    np.testing.assert_allclose(again.probabilities(images[0]), alone[0][0], atol=1e-6)


def test_a_model_trained_with_a_moving_average_predicts_and_learns_on():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    x, y = np.random.default_rng(0).normal(size=(16, 4)).astype("float32"), np.arange(16) % 2
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(use_ema=True), loss=loss)
    model.fit(x, y, verbose=0)
    kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in model.layers[0].weights)
    wanted = (x @ kernel + bias) @ model.layers[1].get_weights()[0] + model.layers[1].get_weights()[1]
    np.testing.assert_allclose(predict_batch(model, x), wanted, atol=1e-5)
    for variable in (*model.variables, *model.optimizer.variables):
        assert np.isfinite(keras.ops.convert_to_numpy(variable)).all(), variable.path
    model.fit(x, y, verbose=0)
