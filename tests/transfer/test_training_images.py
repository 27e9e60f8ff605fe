"""The images that a classifier is fine-tuned on."""

import os

import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu.transfer import (
    Preprocessing,
)
from keras_vit_edu.transfer.training_images import TrainingImages
from tests.transfer.small_classifier import PHOTOS

pytestmark = pytest.mark.any_backend


@pytest.mark.skipif(os.name != "posix", reason="a limit on the size of files is set as POSIX has it")
def test_pixels_that_do_not_fit_onto_the_disk_are_an_error_before_any_is_read(monkeypatch):
    import resource

    monkeypatch.setattr("keras_vit_edu.transfer.training_images.LARGEST_IN_MEMORY", 1000)
    images = TrainingImages((PHOTOS, np.arange(len(PHOTOS))))
    preprocessing = Preprocessing(16)
    on_disk = images.pixels(preprocessing, Console(quiet=True))
    assert isinstance(on_disk, np.memmap)
    np.testing.assert_array_equal(on_disk, list(images.at_size(preprocessing, range(len(PHOTOS)))))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=r"3,072 bytes of pixels do not fit into .*TMPDIR"):
            TrainingImages((PHOTOS, np.arange(len(PHOTOS)))).pixels(preprocessing, Console(quiet=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
