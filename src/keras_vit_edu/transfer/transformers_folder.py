"""Load a ViT or DeiT of transformers, from the folder that `save_pretrained` wrote, into this library's layers.

    config.json                the sizes, and the names of the classes
    preprocessor_config.json   see `transformers_images.py`
    model.safetensors          the weights; or several files, which model.safetensors.index.json names

Neither transformers nor keras_hub is imported. All files are checked before a model is built, so the model is never
larger than the arrays in the files.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._files import read_json
from keras_vit_edu.layers.patch_encoder import resize_positions
from keras_vit_edu.models import ViTBackbone, ViTClassifier, size_limits
from keras_vit_edu.transfer.transformers_weights import StoredWeights

CONFIG = "config.json"
PREFIX_TOKENS = {"vit": 1, "deit": 2}  # the class token; DeiT's distillation token
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh"}


class WithoutHead(ValueError):
    """The stored model gives features, but a classifier was requested."""


def model_type_of(folder: str | Path) -> str | None:
    """The type of the model that transformers wrote into a folder, such as `"vit"`; None if there is none.

    Raises:
        ValueError: if `config.json` is not JSON.
    """
    file = Path(folder) / CONFIG
    config = read_json(file) if file.is_file() else None
    # keras_hub's own folders have a file of that name too.
    if not isinstance(config, dict) or "registered_name" in config or "model_type" not in config:
        return None
    return str(config["model_type"])


def load_model(
    folder: Path,
    num_new_classes: int | None = None,
    image_size: int | Sequence[int] | None = None,
    load_weights: bool = True,
    dtype: Any = None,
) -> tuple[ViTClassifier, tuple[str, ...] | None]:
    """Load the classifier in a folder, and its class names.

    The logits are those of transformers on the class token. (transformers' `DeiTForImageClassificationWithTeacher`
    gives the mean of these, its `cls_logits`, and of those of the distillation token.)

    Args:
        folder: what `save_pretrained` wrote of a ViT or DeiT.
        num_new_classes: of a new head of zeros; None for the head that is there.
        image_size: another size, for which positions are interpolated; None for that of the folder.
        load_weights: False for random weights, drawn by `keras.utils.set_random_seed`.
        dtype: a dtype policy; None for Keras's.

    Returns:
        The model, and the names; None if there is a new head, or `config.json` names no class.

    Raises:
        ValueError: if a file is missing, damaged or of another kind of model, or a size is not as it should be.
        WithoutHead: if there is no head, and none is asked for.
    """
    sizes = _Sizes.read(folder)
    stored = StoredWeights(folder) if load_weights else None
    if stored is not None:
        stored.check_backbone(sizes.expected_shapes(stored.num_layers))
    else:
        classes = len(sizes.class_names or "ab")
        size_limits.check({**sizes.arguments(), "head": "token", "head_units": (), "num_classes": classes})
    names, count = None, num_new_classes
    if count is None:
        names = sizes.class_names
        count = _classes_of_head(folder, sizes, stored)
        if names is not None and len(names) != count:
            raise ValueError(
                f"{CONFIG} must name each class of the head. Received: {folder} with {len(names)} names for {count} "
                "classes"
            )
    backbone = ViTBackbone(**sizes.arguments(image_size), dtype=dtype)
    model = ViTClassifier(
        backbone, count, head="token", head_units=(), head_dropout=0.0, head_dtype=backbone.dtype_policy
    )
    if stored is not None:
        _assign(backbone, sizes, stored)
    head = model.get_layer("logits")
    if num_new_classes is not None:
        head.set_weights([np.zeros(weight.shape, "float32") for weight in head.weights])
    elif stored is not None:
        head.kernel.assign(stored.read(f"{stored.head}.weight").T)  # (C, D) to (D, C)
        head.bias.assign(stored.read(f"{stored.head}.bias"))
    return model, names


def _classes_of_head(folder: Path, sizes: "_Sizes", stored: StoredWeights | None) -> int:
    if stored is None:
        if "ForImageClassification" in sizes.architecture:
            return len(sizes.class_names or "ab")  # transformers omits the names only for two classes
    elif stored.head is not None:
        shape = stored.shapes[f"{stored.head}.weight"]
        stored.check({f"{stored.head}.weight": (shape[0], sizes.width), f"{stored.head}.bias": (shape[0],)})
        return shape[0]
    raise WithoutHead(f"The model has no head for classes. Received: {folder}, a {sizes.architecture or 'bare model'}")


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """The settings of a ViT or DeiT in `config.json`."""

    model_type: str
    architecture: str
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    width: int
    num_layers: int
    num_heads: int
    key_dim: int
    mlp_dim: int
    has_qkv_bias: bool
    epsilon: float
    activation: str
    dropout: float
    attention_dropout: float
    class_names: tuple[str, ...] | None

    @classmethod
    def read(cls, folder: Path) -> "_Sizes":
        config = read_json(folder / CONFIG)
        model_type = config.get("model_type") if isinstance(config, dict) else None
        if model_type not in PREFIX_TOKENS:
            raise ValueError(
                f"Of transformers' models, ViT and DeiT can be read. Received: {folder} with model_type={model_type!r}"
            )
        try:
            return cls._of(config)
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG} cannot be used. {error}") from None

    @classmethod
    def _of(cls, config: dict[str, Any]) -> "_Sizes":
        def whole(name: str, default: int) -> int:
            return _checks.positive_int(name, config.get(name, default))

        if config.get("quantization_config") is not None:
            raise ValueError("The weights must not be quantized. Received: a `quantization_config`")
        if config.get("num_channels", 3) != 3:
            raise ValueError(f"Images must have 3 channels. Received: num_channels={config['num_channels']!r}")
        activation = config.get("hidden_act", "gelu")
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise ValueError(f"`hidden_act` must be one of {', '.join(ACTIVATIONS)}. Received: {activation!r}")
        bias = config.get("qkv_bias", True)
        if not isinstance(bias, bool):
            raise ValueError(f"`qkv_bias` must be true or false. Received: qkv_bias={bias!r}")
        epsilon = _checks.non_negative("layer_norm_eps", config.get("layer_norm_eps", 1e-12))
        image_size = _checks.pair_of_ints("image_size", config.get("image_size", 224))
        patch_size = _checks.pair_of_ints("patch_size", config.get("patch_size", 16))
        if any(side % patch for side, patch in zip(image_size, patch_size, strict=True)):
            raise ValueError(
                f"`patch_size` must divide the image. Received: image_size={image_size}, patch_size={patch_size}"
            )
        width, heads = whole("hidden_size", 768), whole("num_attention_heads", 12)
        head_dim = config.get("head_dim")
        if head_dim is None and width % heads:
            raise ValueError(
                f"`num_attention_heads` must divide `hidden_size`. Received: {heads} heads, hidden_size={width}"
            )
        architectures = config.get("architectures")
        return cls(
            model_type=config["model_type"],
            architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
            image_size=image_size,
            patch_size=patch_size,
            width=width,
            num_layers=whole("num_hidden_layers", 12),
            num_heads=heads,
            key_dim=width // heads if head_dim is None else _checks.positive_int("head_dim", head_dim),
            mlp_dim=whole("intermediate_size", 3072),
            has_qkv_bias=bias,
            epsilon=epsilon,
            activation=ACTIVATIONS[activation],
            dropout=_checks.dropout_rate("hidden_dropout_prob", config.get("hidden_dropout_prob", 0.0)),
            attention_dropout=_checks.dropout_rate(
                "attention_probs_dropout_prob", config.get("attention_probs_dropout_prob", 0.0)
            ),
            class_names=_class_names(config.get("id2label")),
        )

    @property
    def num_prefix_tokens(self) -> int:
        return PREFIX_TOKENS[self.model_type]

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def num_tokens(self) -> int:
        return self.num_prefix_tokens + math.prod(self.grid)

    def expected_shapes(self, num_stored: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of the backbone, by name; `num_stored` is how many layers there are."""
        if num_stored != self.num_layers:
            raise ValueError(
                f"The weights must have as many layers as {CONFIG} says. "
                f"Received: {num_stored} layers, num_hidden_layers={self.num_layers}"
            )
        width, inner = self.width, self.num_heads * self.key_dim
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.patch_embeddings.projection.weight": (width, 3, *self.patch_size),
            "embeddings.patch_embeddings.projection.bias": (width,),
            "embeddings.position_embeddings": (1, self.num_tokens, width),
            "layernorm.weight": (width,),
            "layernorm.bias": (width,),
        }
        for token in ("cls_token", "distillation_token")[: self.num_prefix_tokens]:
            shapes[f"embeddings.{token}"] = (1, 1, width)
        for i in range(self.num_layers):
            for norm in ("layernorm_before", "layernorm_after"):
                shapes |= {f"layers.{i}.{norm}.{part}": (width,) for part in ("weight", "bias")}
            for name, (outputs, inputs) in {
                **{f"attention.{part}_proj": (inner, width) for part in "qkv"},
                "attention.o_proj": (width, inner),
                "mlp.fc1": (self.mlp_dim, width),
                "mlp.fc2": (width, self.mlp_dim),
            }.items():
                shapes[f"layers.{i}.{name}.weight"] = (outputs, inputs)
                if self.has_qkv_bias or name[-6:] not in ("q_proj", "k_proj", "v_proj"):
                    shapes[f"layers.{i}.{name}.bias"] = (outputs,)
        return shapes

    def arguments(self, image_size: int | Sequence[int] | None = None) -> dict[str, Any]:
        """Those of `ViTBackbone`; None for the image size that the folder says."""
        height, width = self.image_size if image_size is None else _checks.pair_of_ints("image_size", image_size)
        return {
            "image_shape": (height, width, 3),
            "patch_size": self.patch_size,
            "projection_dim": self.width,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            "num_prefix_tokens": self.num_prefix_tokens,
            "dropout": self.dropout,
            "hidden_dropout": 0.0,  # transformers drops out after the MLP, not inside it
            "projection_dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "embedding_dropout": self.dropout,
            "activation": self.activation,
            "layer_norm_epsilon": self.epsilon,
            "data_format": "channels_last",
        }


def _class_names(said: Any) -> tuple[str, ...] | None:
    """`{"0": "cat", "1": "dog"}` as a tuple, in the order of the numbers."""
    if said is None or said == {}:
        return None
    try:
        names = {int(number): name for number, name in said.items()}
        in_order = tuple(names[number] for number in range(len(said)))
    except (AttributeError, ValueError, TypeError, KeyError):
        raise ValueError(f"`id2label` must name the classes 0, 1, 2... Received: id2label={said!r:.100}") from None
    if not all(isinstance(name, str) and name.strip() for name in in_order):
        raise ValueError(f"The names in `id2label` must be strings, none empty. Received: id2label={said!r:.100}")
    return in_order


def _assign(backbone: ViTBackbone, sizes: _Sizes, stored: StoredWeights) -> None:
    """Give the backbone the stored weights."""
    patch_encoder = backbone.get_layer("patch_encoder")
    kernel = stored.read("embeddings.patch_embeddings.projection.weight")  # (D, 3, ph, pw)
    _set(patch_encoder.projection.kernel, kernel.transpose(2, 3, 1, 0))  # (ph, pw, 3, D) to (ph * pw * 3, D)
    _set(patch_encoder.projection.bias, stored.read("embeddings.patch_embeddings.projection.bias"))
    tokens = ("cls_token", "distillation_token")[: sizes.num_prefix_tokens]
    _set(patch_encoder.prefix_tokens, np.concatenate([stored.read(f"embeddings.{token}")[0] for token in tokens]))
    positions = stored.read("embeddings.position_embeddings")[0]  # (T, D)
    if backbone.grid_size != sizes.grid:
        own, patches = np.split(positions, [len(tokens)])
        positions = np.concatenate([own, resize_positions(patches, sizes.grid, backbone.grid_size)])
    _set(patch_encoder.position_embedding, positions)
    for i, block in enumerate(backbone.transformer_blocks):
        attention = block.attention
        for ours, theirs in (
            (block.attention_norm, "layernorm_before"),
            (attention.q_dense, "attention.q_proj"),
            (attention.k_dense, "attention.k_proj"),
            (attention.v_dense, "attention.v_proj"),
            (attention.out_dense, "attention.o_proj"),
            (block.mlp_norm, "layernorm_after"),
            (block.mlp_hidden, "mlp.fc1"),
            (block.mlp_output, "mlp.fc2"),
        ):
            _assign_layer(ours, f"layers.{i}.{theirs}", stored)
    _assign_layer(backbone.get_layer("encoder_norm"), "layernorm", stored)


def _assign_layer(layer: Any, name: str, stored: StoredWeights) -> None:
    """Assign a normalization, or a Dense layer, whose kernel is transposed in transformers."""
    weight = stored.read(f"{name}.weight")
    if isinstance(layer, keras.layers.LayerNormalization):
        _set(layer.gamma, weight)
        _set(layer.beta, stored.read(f"{name}.bias"))
        return
    _set(layer.kernel, weight.T)
    has_bias = f"{name}.bias" in stored.shapes
    _set(layer.bias, stored.read(f"{name}.bias") if has_bias else np.zeros(layer.bias.shape, "float32"))


def _set(variable: Any, value: np.ndarray) -> None:
    variable.assign(value.reshape(variable.shape))
