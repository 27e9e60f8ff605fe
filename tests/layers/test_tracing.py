"""Layers and models that are traced on a batch of two and run on one of three: outputs are those of the eager model.

While a backend traces, a batch size is unknown (TensorFlow), a symbol (JAX, torch.export) or, with `torch.jit.trace`
and the ONNX exporter built on it, a tensor like all other sizes. No check may decide by it.
"""

import io
import warnings

import keras
import numpy as np
import pytest

from keras_vit_edu import layers
from keras_vit_edu.layers.layer_normalization import LayerNormalization
from keras_vit_edu.models import CNNClassifier, ViTClassifier
from tests.support import BACKEND, assert_agree, random_weights, to_numpy, vit_classifier

SMALL = {"num_classes": 3, "image_shape": (8, 8, 1), "patch_size": 4, "projection_dim": 8, "num_layers": 2,
         "num_heads": 2, "key_dim": 4, "mlp_dim": 16}  # fmt: skip


def model_of(layer, *shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def attention(**arguments):
    tokens = keras.Input((4, 8))
    layer = layers.MyMultiHeadAttention(2, 4, value_dim=arguments.pop("value_dim", None))
    return keras.Model(tokens, layer(tokens, tokens, **arguments))


def masked_attention():
    tokens, mask = keras.Input((4, 8)), keras.Input((4, 4), dtype="bool")
    return keras.Model([tokens, mask], layers.MyMultiHeadAttention(2, 4)(tokens, tokens, attention_mask=mask))


def preset(name):
    return lambda: ViTClassifier.from_preset(name, load_weights=False)


MODELS = {
    "Patches": lambda: model_of(layers.Patches(2), 8, 8, 1),
    "Patches, channels first": lambda: model_of(layers.Patches(2, data_format="channels_first"), 1, 8, 8),
    "ShiftedPatches": lambda: model_of(layers.ShiftedPatches(2), 8, 8, 1),
    "ConvStem": lambda: model_of(layers.ConvStem((4, 4), pools=(1, 2), normalization="layer"), 8, 8, 1),
    "PatchEncoder": lambda: model_of(layers.PatchEncoder(4, 8, num_prefix_tokens=1), 4, 6),
    "MyMultiHeadAttention": attention,
    "MyMultiHeadAttention, explicit": lambda: attention(value_dim=3),
    "MyMultiHeadAttention, scores": lambda: attention(return_attention_scores=True),
    "MyMultiHeadAttention, causal": lambda: attention(use_causal_mask=True),
    "MyMultiHeadAttention, masked": masked_attention,
    "TransformerBlock": lambda: model_of(
        layers.TransformerBlock(2, 4, 16, position_bias=layers.RelativePositionBias(None, (2, 2), 1.0)), 5, 8
    ),
    "RelativePositionBias": lambda: model_of(layers.RelativePositionBias(2, (2, 2), 1.0), 5, 8),
    "SequencePooling": lambda: model_of(layers.SequencePooling(), 4, 8),
    "TokenDense": lambda: model_of(layers.TokenDense(3, activation="gelu"), 4, 8),
    "LayerNormalization": lambda: model_of(LayerNormalization(), 4, 8),
    "PortableDropout": lambda: model_of(layers.PortableDropout(0.5), 8),
    "ViTClassifier, flatten": lambda: vit_classifier(**SMALL, head_units=(4,)),
    "ViTClassifier, token": lambda: vit_classifier(**SMALL, head="token", num_prefix_tokens=1, head_units=()),
    "ViTClassifier, mean": lambda: vit_classifier(**SMALL, head="mean", locality=1.0, stem="shifted"),
    "ViTClassifier, sequence": lambda: vit_classifier(**SMALL, head="sequence", stem="conv", stem_filters=(4, 4)),
    "CNNClassifier": lambda: CNNClassifier(3, image_shape=(8, 8, 1), filters=(4,)),
    "vit_mnist_program_p": preset("vit_mnist_program_p"),
    "vit_mnist_hybrid": preset("vit_mnist_hybrid"),
    "vit_mnist_pure": preset("vit_mnist_pure"),
}
# The presets take a while; their layers are those above.
FEW = [name for name in MODELS if not name.startswith("vit_mnist")]
# On TensorFlow and JAX each layer once, and a classifier that holds the others.
FEWER = (
    "Patches", "ShiftedPatches", "ConvStem", "PatchEncoder", "MyMultiHeadAttention, masked", "TransformerBlock",
    "RelativePositionBias", "SequencePooling", "ViTClassifier, sequence", "CNNClassifier",
)  # fmt: skip


def model_and_inputs(name):
    """A model with weights of which none hides, two inputs and three inputs."""
    model = MODELS[name]()
    if name in FEW:
        random_weights(model)
    rng = np.random.default_rng(0)

    def inputs(batch):
        return [rng.normal(size=(batch, *x.shape[1:])) > 0 if x.dtype == "bool"
                else rng.normal(size=(batch, *x.shape[1:])).astype("float32") for x in model.inputs]  # fmt: skip

    return model, inputs(2), inputs(3)


def argument(arrays):
    """What a functional model is called with."""
    return arrays[0] if len(arrays) == 1 else arrays


def assert_runs_as(model, run, *batches, tolerance=1e-5):
    for arrays in batches:
        expected = [to_numpy(x) for x in keras.tree.flatten(model(argument(arrays)))]
        found = [to_numpy(x) for x in keras.tree.flatten(run(arrays))]
        for one, other in zip(found, expected, strict=True):
            assert_agree(one, other, tolerance)


if BACKEND == "torch":
    import torch

    def tensors(arrays):
        return [torch.tensor(array) for array in arrays]

    @pytest.mark.parametrize("name", MODELS)
    def test_a_trace_of_two_runs_on_three(name):
        model, two, three = model_and_inputs(name)
        with warnings.catch_warnings(record=True) as caught, torch.no_grad():
            warnings.simplefilter("always")
            trace = torch.jit.trace(model, (argument(tensors(two)),))
        ours = [str(w) for w in caught if issubclass(w.category, torch.jit.TracerWarning) and "vit_edu" in w.filename]
        assert not ours  # a Python number, or a verdict, made of what is traced
        assert_runs_as(model, lambda arrays: trace(argument(tensors(arrays))), two, three)

    @pytest.mark.parametrize("name", FEW)
    def test_an_export_of_two_runs_on_three(name):
        model, two, three = model_and_inputs(name)
        batch = torch.export.Dim("batch", min=2, max=64)
        sizes = [{0: batch} for _ in two]
        program = torch.export.export(
            model, (argument(tensors(two)),), dynamic_shapes=((argument(sizes),),), strict=False
        ).module()
        assert_runs_as(model, lambda arrays: program(argument(tensors(arrays))), two, three)

    @pytest.mark.parametrize("name", MODELS)
    def test_an_onnx_file_of_two_runs_on_three(name):
        pytest.importorskip("onnx")
        onnxruntime = pytest.importorskip("onnxruntime")
        model, two, three = model_and_inputs(name)

        class Positional(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, *arguments):
                return self.model(argument(list(arguments)))

        file, names = io.BytesIO(), [f"input_{i}" for i in range(len(two))]
        torch.onnx.export(Positional().eval(), tuple(tensors(two)), file, dynamo=False, input_names=names,
                          dynamic_axes={name: {0: "batch"} for name in names})  # fmt: skip
        session = onnxruntime.InferenceSession(file.getvalue())
        assert_runs_as(
            model, lambda arrays: session.run(None, dict(zip(names, arrays, strict=True))), two, three, tolerance=1e-4
        )

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
    def test_a_trace_in_training_mode_takes_one_mask():
        layer = layers.PortableDropout(0.5, seed=3)
        layer.build((2, 8))
        x = torch.ones(2, 8)
        before = torch.get_rng_state()
        with torch.no_grad():
            torch.jit.trace(lambda x: layer(x, training=True), x, check_trace=False)
        assert torch.equal(torch.get_rng_state(), before)
        assert layer.seed_generator.state.value.tolist() == [3, 1]


if BACKEND == "tensorflow":
    import tensorflow as tf

    @pytest.mark.parametrize("name", FEWER)
    def test_a_graph_of_an_unknown_batch_runs_on_any(name):
        model, two, three = model_and_inputs(name)
        signature = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in model.inputs]
        graph = tf.function(lambda *arguments: model(argument(list(arguments))), input_signature=signature)
        assert_runs_as(model, lambda arrays: graph(*map(tf.constant, arrays)), two, three)


if BACKEND == "jax":
    import jax

    @pytest.mark.parametrize("name", FEWER)
    def test_an_export_of_a_symbolic_batch_runs_on_any(name):
        model, two, three = model_and_inputs(name)
        (batch,) = jax.export.symbolic_shape("batch")
        symbols = [jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for x in model.inputs]
        exported = jax.export.export(jax.jit(lambda *arguments: model(argument(list(arguments)))))(*symbols)
        assert_runs_as(model, lambda arrays: exported.call(*arrays), two, three)


def test_layer_normalization_is_keras_own(rng):
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    ours, theirs = LayerNormalization(epsilon=1e-6), keras.layers.LayerNormalization(epsilon=1e-6)
    for layer in (ours, theirs):
        layer.build(x.shape)
        random_weights(layer)
    np.testing.assert_array_equal(to_numpy(ours(x)), to_numpy(theirs(x)))
