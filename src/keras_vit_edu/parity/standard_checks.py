"""The checks that come with the package, in the order they run. The tolerances are those of the documentation."""

import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from rich.console import Console

from keras_vit_edu import datasets, random, training
from keras_vit_edu.datasets import Batches
from keras_vit_edu.layers import MyMultiHeadAttention, PatchEncoder, Patches, PortableDropout, TransformerBlock
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.reference_logits import recorded_logits, reference_logits
from keras_vit_edu.parity import oracle
from keras_vit_edu.parity.checks import CannotRunHere, Measurement, Scene, check
from keras_vit_edu.parity.compare import EQUAL_BITS, Tolerance
from keras_vit_edu.parity.derivatives import output_and_gradients
from keras_vit_edu.parity.run import load_arrays, save_arrays

LAYER = {"outputs": Tolerance("relative", 2e-6), "gradients": Tolerance("relative", 1e-5)}
TWO_PATHS = {"outputs": Tolerance("relative", 1e-6), "gradients": Tolerance("relative", 1e-5)}
LOGITS = Tolerance("relative", 1e-5)
LOSSES = Tolerance("absolute", 1e-4)
HALF_PRECISION = {"outputs": Tolerance("relative", 2e-2)}
NO_DROPOUT: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0}


# What several checks need. --------------------------------------------------------------------------------------------


def drawn(name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Normal numbers in float32, the same everywhere; another name gives others."""
    return (scale * random.normal(zlib.crc32(name.encode()) >> 1, (0,), shape)).astype("float32")


def draw_weights(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Give every weight of a built layer drawn numbers, so that none is 0 or 1 and hides; the weights by path."""
    weights = {relative_path(layer, weight): drawn(relative_path(layer, weight), weight.shape, 0.6)
               for weight in layer.weights}  # fmt: skip
    for weight in layer.weights:
        weight.assign(weights[relative_path(layer, weight)])
    return weights


def relative_path(layer: keras.layers.Layer, weight: keras.Variable) -> str:
    """A weight's path inside of its layer, as the oracle calls it."""
    return weight.path.removeprefix(f"{layer.name}/").removeprefix("backbone/")


def program_p() -> ViTClassifier:
    """The course's model, as the seed 0 makes it."""
    random.set_seed(0)
    return ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False)


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


# Equal bits. ----------------------------------------------------------------------------------------------------------


@check("initial-weights", {"weights": EQUAL_BITS}, referenced=True)
def initial_weights(scene: Scene) -> Iterator[Measurement]:
    """Program P with seed 0, before training: each of its weights."""
    model = program_p()
    for weight in model.weights:
        yield Measurement("weights", relative_path(model, weight), ops.convert_to_numpy(weight))


@check("dropout", {"seeds": EQUAL_BITS, "masks": EQUAL_BITS}, referenced=True)
def dropout(scene: Scene) -> Iterator[Measurement]:
    """PortableDropout's mask, step by step, beside NumPy's; and the seeds that set_random_seed gives."""
    random.set_seed(0)
    seeds = [ops.convert_to_numpy(PortableDropout(0.1).seed_generator.state)[0] for _ in range(3)]
    yield Measurement("seeds", "after set_random_seed(0)", np.array(seeds, "int64"))
    ones = np.ones((5, 7, 64), "float32")
    for rate in (0.1, 0.5):
        layer = PortableDropout(rate, seed=3)
        for step in range(4):
            kept = ops.convert_to_numpy(layer(ones, training=True)) != 0
            expected = random.dropout_mask(3, step, ones.shape, rate)
            yield Measurement("masks", f"rate {rate}, step {step}", kept, expected)


@check("batches", {"labels": EQUAL_BITS, "images": EQUAL_BITS}, referenced=True)
def batches(scene: Scene) -> Iterator[Measurement]:
    """Which images come in which batch, epoch by epoch, beside the ranks of NumPy's Philox."""
    number = np.arange(1000)
    images = np.stack([number // 256, number % 256], axis=1).astype("uint8")[:, None, :, None]  # (1000, 1, 2, 1)
    seed = 5
    loader = Batches(images, number, batch_size=64, seed=seed)
    for epoch in (0, 1, 7):
        loader.epoch = epoch
        pairs = [loader[i] for i in range(len(loader))]
        words = np.random.Philox(key=seed, counter=[0, 0, 0, epoch]).random_raw(len(number))
        order = np.argsort(words, kind="stable")
        labels = np.concatenate([labels for _, labels in pairs])
        yield Measurement("labels", f"epoch {epoch}", labels, order.astype("int32"))
        pixels = np.concatenate([images for images, _ in pairs])
        yield Measurement("images", f"epoch {epoch}", pixels, images[order].astype("float32") / np.float32(255))


@check("augmentation", {"images": EQUAL_BITS, "labels": EQUAL_BITS}, referenced=True)
def augmentation(scene: Scene) -> Iterator[Measurement]:
    """Batches of the bundled sample, augmented: as digits, as clothes, and by MixUp and CutMix."""
    sample = datasets.load("mnist-sample")
    images, labels = sample.x_test[:32], np.eye(10, dtype="float32")[sample.y_test[:32]]
    augmentations = {**datasets.AUGMENTATIONS, "mixed": datasets.Augmentation(mixup=0.8, cutmix=1.0)}
    for name, augment in augmentations.items():
        for epoch, index in ((0, 0), (0, 2), (7, 1)):
            varied, shares = augment(images, labels, 5, epoch, index)
            yield Measurement("images", f"{name}, epoch {epoch}, batch {index}", varied)
            yield Measurement("labels", f"{name}, epoch {epoch}, batch {index}", shares)


@check("patches", {"patches": EQUAL_BITS}, referenced=True)
def patches(scene: Scene) -> Iterator[Measurement]:
    """Patches of images, and images put together again."""
    images = (random.bits(1, 0, (2, 6, 8, 3)) >> 24).astype("uint8")
    floats = images.astype("float32") / np.float32(255)
    layer = Patches((3, 2))
    yield Measurement("patches", "uint8", ops.convert_to_numpy(layer(images)), oracle.patches(images, (3, 2)))
    cut = layer(floats)
    yield Measurement("patches", "float32", ops.convert_to_numpy(cut), oracle.patches(floats, (3, 2)))
    yield Measurement("patches", "restored", ops.convert_to_numpy(layer.restore(cut, (6, 8))), floats)
    first = Patches((3, 2), data_format="channels_first")(floats.transpose(0, 3, 1, 2))
    yield Measurement("patches", "channels first", ops.convert_to_numpy(first), oracle.patches(floats, (3, 2)))


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


# Files. ---------------------------------------------------------------------------------------------------------------


def _small_classifier() -> ViTClassifier:
    random.set_seed(0)
    return ViTClassifier(
        projection_dim=8, num_layers=1, num_heads=2, key_dim=4, mlp_dim=12, num_prefix_tokens=1, head="token",
        head_units=(6,), name="small",
    )  # fmt: skip


def _write_model(scene: Scene) -> None:
    model = _small_classifier()
    draw_weights(model)
    images = drawn("images", (4, 28, 28, 1))
    for _ in range(2):  # so that the dropouts' counters are not 0
        model(images, training=True)
    training.save_uncompiled(model, scene.folder / "model.keras")
    weights = {f"weights/{i}": ops.convert_to_numpy(weight) for i, weight in enumerate(model.weights)}
    calls = {
        "logits": ops.convert_to_numpy(model(images)),
        "training": ops.convert_to_numpy(model(images, training=True)),
    }
    save_arrays(scene.folder / "numbers.npz", {**weights, **calls})


@check("save-load", {"weights": EQUAL_BITS, "logits": LOGITS, "next training call": LOGITS}, prepare=_write_model)
def save_and_load(scene: Scene) -> Iterator[Measurement]:
    """A .keras file of every backend, loaded: its weights, its logits, its next dropout masks."""
    images = drawn("images", (4, 28, 28, 1))
    for writer, folder in scene.prepared.items():
        model = keras.saving.load_model(folder / "model.keras")
        written = load_arrays(folder / "numbers.npz")
        for i, weight in enumerate(model.weights):
            name = f"{relative_path(model, weight)} from {writer}"
            yield Measurement("weights", name, ops.convert_to_numpy(weight), written[f"weights/{i}"])
        yield Measurement("logits", f"from {writer}", ops.convert_to_numpy(model(images)), written["logits"])
        again = ops.convert_to_numpy(model(images, training=True))
        yield Measurement("next training call", f"from {writer}", again, written["training"])


# Training. ------------------------------------------------------------------------------------------------------------


@check("training", {"loss of each step": LOSSES})
def program_p_trains(scene: Scene) -> Iterator[Measurement]:
    """Program P trains on the bundled sample with dropout: 200 steps of 256 images; quick: 40 of 32."""
    steps, batch_size = (200, 256) if scene.suite == "full" else (40, 32)
    sample = datasets.load("mnist-sample")
    loader = Batches(sample.x_train, sample.y_train, batch_size, seed=0)
    model = program_p()
    model.compile(
        optimizer=training.Recipe().build_optimizer(model, len(loader)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = []
    for step in range(steps):
        loader.epoch, batch = divmod(step, len(loader))
        losses.append(float(model.train_on_batch(*loader[batch])))
    yield Measurement("loss of each step", f"{steps} steps of {batch_size}", np.array(losses, "float32"))


EPOCHS = 3


class _Interruption(keras.callbacks.Callback):
    """Ends a run after the checkpoint of its first epoch, as Ctrl-C does."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise KeyboardInterrupt


def _train_small(folder: Any, callbacks: Any = ()) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Train, or go on with, a small run; its weights and dropout counters, and its losses by epoch."""
    sample = datasets.load("mnist-sample")
    images = datasets.ImageDataset(
        "part", "the package", sample.x_train[:400], sample.y_train[:400], sample.x_test[:50], sample.y_test[:50],
        sample.class_names,
    )  # fmt: skip
    model = _small_classifier()
    recipe = training.Recipe(epochs=EPOCHS, batch_size=60, ema=0.9, schedule="cosine")
    with training.RunFolder(folder) as run:
        training.train(model, images, run, recipe, Console(quiet=True), callbacks)
        history = np.genfromtxt(run / "history.csv", delimiter=",", names=True)
    state = {f"{i} {variable.name}": ops.convert_to_numpy(variable) for i, variable in enumerate(model.variables)}
    return state, {name: history[name].astype("float32") for name in ("loss", "val_loss")}


def _interrupt_a_run(scene: Scene) -> None:
    try:
        _train_small(scene.folder / "run", [_Interruption()])
    except KeyboardInterrupt:
        return
    raise RuntimeError("the run was not interrupted")


@check("resume", {"weights, same backend": EQUAL_BITS, "losses": LOSSES}, prepare=_interrupt_a_run)
def interrupted_and_resumed(scene: Scene) -> Iterator[Measurement]:
    """A run that is interrupted on each backend and resumed on this one, beside an uninterrupted one."""
    expected_state, expected_losses = _train_small(scene.folder / "uninterrupted")
    for begun_on, folder in scene.prepared.items():
        mine = scene.folder / f"begun on {begun_on}"
        shutil.copytree(folder / "run", mine)
        state, losses = _train_small(mine)
        if begun_on == scene.backend:
            for name, values in state.items():
                yield Measurement("weights, same backend", name, values, expected_state[name])
        for name, values in losses.items():
            yield Measurement("losses", f"{name}, begun on {begun_on}", values, expected_losses[name])
