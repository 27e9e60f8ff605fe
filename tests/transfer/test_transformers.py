"""`open_vit` against a third party: the ViT and DeiT of transformers, by way of keras_hub's converter."""

import numpy as np
import pytest

from keras_vit_edu.transfer import load_preset, open_vit
from tests.support import assert_agree, relative_difference, to_numpy

pytest.importorskip("keras_hub", reason="keras_hub is not installed", exc_type=ImportError)
pytest.importorskip("torch", reason="torch is not installed", exc_type=ImportError)
transformers = pytest.importorskip("transformers", reason="transformers is not installed", exc_type=ImportError)

pytestmark = pytest.mark.hub

CLASSES = 5
SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 16,
    "patch_size": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,  # keras_hub's converter does not read a ViT's
    "num_labels": CLASSES,
    "attn_implementation": "eager",  # the one that gives scores
}
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")


def with_random_weights(model):
    """The torch model, every parameter random, none 0 or 1."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def logits_and_scores(model):
    """Of the torch model on `IMAGES`: `(2, CLASSES)`, and `(2, h, T, T)` per layer."""
    import torch

    with torch.no_grad():
        output = model(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2)), output_attentions=True)
    logits = output.cls_logits if hasattr(output, "cls_logits") else output.logits
    return logits.numpy(), [scores.numpy() for scores in output.attentions]


@pytest.fixture(params=["ViT", "DeiT"])
def third_party(request, tmp_path):
    """A transformers model and the folder that `save_pretrained` made of it."""
    if request.param == "ViT":
        model = transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES))
    else:
        model = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**SIZES))
    with_random_weights(model).save_pretrained(tmp_path)
    return model, tmp_path


def test_logits_and_the_attention_of_every_layer_are_those_of_transformers(third_party):
    model, folder = third_party
    expected, expected_scores = logits_and_scores(model)
    ours = open_vit(load_preset(folder))
    assert_agree(to_numpy(ours(IMAGES)), expected, 1e-4)
    scores = ours.attention_scores(IMAGES)
    assert len(scores) == len(expected_scores) == SIZES["num_hidden_layers"]
    for actual, wanted in zip(scores, expected_scores, strict=True):
        assert_agree(to_numpy(actual), wanted, 1e-4)
    assert relative_difference(to_numpy(scores[1]), expected_scores[0]) > 1e-2


@pytest.mark.parametrize("third_party", ["DeiT"], indirect=True)
def test_the_logits_of_a_deit_are_neither_the_distilled_ones_nor_the_mean(third_party):
    import torch

    model, folder = third_party
    with torch.no_grad():
        output = model(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2)))
    ours = to_numpy(open_vit(load_preset(folder))(IMAGES))
    for other in (output.distillation_logits, output.logits):
        assert relative_difference(ours, other.numpy()) > 1e-2
