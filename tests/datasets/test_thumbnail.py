import numpy as np
import pytest

from keras_vit_edu.datasets.thumbnail import thumbnail

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


def test_blocks_are_averaged(rng):
    image = rng.integers(0, 256, (66, 41, 3)).astype("uint8")
    small = thumbnail(image, side=20)  # blocks of 66 // 20 = 3
    blocks = image[:66, :39].reshape(22, 3, 13, 3, 3).astype("int64")
    np.testing.assert_array_equal(small, blocks.sum(axis=(1, 3)) // 9)


def test_a_small_image_stays_as_it_is(rng):
    image = rng.integers(0, 256, (28, 28, 1)).astype("uint8")
    np.testing.assert_array_equal(thumbnail(image), image)


@pytest.mark.parametrize("shape", [(1, 100_000, 3), (100_000, 2, 3), (1, 1, 3)])
def test_a_strip_keeps_a_pixel_at_least(shape):
    small = thumbnail(np.full(shape, 7, "uint8"))
    assert min(small.shape) >= 1
    assert max(small.shape) < 640
    assert (small == 7).all()
