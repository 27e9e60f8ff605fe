import numpy as np
import pytest

from keras_vit_edu.explain import explain, look_inside
from keras_vit_edu.explain.explanation import METHODS
from keras_vit_edu.transfer import Preprocessing, TransferClassifier
from tests.explain.small import small_classifier
from tests.support import assert_agree

ALL = sorted(METHODS)


@pytest.fixture
def images(rng):
    return rng.random((2, 8, 12, 3), "float32")


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(
    "arguments", [{"head": "token", "num_prefix_tokens": 1}, {"head": "flatten"}], ids=["token", "flatten"]
)
def test_every_method_gives_a_map_of_each_image(method, arguments, images):
    options = {"steps": 3} if method == "integrated_gradients" else {}
    found = explain(small_classifier(**arguments), images, method, **options)
    assert found.map.shape == ((2, 8, 12) if method == "integrated_gradients" else (2, 2, 3))
    assert np.isfinite(found.map).all()
    knows_classes = method not in ("attention", "rollout")
    assert (found.target is not None) == knows_classes
    if knows_classes:
        np.testing.assert_array_equal(found.target, found.output.argmax(axis=1))


@pytest.mark.any_backend
def test_attention_as_each_head_reads_it(images):
    for arguments, rows in (
        ({"head": "token", "num_prefix_tokens": 2}, lambda inside: np.eye(8)[[0, 0]]),
        ({"head": "mean", "num_prefix_tokens": 2}, lambda inside: np.r_[0, 0, np.full(6, 1 / 6)][None].repeat(2, 0)),
        ({"head": "mean_with_prefix", "num_prefix_tokens": 2}, lambda inside: np.full((2, 8), 1 / 8)),
        ({"head": "sequence"}, lambda inside: inside.pooling),
    ):
        model = small_classifier(**arguments)
        inside = look_inside(model, images)
        read = rows(inside)
        for block, head in ((0, 1), (-1, None)):
            scores = inside.scores[block]
            of_block = scores.mean(axis=1) if head is None else scores[:, head]
            seen = np.stack([read[b] @ of_block[b] for b in range(2)])[:, arguments.get("num_prefix_tokens", 0) :]
            expected = (seen / seen.sum(axis=1, keepdims=True)).reshape(2, 2, 3)
            assert_agree(explain(model, images, "attention", block=block, head=head).map, expected, 1e-5)


@pytest.mark.any_backend
def test_a_transfer_classifier_takes_raw_images(rng):
    preprocessing = Preprocessing((8, 12), scale=1 / 255)
    classifier = TransferClassifier(small_classifier(), preprocessing, ["a", "b", "c", "d"])
    raw = rng.integers(0, 256, (2, 16, 24, 3)).astype("uint8")
    found = explain(classifier, raw, "occlusion", target=1, against=2)
    expected = explain(classifier.model, classifier.preprocess(raw), "occlusion", target=1, against=2)
    np.testing.assert_array_equal(found.map, expected.map)
    assert (found.target.tolist(), found.against.tolist()) == ([1, 1], [2, 2])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rollouts"}, "There is no method 'rollouts'. Did you mean rollout"),
        ({"method": "magic"}, "There are attention, rollout, relevance"),
        ({"method": "rollout", "target": 1}, "does not know of classes"),
        ({"method": "rollout", "steps": 3}, "has no option `steps`. It has: heads, discard"),
        ({"method": "relevance", "steps": 3}, "has no option `steps`. It has: none"),
        ({"method": "attention", "block": 2}, "`block` must be 0 to 1. Received: block=2"),
        ({"method": "attention", "head": 2}, "`head` must be 0 to 1. Received: head=2"),
        ({"method": "attention", "block": True}, "`block` must be 0 to 1"),
        ({"method": "grad_cam", "block": 2}, "`block` must be 0 to 1"),
        ({"method": "integrated_gradients", "steps": 0}, "`steps`"),
        ({"method": "integrated_gradients", "baseline": np.zeros((3, 3))}, "`baseline` must be a number or an image"),
        ({"target": 4}, "`target` must be 0 to 3"),
    ],
)
def test_mistakes(arguments, message, images):
    with pytest.raises(ValueError, match=message):
        explain(small_classifier(), images, **arguments)
