"""keras_vit_edu: Vision Transformer layers, models and presets for Keras 3, the same on every backend.

Layers are in `keras_vit_edu.layers`, models in `keras_vit_edu.models`, classifiers of photographs in
`keras_vit_edu.transfer`. `load_classifier` takes the name of any trained one.
"""

from keras_vit_edu import _backend, _interruption, _tensorflow_log
from keras_vit_edu._version import __version__ as __version__

if _backend.OUR_COMMAND:
    _interruption.hold_for_good()
if not _backend.ONLY_HELP:
    _backend.choose_backend()  # comes first
    with _backend.explaining():
        if _backend.OUR_COMMAND:
            _tensorflow_log.settle()
        from keras_vit_edu import (
            datasets,
            explain,
            initializers,
            layers,
            models,
            parity,
            random,
            training,
            transfer,
        )
        from keras_vit_edu.load_classifier import LoadedClassifier, load_classifier

__all__ = [
    "LoadedClassifier",
    "datasets",
    "explain",
    "initializers",
    "layers",
    "load_classifier",
    "models",
    "parity",
    "random",
    "training",
    "transfer",
]
