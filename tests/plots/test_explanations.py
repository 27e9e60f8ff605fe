import numpy as np
import pytest
from PIL import Image

plots = pytest.importorskip("keras_vit_edu.plots")
from keras_vit_edu.plots.explanations import picture  # noqa: E402

pytestmark = [pytest.mark.any_backend, pytest.mark.lowest]


@pytest.fixture
def digit(rng):
    return rng.random((8, 12, 1), "float32")


def test_pictures_are_stretched_only_if_they_must_be(digit):
    np.testing.assert_allclose(picture(digit), digit[..., 0])
    np.testing.assert_allclose(picture(np.array([[[0], [255]]], "uint8")), [[0, 1]])
    np.testing.assert_allclose(picture(np.array([[[-1.0], [0.0], [3.0]]])), [[0, 0.25, 1]])
    assert picture(np.zeros((2, 2, 3))).shape == (2, 2, 3)


def test_maps_side_by_side(digit, drawn, tmp_path):
    maps = {"roll_out": np.ones((2, 2, 3)), "pixels": np.full((2, 8, 12), -0.5)}
    plots.maps_side_by_side([digit, digit], maps, ["$7", "a\x1b"], tmp_path / "maps.png")
    assert len(drawn) == 6
    assert [entry.get_title() for entry in drawn[:3]] == ["$7", "roll out", "pixels"]
    overlay = drawn[1].images[1]
    np.testing.assert_array_equal(overlay.get_array(), np.ones((2, 3)))
    assert (overlay.get_clim(), overlay.get_extent()) == ((0, 1), [0, 12, 8, 0])  # the map covers the image
    assert drawn[2].images[1].get_clim() == (-0.5, 0.5)  # 0 is white
    assert "\x1b" not in drawn[3].get_title()
    assert Image.open(tmp_path / "maps.png").width > 300


def test_heads_and_blocks(digit, drawn, tmp_path):
    maps = np.arange(2 * 3 * 6.0).reshape(2, 3, 2, 3)
    plots.heads_and_blocks(digit, maps, tmp_path / "heads.png")
    assert [entry.get_title() for entry in drawn] == ["head 0", "head 1", "head 2", "", "", ""]
    assert [drawn[0].get_ylabel(), drawn[3].get_ylabel()] == ["block 0", "block 1"]
    np.testing.assert_array_equal(drawn[5].images[1].get_array(), maps[1, 2])


def test_distances(drawn, tmp_path):
    plots.attention_distances(np.array([[1.0, 3.0], [2.0, np.nan]]), tmp_path / "a.png", side=28)
    lines = drawn[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), [1, 2])
    np.testing.assert_array_equal(lines[2].get_ydata(), [2, 2])  # the mean, of the heads that have one
    assert drawn[0].get_ylim()[0] == 0


def test_positions(drawn, tmp_path):
    similarity = np.eye(6)
    plots.position_similarities(similarity, (2, 3), tmp_path / "a.png")
    assert len(drawn) == 7  # and the bar of colours
    np.testing.assert_array_equal(drawn[4].images[0].get_array(), similarity[4].reshape(2, 3))


def test_patches_have_their_numbers(digit, drawn, tmp_path):
    plots.patches_of(digit, (2, 3), tmp_path / "a.png")
    whole, *parts = drawn
    assert [axes.texts[0].get_text() for axes in parts] == list("012345")
    np.testing.assert_array_equal(parts[4].images[0].get_array(), digit[4:, 4:8, 0])
    np.testing.assert_array_equal(whole.images[0].get_array(), digit[..., 0])


def test_lines_join_the_pairs_with_the_most_attention(digit, drawn, tmp_path):
    scores = np.zeros((6, 6))
    scores[0, 5] = 0.5
    scores[5, 0] = 0.5
    scores[4, 1] = 0.6
    scores[2, 2] = 9.0  # itself: no pair
    plots.attention_lines(digit, scores, (2, 3), tmp_path / "a.png", strongest=2)
    (collection,) = drawn[0].collections
    segments = [np.asarray(segment).tolist() for segment in collection.get_segments()]
    assert segments == [[[2, 2], [10, 6]], [[6, 2], [6, 6]]]  # middles of patches of 4 x 4 pixels
    widths = collection.get_linewidths()
    assert widths[0] > widths[1]
