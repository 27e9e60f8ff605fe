"""One block of the transformer's encoder: attention, then an MLP, each around a skip connection."""

from typing import Any

import keras
from keras import ops

from keras_vit_edu import _checks, initializers, random
from keras_vit_edu._types import Activation, Initializer, Shape, Tensor
from keras_vit_edu.layers.hooks import through_hook
from keras_vit_edu.layers.layer_normalization import LayerNormalization
from keras_vit_edu.layers.my_multi_head_attention import MyMultiHeadAttention
from keras_vit_edu.layers.portable_dropout import PortableDropout
from keras_vit_edu.layers.relative_position_bias import RelativePositionBias
from keras_vit_edu.layers.template import layer_from, template_of
from keras_vit_edu.layers.token_dense import TokenDense


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class TransformerBlock(keras.layers.Layer):
    """A pre-norm transformer block: `(B, N, D)` to `(B, N, D)`.

    `x = x + attention(norm(x))`, then `x = x + mlp(norm(x))`

    Attention lets tokens look at each other. The MLP works on each token alone: a Dense layer of width `mlp_dim`, then
    one of width D. The skip connections let the signal and the gradient pass through many blocks. The normalisations
    stand inside the branches (pre-norm), so they leave that path untouched.

    Args:
        num_heads: number of attention heads.
        key_dim: size of one head.
        mlp_dim: width of the MLP's hidden layer.
        dropout: dropout rate after each Dense layer of the MLP, in training.
        attention_dropout: dropout rate of the attention scores, in training.
        activation: activation after the first Dense layer of the MLP. `"gelu"` is the exact GELU.
        output_activation: activation after the second Dense layer of the MLP. Defaults to none, as in the published
            ViT; the course's program has `"gelu"`.
        use_bias: whether the attention's projections have a bias. (The MLP always has one.)
        layer_norm_epsilon: number added to the variance in both normalisations.
        kernel_initializer: initializer of every kernel. If it has an int seed, each kernel derives its own seed from
            it.
        stochastic_depth: probability that training skips a branch (attention or MLP, drawn separately) for an image.
            Where the branch is kept, its output is divided by 1 - probability.
        hidden_dropout: dropout rate after the first Dense layer of the MLP. Defaults to `dropout`.
        projection_dropout: dropout rate of the attention's output, in training. (The published ViT has this dropout,
            usually with the rate of the MLP's; the course's program and DeiT do not.)
        seed: an int; each dropout derives its own seed from it. Defaults to new seeds, which
            `keras.utils.set_random_seed` fixes.
        position_bias: a layer from tokens to a bias of the attention scores, such as
            `RelativePositionBias(grid_size=(4, 4))`. The block uses a copy with its own `num_heads` and dtype. The last
            rows * columns tokens must be the patches, in reading order. Defaults to no bias.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        tokens: `(B, N, D)`.
        attention_mask: boolean `(N, N)`, `(B, N, N)` or `(B, num_heads, N, N)`; True where a token may attend.
        return_attention_scores: return `(tokens, scores)`.
        training: whether dropout and stochastic depth act.

    Returns:
        Tokens `(B, N, D)`. With `return_attention_scores` also the scores `(B, num_heads, N, N)`.

    Raises:
        ValueError: if a size is not a positive int, a rate is outside [0, 1), `position_bias` is not a layer, or there
            are fewer tokens than its patches.

    References:
        Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), equations 2 and 3.
        Huang et al., "Deep networks with stochastic depth" (ECCV 2016), arXiv 1603.09382.
        Xiong et al., "On layer normalization in the transformer architecture" (ICML 2020), on pre-norm.

    Examples:
        >>> import numpy as np
        >>> block = TransformerBlock(num_heads=4, key_dim=16, mlp_dim=128)
        >>> tokens, scores = block(np.zeros((2, 17, 64), "float32"), return_attention_scores=True)
        >>> tuple(tokens.shape), tuple(scores.shape)
        ((2, 17, 64), (2, 4, 17, 17))
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        mlp_dim: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation: Activation | None = "gelu",
        output_activation: Activation | None = None,
        use_bias: bool = True,
        layer_norm_epsilon: float = 1e-6,
        kernel_initializer: Initializer = "glorot_uniform",
        stochastic_depth: float = 0.0,
        hidden_dropout: float | None = None,
        projection_dropout: float = 0.0,
        seed: int | None = None,
        position_bias: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = _checks.positive_int("num_heads", num_heads)
        self.key_dim = _checks.positive_int("key_dim", key_dim)
        self.mlp_dim = _checks.positive_int("mlp_dim", mlp_dim)
        self.dropout = _checks.dropout_rate("dropout", dropout)
        self.attention_dropout = _checks.dropout_rate("attention_dropout", attention_dropout)
        self.activation = keras.activations.get(activation)
        self.output_activation = keras.activations.get(output_activation)
        self.use_bias = bool(use_bias)
        self.layer_norm_epsilon = float(layer_norm_epsilon)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.stochastic_depth = _checks.dropout_rate("stochastic_depth", stochastic_depth)
        self.hidden_dropout = None if hidden_dropout is None else _checks.dropout_rate("hidden_dropout", hidden_dropout)
        self.projection_dropout = _checks.dropout_rate("projection_dropout", projection_dropout)
        self.seed = random.check_seed(seed)
        self._position_bias_template = template_of("position_bias", position_bias)
        self.supports_masking = True

        policy = self.dtype_policy
        self.position_bias = None
        if self._position_bias_template is not None:
            self.position_bias = layer_from(
                self._position_bias_template, "position_bias", policy, num_heads=self.num_heads
            )
        self.attention_norm = LayerNormalization(epsilon=self.layer_norm_epsilon, dtype=policy, name="attention_norm")
        self.attention = MyMultiHeadAttention(
            self.num_heads,
            self.key_dim,
            dropout=self.attention_dropout,
            use_bias=self.use_bias,
            kernel_initializer=initializers.for_child(self.kernel_initializer, "attention"),
            seed=random.derive_seed(self.seed, "attention"),
            dtype=policy,
            name="attention",
        )
        self.attention_output_dropout = PortableDropout(
            self.projection_dropout,
            seed=random.derive_seed(self.seed, "attention_output"),
            dtype=policy,
            name="attention_output_dropout",
        )
        self.mlp_norm = LayerNormalization(epsilon=self.layer_norm_epsilon, dtype=policy, name="mlp_norm")
        self.mlp_hidden = TokenDense(
            self.mlp_dim,
            activation=self.activation,
            kernel_initializer=initializers.for_child(self.kernel_initializer, "mlp_hidden"),
            dtype=policy,
            name="mlp_hidden",
        )
        self.mlp_hidden_dropout = PortableDropout(
            self.dropout if self.hidden_dropout is None else self.hidden_dropout,
            seed=random.derive_seed(self.seed, "mlp_hidden"),
            dtype=policy,
            name="mlp_hidden_dropout",
        )
        self.mlp_output: Any = None  # its width is known in `build`
        self.mlp_output_dropout = PortableDropout(
            self.dropout, seed=random.derive_seed(self.seed, "mlp_output"), dtype=policy, name="mlp_output_dropout"
        )
        # Stochastic depth is dropout with one draw per image.
        self.attention_branch, self.mlp_branch = (
            PortableDropout(
                self.stochastic_depth,
                noise_shape=(None, 1, 1),
                seed=random.derive_seed(self.seed, name),
                dtype=policy,
                name=name,
            )
            for name in ("attention_branch", "mlp_branch")
        )

    def build(self, tokens_shape: Shape) -> None:
        shape = self.compute_output_shape(tokens_shape)
        hidden_shape = (*shape[:-1], self.mlp_dim)
        if self.position_bias is not None:
            self.position_bias.build(shape)
        self.attention_norm.build(shape)
        self.attention.build(shape, shape)
        self.attention_output_dropout.build(shape)
        self.mlp_norm.build(shape)
        self.mlp_hidden.build(shape)
        self.mlp_hidden_dropout.build(hidden_shape)
        self.mlp_output = TokenDense(
            shape[-1],
            activation=self.output_activation,
            kernel_initializer=initializers.for_child(self.kernel_initializer, "mlp_output"),
            dtype=self.dtype_policy,
            name="mlp_output",
        )
        self.mlp_output.build(hidden_shape)
        self.mlp_output_dropout.build(shape)
        self.attention_branch.build(shape)
        self.mlp_branch.build(shape)

    def call(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        self.compute_output_shape(tokens.shape)  # complains about a wrong rank
        normalised = self.attention_norm(tokens)  # (B, N, D)
        attended = self.attention(
            normalised,
            normalised,
            attention_mask=attention_mask,
            return_attention_scores=return_attention_scores,
            training=training,
            attention_bias=None if self.position_bias is None else self.position_bias(tokens),
        )
        scores = None
        if return_attention_scores:
            attended, scores = attended  # (B, N, D), (B, h, N, N)
        attended = self.attention_output_dropout(attended, training=training)
        tokens = ops.add(tokens, self.attention_branch(attended, training=training))

        hidden = self.mlp_hidden(self.mlp_norm(tokens))  # (B, N, mlp_dim)
        hidden = self.mlp_hidden_dropout(hidden, training=training)
        output = self.mlp_output_dropout(self.mlp_output(hidden), training=training)  # (B, N, D)
        tokens = through_hook(self, "tokens", ops.add(tokens, self.mlp_branch(output, training=training)))
        return (tokens, scores) if return_attention_scores else tokens

    def compute_output_shape(self, tokens_shape: Shape) -> tuple[int | None, ...]:
        known = _checks.known_sizes(tokens_shape)
        if len(known) != 3:
            raise ValueError(f"Tokens must have 3 dimensions, (B, N, D). Received: tokens of shape {known}")
        if isinstance(self.position_bias, RelativePositionBias):
            self.position_bias.compute_output_shape(tokens_shape)  # complains about tokens that do not fit the grid
        return known

    def compute_output_spec(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        self.compute_output_shape(tokens.shape)  # complains about a wrong rank
        return self.attention.compute_output_spec(
            tokens, tokens, attention_mask=attention_mask, return_attention_scores=return_attention_scores
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "activation": keras.activations.serialize(self.activation),
            "output_activation": keras.activations.serialize(self.output_activation),
            "use_bias": self.use_bias,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "stochastic_depth": self.stochastic_depth,
            "hidden_dropout": self.hidden_dropout,
            "projection_dropout": self.projection_dropout,
            "seed": self.seed,
            "position_bias": self._position_bias_template,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TransformerBlock":
        """The block that `get_config` describes; files written before 0.1.0 have `grid_size` and `locality` instead."""
        config = dict(config)
        grid_size, locality = config.pop("grid_size", None), config.pop("locality", 0.0)
        if grid_size is not None:
            config["position_bias"] = template_of("position_bias", RelativePositionBias(None, grid_size, locality))
        return super().from_config(config)
