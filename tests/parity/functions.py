"""What the tests of `parity.check` build, by module path, in other processes."""

import itertools
import os
import subprocess
import sys

import keras

from keras_vit_edu.layers import MyMultiHeadAttention, PatchEncoder, Patches, PortableDropout, TransformerBlock

_count = itertools.count(2)
NOT_A_FUNCTION = 3


def dense():
    """A layer with Keras's own initializer, which draws other numbers on each backend."""
    return keras.layers.Dense(3, activation="tanh")


def two_inputs():
    """A functional model with two inputs, one of them ints, and two outputs."""
    tokens, numbers = keras.Input((4,), dtype="int32"), keras.Input((5,))
    embedded = keras.layers.Flatten()(keras.layers.Embedding(7, 2)(tokens))
    joined = keras.layers.Concatenate()([embedded, keras.layers.Dense(3)(numbers)])
    return keras.Model([tokens, numbers], [keras.layers.Dense(2)(joined), joined])


def portable_dropout():
    return PortableDropout(0.5)


def attention():
    return MyMultiHeadAttention(2, 3, dropout=0.25)


def transformer_block():
    return TransformerBlock(2, 3, 5)


def patch_encoder():
    return PatchEncoder(6, 4, num_prefix_tokens=1)


def patches():
    return Patches(2)


def depends_on_the_backend():
    """Adds a number that is 1e-3 larger on every backend but the first by name."""
    return keras.layers.Rescaling(1.0, offset={"jax": 0.0, "tensorflow": 1e-3, "torch": 2e-3}[keras.backend.backend()])


def in_bfloat16():
    return keras.layers.Dense(3, dtype="bfloat16")


class Numbers(keras.layers.Layer):
    """Gives ints, complex numbers and floats."""

    def build(self, shape):
        self.weight = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        y = x * self.weight
        return keras.ops.cast(y, "int32"), keras.ops.view_as_complex(keras.ops.stack([y, 2 * y], -1)), y


def numbers():
    return Numbers()


def ints():
    return keras.layers.Lambda(lambda x: keras.ops.cast(3 * x, "int32"))


def one_hot():
    return keras.layers.CategoryEncoding(num_tokens=5, output_mode="one_hot")


@keras.saving.register_keras_serializable(package="tests")
class Twice(keras.layers.Layer):
    """Has two layers of one name, so two kernels of one path."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = (keras.layers.Dense(4, use_bias=False, name="dense") for _ in range(2))

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 4))

    def call(self, x):
        return self.second(self.first(x))


def twice():
    return Twice()


def nan():
    return keras.layers.Lambda(lambda x: x * float("nan"))


def raises():
    raise ZeroDivisionError("as it was asked to")


def talks():
    """Reads from standard input, and writes to standard output, a child of it too."""
    try:
        answer = input("a line? ")
    except EOFError:
        answer = "nothing"
    print('{"keras_vit_edu.parity": {"waiting": true}}', answer, flush=True)
    os.write(1, b"{\n")
    subprocess.run([sys.executable, "-c", "print(input())"], stderr=subprocess.DEVNULL)
    return dense()


def exits():
    sys.exit("enough")


def another_each_time():
    return keras.layers.Dense(next(_count))


def another_on_each_backend():
    return keras.layers.Dense({"jax": 1, "tensorflow": 2, "torch": 3}[keras.backend.backend()])


def of_a_float_and_an_int():
    values, factors = keras.Input((4,)), keras.Input((4,), dtype="int32")
    return keras.Model([values, factors], keras.layers.Dense(3)(values * keras.ops.cast(factors, "float32")))


def of_named_inputs():
    values, keep = keras.Input((4,), name="values"), keras.Input((4,), dtype="bool", name="keep")
    outputs = keras.layers.Dense(3)(keras.ops.where(keep, values, 0.0))
    return keras.Model({"values": values, "keep": keep}, outputs)
