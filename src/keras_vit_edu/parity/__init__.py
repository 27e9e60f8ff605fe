"""Are the numbers the same? Each layer again in float64 NumPy, and outputs and gradients to compare with it."""

from keras_vit_edu.parity import oracle
from keras_vit_edu.parity.derivatives import output_and_gradients

__all__ = ["oracle", "output_and_gradients"]
