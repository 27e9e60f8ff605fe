import pytest

from keras_vit_edu import datasets
from tests.training.small_runs import go, without_pictures


@pytest.fixture(scope="session")
def small():
    sample = datasets.load("mnist-sample")
    return datasets.ImageDataset(
        "mnist-sample", "the package", sample.x_train[:220], sample.y_train[:220], sample.x_test[:60],
        sample.y_test[:60], sample.class_names,
    )  # fmt: skip


@pytest.fixture(scope="session")
def uninterrupted(small, tmp_path_factory):
    """The model and the folder of a run of `RECIPE` that nobody interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    with without_pictures():
        return go(folder, small), folder


@pytest.fixture(scope="module")
def no_pictures():
    with without_pictures():
        yield
