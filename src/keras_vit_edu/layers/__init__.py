"""Keras layers of a Vision Transformer."""

from keras_vit_edu.layers.conv_stem import ConvStem
from keras_vit_edu.layers.fused_attention import fused_attention
from keras_vit_edu.layers.my_multi_head_attention import MyMultiHeadAttention, attention_weights
from keras_vit_edu.layers.patch_encoder import PatchEncoder
from keras_vit_edu.layers.patches import Patches
from keras_vit_edu.layers.portable_dropout import PortableDropout
from keras_vit_edu.layers.relative_position_bias import RelativePositionBias
from keras_vit_edu.layers.sequence_pooling import SequencePooling
from keras_vit_edu.layers.shifted_patches import ShiftedPatches
from keras_vit_edu.layers.token_dense import TokenDense
from keras_vit_edu.layers.transformer_block import TransformerBlock

# The course's name stays; this is the field's.
MultiHeadAttention = MyMultiHeadAttention

__all__ = [
    "ConvStem",
    "MultiHeadAttention",
    "MyMultiHeadAttention",
    "PatchEncoder",
    "Patches",
    "PortableDropout",
    "RelativePositionBias",
    "SequencePooling",
    "ShiftedPatches",
    "TokenDense",
    "TransformerBlock",
    "attention_weights",
    "fused_attention",
]
