"""A preset with weights for images of another size, or for other classes."""

import numpy as np
import pytest

from keras_vit_edu.layers.patch_encoder import bicubic_matrix
from keras_vit_edu.models import CNNClassifier, ViTClassifier
from keras_vit_edu.models.weight_names import weights_by_name
from tests.support import random_weights, to_numpy, vit_classifier

pytestmark = [pytest.mark.quick, pytest.mark.lowest]

SMALL = {
    "num_classes": 3, "image_shape": (8, 12, 1), "patch_size": 4, "projection_dim": 8, "num_layers": 1, "num_heads": 2,
    "key_dim": 3, "mlp_dim": 10, "num_prefix_tokens": 1, "head": "token", "head_units": (6,),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    model = vit_classifier(**SMALL, locality=0.5)
    random_weights(model)
    model.save_to_preset(tmp_path / "preset")
    return tmp_path / "preset"


def arrays(model):
    return {name: to_numpy(weight) for name, weight in weights_by_name(model).items()}


def test_other_classes_keep_the_backbone_and_get_a_new_head(folder):
    before, after = arrays(ViTClassifier.from_preset(folder)), arrays(ViTClassifier.from_preset(folder, num_classes=5))
    assert after["logits/kernel"].shape == (6, 5)
    for name, array in after.items():
        is_same = array.shape == before[name].shape and (array == before[name]).all()
        assert is_same == name.startswith("backbone/"), name
    assert not after["head_dense_0/bias"].any()  # as a new layer begins


def test_as_many_classes_as_before_change_nothing(folder):
    before = arrays(ViTClassifier.from_preset(folder))
    after = arrays(ViTClassifier.from_preset(folder, num_classes=3, image_shape=[8, 12, 1]))
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name])


def test_another_size_interpolates_the_positions_and_keeps_the_rest(folder):
    before = arrays(ViTClassifier.from_preset(folder))
    after = arrays(ViTClassifier.from_preset(folder, image_shape=(16, 16, 1)))
    changed = {name for name in after if after[name].shape != before[name].shape}
    assert changed == {
        "backbone/patch_encoder/position_embedding", "backbone/transformer_block_0/position_bias/table"
    }  # fmt: skip
    for name in set(after) - changed:  # the head reads the class token, so its weights fit
        np.testing.assert_array_equal(after[name], before[name])
    positions, expected = (
        after["backbone/patch_encoder/position_embedding"],
        before["backbone/patch_encoder/position_embedding"],
    )
    np.testing.assert_array_equal(positions[0], expected[0])  # the class token has no place
    rows, columns = bicubic_matrix(2, 4), bicubic_matrix(3, 4)
    grid = np.einsum("ir,jc,rcd->ijd", rows, columns, expected[1:].reshape(2, 3, 8))
    np.testing.assert_allclose(positions[1:], grid.reshape(16, 8), rtol=0, atol=1e-6)
    # A table has a number for each offset, of 2 * 2 - 1 rows and 2 * 3 - 1 columns.
    table = before["backbone/transformer_block_0/position_bias/table"].reshape(2, 3, 5)
    table = np.einsum("ir,jc,hrc->hij", bicubic_matrix(3, 7), bicubic_matrix(5, 7), table).reshape(2, 49)
    np.testing.assert_allclose(after["backbone/transformer_block_0/position_bias/table"], table, rtol=0, atol=1e-6)


def test_a_head_that_counts_tokens_is_new_for_another_size(tmp_path):
    model = vit_classifier(**{**SMALL, "head": "flatten"})
    random_weights(model)
    model.save_to_preset(tmp_path)
    after = arrays(ViTClassifier.from_preset(tmp_path, image_shape=(16, 16, 1)))
    assert after["head_dense_0/kernel"].shape == (17 * 8, 6)
    assert (after["logits/kernel"] != to_numpy(model.get_layer("logits").kernel)).all()


@pytest.mark.parametrize("arguments", [{"image_shape": (8, 12, 3)}, {"num_classes": 4, "projection_dim": 9}])
def test_weights_that_cannot_be_adapted_are_named(arguments, folder):
    with pytest.raises(ValueError, match=r"are not those of this model. Only there: backbone/.*Only in the model: "):
        ViTClassifier.from_preset(folder, **arguments)


def test_a_network_of_convolutions_takes_other_classes_and_sizes(tmp_path):
    model = CNNClassifier(3, (8, 12, 1), filters=(2, 3), head_units=(5,))
    random_weights(model)
    model.save_to_preset(tmp_path)
    for arguments in ({"num_classes": 4}, {"image_shape": (16, 16, 1)}):
        after = CNNClassifier.from_preset(tmp_path, **arguments)
        kernel = "stage_1_convolution_1"
        np.testing.assert_array_equal(
            to_numpy(after.get_layer(kernel).kernel), to_numpy(model.get_layer(kernel).kernel)
        )
        assert not to_numpy(after.get_layer("logits").bias).any()
