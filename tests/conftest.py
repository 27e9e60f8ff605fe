"""Every test starts from the same seed and from Keras's default settings, and leaves them so."""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell does that to what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

from keras_vit_edu.random import set_seed  # noqa: I001  (the package chooses the backend, so it comes before Keras)
import keras
import pytest
from hypothesis import settings

from keras_vit_edu._backend import installed_backends

settings.register_profile("default", deadline=None)
settings.load_profile("default")

FULL_DATA = os.environ.get("KERAS_VIT_EDU_DATA") and os.path.abspath(os.environ["KERAS_VIT_EDU_DATA"])


def pytest_collection_modifyitems(items):
    """Add markers by rule, so that a test need not carry them. `pyproject.toml` explains each marker."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("lowest")
            item.add_marker("quick")
        if "keras_hub" in getattr(item, "fixturenames", ()):
            item.add_marker("hub")
        if item.get_closest_marker("together") and len(installed_backends()) < 2:
            item.add_marker(pytest.mark.skip(reason="wants several backends in one environment"))


@pytest.fixture(autouse=True)
def _fresh_keras_settings():
    set_seed(0)
    policy, data_format = keras.config.dtype_policy(), keras.config.image_data_format()
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(data_format)


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture
def full_data():
    """The folder with all of MNIST and Fashion-MNIST; without one the test is skipped."""
    if not FULL_DATA:
        pytest.skip("wants all of MNIST: set KERAS_VIT_EDU_DATA to a folder with mnist.npz and fashion_mnist.npz")
    return FULL_DATA
