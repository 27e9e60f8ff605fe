"""keras_vit_edu: Vision Transformer layers, models and presets for Keras 3, the same on every backend."""

import sys

from keras_vit_edu import _backend, _interruption, _tensorflow_log

if _backend.is_our_command(sys.argv, sys.orig_argv):
    _interruption.hold_for_good()
if not _backend.ONLY_HELP:
    _backend.choose_backend()  # comes first
    with _backend.explaining():
        if _backend.is_our_command(sys.argv, sys.orig_argv):
            _tensorflow_log.settle()
        from keras_vit_edu import datasets, initializers, layers, models, parity, random, training, transfer

__version__ = "0.1.0.dev0"

__all__ = ["datasets", "initializers", "layers", "models", "parity", "random", "training", "transfer"]
