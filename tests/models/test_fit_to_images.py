"""Every preset takes images of any size, in which its patches fit."""

import json

import numpy as np
import pytest

from keras_vit_edu.models import overrides_for_images
from keras_vit_edu.models.preset import Preset

pytestmark = [pytest.mark.lowest, pytest.mark.any_backend, pytest.mark.quick]

PRESETS = list(Preset.presets)


@pytest.mark.parametrize("preset", PRESETS)
def test_images_like_the_presets_own_change_nothing(preset):
    """The configuration is what a run is known by."""
    assert overrides_for_images(preset, (28, 28, 1), 10) == {}


@pytest.mark.parametrize("shape", [(32, 32, 3), (30, 40, 3), (8, 8, 1), (28, 28, 3)])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_other_images(preset, shape):
    small = {} if preset == "cnn_mnist" else {"num_layers": 1}
    found = overrides_for_images(preset, shape, 7, small)
    model = Preset.from_preset(preset, load_weights=False, **found)
    assert model(np.zeros((1, *shape), "float32")).shape == (1, 7)
    assert json.loads(json.dumps(found)) == found
    if preset != "cnn_mnist":
        rows, columns = model.backbone.grid_size
        assert 4 <= rows <= 16
        assert 4 <= columns <= 16
        assert (rows * model.backbone.patch_size[0], columns * model.backbone.patch_size[1]) == shape[:2]


@pytest.mark.parametrize(
    ("preset", "side", "patch", "pools"),
    [
        ("vit_mnist_program_p", 56, None, None),  # 7 divides it
        ("vit_mnist_program_p", 64, 8, None),
        ("vit_mnist_program_p", 224, 14, None),  # 7 would make 32 x 32 patches
        ("vit_mnist_hybrid", 32, None, None),
        ("vit_mnist_hybrid", 224, 16, [1, 2, 1, 2, 2, 2]),
        ("vit_mnist_hybrid", 96, 6, [1, 2, 1, 3, 1, 1]),
        ("vit_mnist_hybrid", 27, 3, [1, 3, 1, 1, 1, 1]),
    ],
)
def test_patches_stay_near_their_size(preset, side, patch, pools):
    found = overrides_for_images(preset, (side, side, 1), 10)
    assert found.get("patch_size") == (None if patch is None else [patch, patch])
    assert found.get("stem_pools") == pools


def test_what_is_overridden_stays():
    given = {"patch_size": 16, "num_classes": 5, "num_layers": 2}
    found = overrides_for_images("vit_mnist_program_p", (32, 32, 3), 7, given)
    assert found == {**given, "image_shape": [32, 32, 3]}
    # Of a convolutional stem the pools follow the patches.
    found = overrides_for_images("vit_mnist_hybrid", (32, 32, 1), 10, {"patch_size": 8})
    assert found == {"patch_size": 8, "image_shape": [32, 32, 1], "stem_pools": [1, 2, 1, 2, 1, 2]}
    found = overrides_for_images("vit_mnist_hybrid", (30, 30, 1), 10, {"stem_pools": [1, 2, 1, 1, 1, 1]})
    assert "patch_size" not in found
    # Images of another shape than those that there are: `train` says so.
    assert overrides_for_images("vit_mnist_pure", (32, 32, 1), 10, {"image_shape": [8, 8, 1]}) == {
        "image_shape": [8, 8, 1]
    }


def test_channels_come_first_where_the_preset_has_them_first():
    found = overrides_for_images("vit_mnist_program_p", (35, 28, 3), 10, {"data_format": "channels_first"})
    assert found["image_shape"] == [3, 35, 28]
    assert Preset.from_preset("vit_mnist_program_p", load_weights=False, **found).input_shape == (None, 3, 35, 28)


@pytest.mark.parametrize("preset", ["vit_mnist_program_p", "vit_mnist_pure", "vit_mnist_hybrid"])
def test_where_no_patch_fits_the_override_is_named(preset):
    with pytest.raises(ValueError, match=r"29x29: override patch_size=N \(1, 29 divide both sides\)"):
        overrides_for_images(preset, (29, 29, 3), 10)
    with pytest.raises(ValueError, match=r"31x37: override patch_size=N \(only 1 divides both\)"):
        overrides_for_images(preset, (31, 37, 3), 10)
    overrides_for_images(preset, (29, 29, 3), 10, {"patch_size": 29})


def test_a_convolutional_network_wants_enough_pixels():
    with pytest.raises(ValueError, match=r"4x4 pixels can be halved 2 times: override filters=\[32, 64\]"):
        overrides_for_images("cnn_mnist", (4, 4, 1), 10)
    assert overrides_for_images("cnn_mnist", (4, 4, 1), 10, {"filters": [8]})["image_shape"] == [4, 4, 1]


def test_a_preset_that_there_is_not():
    with pytest.raises(ValueError, match="There is no preset 'vit_mnist_q'"):
        overrides_for_images("vit_mnist_q", (28, 28, 1), 10)
