"""Standard checks of layers and models: against the float64 oracle, and one path against another."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import datasets
from keras_vit_edu.layers import MyMultiHeadAttention, PatchEncoder, TransformerBlock
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.reference_logits import recorded_logits, reference_logits
from keras_vit_edu.parity import oracle
from keras_vit_edu.parity.checks import CannotRunHere, Measurement, Scene, check
from keras_vit_edu.parity.compare import Tolerance
from keras_vit_edu.parity.derivatives import output_and_gradients
from keras_vit_edu.parity.drawn import draw_weights, drawn, program_p, relative_path

LAYER = {"outputs": Tolerance("relative", 2e-6), "gradients": Tolerance("relative", 1e-5)}
TWO_PATHS = {"outputs": Tolerance("relative", 1e-6), "gradients": Tolerance("relative", 1e-5)}
LOGITS = Tolerance("relative", 1e-5)
HALF_PRECISION = {"outputs": Tolerance("relative", 2e-2)}
NO_DROPOUT: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0}


def by_equations(
    layer: keras.layers.Layer,
    inputs: Mapping[str, np.ndarray],
    call: Callable[..., Mapping[str, Any]],
    equations: Callable[..., Mapping[str, np.ndarray]],
    prefix: str = "",
) -> Iterator[Measurement]:
    """Outputs and gradients of a layer with drawn weights, beside those of the oracle.

    Args:
        layer: built.
        inputs: float arrays by name.
        call: `call(layer, *inputs)` gives outputs by name; gradients are of the first.
        equations: `equations(weights, *inputs)` gives the same in float64.
        prefix: of the names.
    """
    weights = draw_weights(layer)
    expected = equations(weights, *inputs.values())
    for name, output in call(layer, *inputs.values()).items():
        yield Measurement("outputs", prefix + name, ops.convert_to_numpy(output), expected[name])

    first = next(iter(expected))
    cotangent = drawn("cotangent", expected[first].shape)
    _, of_inputs, of_weights = output_and_gradients(
        layer, list(inputs.values()), cotangent, lambda layer, *values: call(layer, *values)[first]
    )
    gradients = dict(zip(inputs, of_inputs, strict=True))
    gradients |= {path.removeprefix(f"{layer.name}/"): gradient for path, gradient in of_weights.items()}
    given = {**inputs, **weights}
    for name, gradient in gradients.items():

        def loss(value: np.ndarray, name: str = name) -> Any:
            changed = {**given, name: value}
            values = [changed.pop(argument) for argument in inputs]
            return (equations(changed, *values)[first] * cotangent).sum()

        yield Measurement("gradients", prefix + name, gradient, oracle.gradient(loss, given[name]))


# Layers and model, against the float64 oracle. ------------------------------------------------------------------------


@check("patch-encoder", LAYER, referenced=True)
def patch_encoder(scene: Scene) -> Iterator[Measurement]:
    """PatchEncoder with prefix tokens."""
    layer = PatchEncoder(6, 5, num_prefix_tokens=2, name="patch_encoder")
    layer.build((None, 6, 4))
    yield from by_equations(
        layer,
        {"patches": drawn("patches", (2, 6, 4))},
        lambda layer, x: {"tokens": layer(x)},
        lambda weights, x: {"tokens": oracle.patch_encoder(weights, x)},
    )


@check("attention", LAYER, referenced=True)
def attention(scene: Scene) -> Iterator[Measurement]:
    """MyMultiHeadAttention under a mask: output and scores of the explicit path, output of the fused one."""
    layer = MyMultiHeadAttention(3, 4, dropout=0.0, name="attention")
    layer.build((None, 4, 6), (None, 5, 7), (None, 5, 6))
    inputs = {"query": drawn("query", (2, 4, 6)), "value": drawn("value", (2, 5, 7)), "key": drawn("key", (2, 5, 6))}
    mask = np.tri(4, 5, 1, dtype=bool)

    def call(layer: Any, query: Any, value: Any, key: Any) -> dict[str, Any]:
        output, scores = layer(query, value, key, attention_mask=mask, return_attention_scores=True)
        return {"output": output, "scores": scores, "fused": layer(query, value, key, attention_mask=mask)}

    def equations(weights: Any, query: Any, value: Any, key: Any) -> dict[str, np.ndarray]:
        output, scores = oracle.multi_head_attention(weights, query, value, key, num_heads=3, attention_mask=mask)
        return {"output": output, "scores": scores, "fused": output}

    yield from by_equations(layer, inputs, call, equations)


@check("transformer-block", LAYER, referenced=True)
def transformer_block(scene: Scene) -> Iterator[Measurement]:
    """TransformerBlock with one GELU and with two."""
    # Small tokens, so that the epsilon in the norms counts.
    tokens = {"tokens": drawn("tokens", (2, 5, 6), 0.05)}
    mlps: dict[str, dict[str, Any]] = {"": {}, "two GELUs: ": {"output_activation": "gelu"}}
    for prefix, arguments in mlps.items():
        layer = TransformerBlock(3, 4, 7, name="transformer_block", **NO_DROPOUT, **arguments)
        layer.build((None, 5, 6))

        def call(layer: Any, tokens: Any) -> dict[str, Any]:
            output, scores = layer(tokens, return_attention_scores=True)
            return {"output": output, "scores": scores}

        def equations(weights: Any, tokens: Any, arguments: Any = arguments) -> dict[str, np.ndarray]:
            output, scores = oracle.transformer_block(weights, tokens, num_heads=3, **arguments)
            return {"output": output, "scores": scores}

        yield from by_equations(layer, tokens, call, equations, prefix)


@check("logits", {"logits": LOGITS}, referenced=True)
def logits(scene: Scene) -> Iterator[Measurement]:
    """Program P with its initial weights, on images of the bundled sample."""
    model = program_p()
    images = datasets.load("mnist-sample").x_test[:16].astype("float32") / np.float32(255)
    weights = {relative_path(model, weight): ops.convert_to_numpy(weight) for weight in model.weights}
    expected = oracle.vit_classifier(weights, images, model.get_config())
    yield Measurement("logits", "16 digits", ops.convert_to_numpy(model(images)), expected)


@check("trained-presets", {"logits": LOGITS, "between backends": LOGITS})
def trained_presets(scene: Scene) -> Iterator[Measurement]:
    """Every bundled preset with weights, on 32 fixed images, beside the logits that are stored with it."""
    for name, metadata in Preset.presets.items():
        if metadata["weights_sha256"]:
            found = reference_logits(Preset.from_preset(name))
            yield Measurement("logits", name, found, recorded_logits(metadata))
            yield Measurement("between backends", name, found)


def _require_matrix_product(dtype: str) -> None:
    ones = np.ones((2, 2), "float32")
    try:
        ops.convert_to_numpy(ops.matmul(ops.cast(ones, dtype), ops.cast(ones, dtype)))
    except Exception as error:
        raise CannotRunHere(f"no product of matrices in {dtype}: {error}") from error


def _in_half_precision(dtype: str) -> Iterator[Measurement]:
    _require_matrix_product(dtype)
    layer = TransformerBlock(3, 4, 7, name="transformer_block", dtype=f"mixed_{dtype}", **NO_DROPOUT)
    layer.build((None, 5, 6))
    weights, tokens = draw_weights(layer), drawn("tokens", (2, 5, 6))
    expected, expected_scores = oracle.transformer_block(weights, tokens, num_heads=3)
    output, scores = layer(tokens, return_attention_scores=True)
    yield Measurement("outputs", "output", ops.convert_to_numpy(output), expected)
    yield Measurement("outputs", "scores", ops.convert_to_numpy(scores), expected_scores)
    yield Measurement("outputs", "fused", ops.convert_to_numpy(layer(tokens)), expected)


@check("bfloat16", HALF_PRECISION)
def bfloat16(scene: Scene) -> Iterator[Measurement]:
    """TransformerBlock computing in bfloat16, its weights in float32."""
    yield from _in_half_precision("bfloat16")


@check("float16", HALF_PRECISION)
def float16(scene: Scene) -> Iterator[Measurement]:
    """TransformerBlock computing in float16, its weights in float32."""
    yield from _in_half_precision("float16")


# Two paths to the same numbers. ---------------------------------------------------------------------------------------


def _two_paths(layer: Any, call: Callable[..., Any], other: Any, other_call: Callable[..., Any]) -> Iterator[Any]:
    """Outputs and gradients of self-attention one way, beside those the other way."""
    tokens = drawn("tokens", (2, 17, 32))
    cotangent = drawn("cotangent", tokens.shape)
    output, of_inputs, of_weights = output_and_gradients(layer, [tokens], cotangent, call)
    expected, expected_of_inputs, expected_of_weights = output_and_gradients(other, [tokens], cotangent, other_call)
    yield Measurement("outputs", "output", output, expected)
    yield Measurement("gradients", "tokens", of_inputs[0], expected_of_inputs[0])
    for (path, gradient), theirs in zip(of_weights.items(), expected_of_weights.values(), strict=True):
        # (Keras has an axis for the heads.)
        yield Measurement("gradients", path.removeprefix(f"{layer.name}/"), gradient, theirs.reshape(gradient.shape))


def _explicit(layer: Any, tokens: Any) -> Any:
    return layer(tokens, tokens, return_attention_scores=True)[0]


def _fused(layer: Any, tokens: Any) -> Any:
    return layer(tokens, tokens)


class _FusedAttention(MyMultiHeadAttention):
    """Takes the fused path on every backend."""

    @staticmethod
    def _fused_is_faster() -> bool:
        return True


def _attention_for_two_paths() -> MyMultiHeadAttention:
    layer = _FusedAttention(4, 8, dropout=0.0, name="attention")
    layer.build((None, 17, 32), (None, 17, 32))
    draw_weights(layer)
    return layer


@check("explicit-fused", TWO_PATHS)
def explicit_and_fused(scene: Scene) -> Iterator[Measurement]:
    """MyMultiHeadAttention's fused path, beside its explicit one."""
    layer = _attention_for_two_paths()
    yield from _two_paths(layer, _fused, layer, _explicit)


@check("keras-attention", LAYER)
def keras_attention(scene: Scene) -> Iterator[Measurement]:
    """MyMultiHeadAttention, beside Keras's MultiHeadAttention with the same weights."""
    layer = _attention_for_two_paths()
    yield from _two_paths(layer, _explicit, layer.to_keras(), _explicit)
