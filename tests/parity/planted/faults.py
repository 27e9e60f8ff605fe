"""Faults that a parity run must find. Each function changes the package, or Keras, in the process that calls it."""

import keras
from keras import ops

from keras_vit_edu.datasets import Batches
from keras_vit_edu.layers import MyMultiHeadAttention, Patches


def tanh_gelu():
    keras.activations.gelu.__defaults__ = (True,)  # approximate


def epsilon():
    original = keras.layers.LayerNormalization.build

    def build(self, input_shape):
        original(self, input_shape)
        self.epsilon = 1e-5

    keras.layers.LayerNormalization.build = build


def transposed_heads():
    def split(self, x):
        batch, length, width = ops.shape(x)
        return ops.swapaxes(ops.reshape(x, (batch, length, width // self.num_heads, self.num_heads)), 2, 3)

    MyMultiHeadAttention._split_heads = split


def dropout_without_counter():
    keras.random.SeedGenerator.next = lambda self, ordered=True: ops.convert_to_tensor(self.state)


def patches_in_column_order():
    original = Patches.call

    def call(self, images):
        patches = original(self, images)
        rows, columns = self.grid_size(images.shape)
        grid = ops.reshape(patches, (-1, rows, columns, patches.shape[-1]))
        return ops.reshape(ops.swapaxes(grid, 1, 2), patches.shape)

    Patches.call = call


def shuffled_batch():
    original = Batches.__getitem__

    def with_two_exchanged(self, index):
        order = [1, 0, *range(2, len(original(self, index)[1]))]
        return tuple(array[order] for array in original(self, index))

    Batches.__getitem__ = with_two_exchanged


def weights_in_another_order():
    original = keras.saving.load_model

    def load_model(*arguments, **keywords):
        model = original(*arguments, **keywords)
        weights = model.get_weights()
        kernels = [i for i, weight in enumerate(weights) if weight.ndim == 2]
        first, second = next((i, j) for i in kernels for j in kernels if i < j and weights[i].shape == weights[j].shape)
        weights[first], weights[second] = weights[second], weights[first]
        model.set_weights(weights)
        return model

    keras.saving.load_model = load_model


def nan():
    original = MyMultiHeadAttention._join_heads
    MyMultiHeadAttention._join_heads = lambda self, x: original(self, x) * float("nan")


FAULTS = {
    function.__name__: function
    for function in (
        tanh_gelu, epsilon, transposed_heads, dropout_without_counter, patches_in_column_order, shuffled_batch,
        weights_in_another_order, nan,
    )
}  # fmt: skip
