import numpy as np
import pytest

from keras_vit_edu.explain import rollout

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


def test_three_tokens_by_hand():
    """Token 1 copies token 0; token 2 mixes 0 and 1; token 0 attends to itself. Then, in a second block, 0 reads 2."""
    first = [[1, 0, 0], [1, 0, 0], [0.5, 0.5, 0]]
    second = [[0, 0, 1], [0, 1, 0], [0, 0, 1]]
    # (A + I) / 2 of both, multiplied by hand.
    mixing = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]])
    expected = [[0.5 + 0.125, 0.125, 0.25], mixing[1].tolist(), mixing[2].tolist()]
    found = rollout([np.array([[first]], "float32"), np.array([[second]], "float32")])
    np.testing.assert_allclose(found[0], expected, atol=1e-7)


def another_rollout(scores, heads, discard):
    """The same from the paper, entry by entry."""
    blocks, batch, count = len(scores), len(scores[0]), scores[0].shape[-1]
    result = np.zeros((batch, count, count))
    for b in range(batch):
        flow = np.identity(count)
        for block in range(blocks):
            attention = np.zeros((count, count))
            for t in range(count):
                for s in range(count):
                    of_heads = [float(scores[block][b, h, t, s]) for h in range(scores[block].shape[1])]
                    attention[t, s] = {
                        "mean": sum(of_heads) / len(of_heads),
                        "max": max(of_heads),
                        "min": min(of_heads),
                    }[heads]
            limit = sorted(attention.ravel())[: int(discard * count**2)]
            for t in range(count):
                for s in range(count):
                    if limit and attention[t, s] <= limit[-1] and s != t:
                        attention[t, s] = 0
                    attention[t, s] += t == s
            flow = attention / attention.sum(1)[:, None] @ flow
        result[b] = flow
    return result


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
@pytest.mark.parametrize("discard", [0.0, 0.4, 0.9])
def test_against_another_implementation(heads, discard, rng):
    scores = [rng.dirichlet(np.ones(5), (2, 3, 5)) for _ in range(4)]
    found = rollout(scores, heads, discard)
    np.testing.assert_allclose(found, another_rollout(scores, heads, discard), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=2), 1, atol=1e-12)


def test_uniform_attention_gives_a_uniform_map_off_the_diagonal():
    found = rollout([np.full((1, 2, 4, 4), 0.25)] * 3)
    off = found[0][~np.eye(4, dtype=bool)]
    np.testing.assert_allclose(off, off[0])
    np.testing.assert_allclose(np.diag(found[0]), found[0, 0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": "sum"}, "`heads` must be one of mean, max, min"),
        ({"discard": 1.0}, "`discard` must be"),
        ({"scores": []}, "`scores` must be a list of arrays"),
        ({"scores": [np.zeros((1, 2, 3, 4))]}, "`scores` must be a list of arrays"),
        ({"scores": [np.zeros((1, 2, 3, 3)), np.zeros((1, 2, 4, 4))]}, "`scores` must be a list of arrays"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        rollout(**{"scores": [np.zeros((1, 2, 3, 3))], **arguments})
