import gzip
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vit_edu import datasets
from keras_vit_edu.datasets.sources import IDX_FILES

pytestmark = pytest.mark.any_backend


@pytest.fixture
def arrays(rng):
    """A small set in the shape of MNIST."""
    return {
        "x_train": rng.integers(0, 256, (30, 28, 28), dtype="uint8"),
        "y_train": rng.integers(0, 10, 30).astype("uint8"),
        "x_test": rng.integers(0, 256, (20, 28, 28), dtype="uint8"),
        "y_test": rng.integers(0, 10, 20).astype("uint8"),
    }


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("KERAS_VIT_EDU_DATA", raising=False)


def write_idx(folder, arrays, compress=False, names=IDX_FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in names.items():
        array = arrays[key]
        header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
        data = header + array.tobytes()
        (folder / (name + (".gz" if compress else ""))).write_bytes(gzip.compress(data, mtime=0) if compress else data)
    return folder


def assert_holds(dataset, arrays):
    for key, array in arrays.items():
        loaded = getattr(dataset, key)
        np.testing.assert_array_equal(loaded[..., 0] if key.startswith("x") else loaded, array)
    assert dataset.x_train.shape[1:] == (28, 28, 1)
    assert dataset.x_train.dtype == np.uint8
    assert dataset.y_train.dtype == np.int32


# The bundled sample.


def test_the_sample_is_balanced_like_mnist():
    sample = datasets.load("mnist-sample")
    assert sample.x_train.shape == (10_000, 28, 28, 1)
    assert sample.x_test.shape == (2_000, 28, 28, 1)
    # How often each digit stands among MNIST's 60,000 and 10,000, from its own description.
    for labels, whole in (
        (sample.y_train, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        (sample.y_test, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ):
        share = np.array(whole) * len(labels) / sum(whole)
        assert np.abs(np.bincount(labels) - share).max() < 1
    assert sample.class_names == tuple("0123456789")


def test_the_sample_is_part_of_mnist(full_data):
    sample, mnist = datasets.load("mnist-sample"), datasets.load("mnist", full_data)
    for part in ("train", "test"):
        images = getattr(mnist, f"x_{part}")
        digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
        labels = dict(zip(digests, getattr(mnist, f"y_{part}"), strict=True))
        chosen = getattr(sample, f"x_{part}")
        digests = [hashlib.sha256(x.tobytes()).digest() for x in chosen]
        assert len(set(digests)) == len(chosen)
        assert [labels[digest] for digest in digests] == getattr(sample, f"y_{part}").tolist()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_whole_sets_load(full_data, name):
    dataset = datasets.load(name, full_data)
    assert len(dataset.x_train) == 60_000
    assert len(dataset.x_test) == 10_000
    assert len(dataset.class_names) == 10


# Where data comes from.


def test_an_npz_file(tmp_path, arrays):
    np.savez(tmp_path / "digits.npz", **arrays)
    dataset = datasets.load("mnist", tmp_path / "digits.npz")
    assert_holds(dataset, arrays)
    assert dataset.source == str(tmp_path / "digits.npz")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_folder_of_idx_files(tmp_path, arrays, compress, name):
    dataset = datasets.load(name, write_idx(tmp_path / "files", arrays, compress))
    assert_holds(dataset, arrays)
    assert dataset.class_names[9] == {"mnist": "9", "fashion-mnist": "Ankle boot"}[name]


def test_idx_files_as_some_unpackers_name_them(tmp_path, arrays):
    names = {key: name.replace("-idx", ".idx") for key, name in IDX_FILES.items()}
    assert_holds(datasets.load("mnist", write_idx(tmp_path, arrays, names=names)), arrays)


def test_a_folder_with_both_sets_gives_the_one_asked_for(tmp_path, arrays):
    other = {**arrays, "y_test": 9 - arrays["y_test"]}
    np.savez(tmp_path / "mnist.npz", **arrays)
    np.savez(tmp_path / "fashion_mnist.npz", **other)
    assert_holds(datasets.load("mnist", tmp_path), arrays)
    assert_holds(datasets.load("fashion-mnist", tmp_path), other)


def test_a_folder_with_a_folder_for_each_set(tmp_path, arrays):
    other = {**arrays, "y_test": 9 - arrays["y_test"]}
    write_idx(tmp_path / "mnist", arrays)
    write_idx(tmp_path / "fashion-mnist", other)
    assert_holds(datasets.load("fashion-mnist", tmp_path), other)


def test_the_environment_variable_says_where(tmp_path, arrays, monkeypatch):
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(tmp_path))
    assert_holds(datasets.load("mnist"), arrays)


def test_one_file_for_all_is_not_taken_for_another_dataset(tmp_path, arrays, monkeypatch):
    def offline(*arguments, **keywords):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", offline)
    np.savez(tmp_path / "mnist.npz", **arrays)
    write_idx(tmp_path / "files", arrays)  # no name of their own: MNIST's
    for path in (tmp_path / "mnist.npz", tmp_path / "files"):
        monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(path))
        assert_holds(datasets.load("mnist"), arrays)
        with pytest.raises(ValueError, match="does not hold it, and Keras could not download it"):
            datasets.load("fashion-mnist")


def test_the_environment_variable_may_name_a_file_of_any_name(tmp_path, arrays, monkeypatch):
    np.savez(tmp_path / "digits.npz", **arrays)
    monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(tmp_path / "digits.npz"))
    assert_holds(datasets.load("mnist"), arrays)


def test_a_path_goes_before_the_environment_variable(tmp_path, arrays, monkeypatch):
    other = {**arrays, "y_test": 9 - arrays["y_test"]}
    np.savez(tmp_path / "mnist.npz", **other)
    np.savez(tmp_path / "mine.npz", **arrays)
    monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(tmp_path))
    assert_holds(datasets.load("mnist", tmp_path / "mine.npz"), arrays)


def test_else_keras_downloads(tmp_path, arrays):
    # Of Fashion-MNIST Keras takes whatever lies in its cache as downloaded.
    write_idx(tmp_path / "datasets" / "fashion-mnist", arrays, compress=True)
    program = (
        "import sys, numpy as np\n"
        "from keras_vit_edu import datasets\n"
        "loaded = datasets.load('fashion-mnist')\n"
        "print(loaded)\n"
        "np.savez('loaded.npz', **{name: getattr(loaded, name) for name in datasets.image_dataset.ARRAYS})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "<fashion-mnist: 30 + 20 images from Keras's download>\n", done.stderr
    with np.load(tmp_path / "loaded.npz") as loaded:
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name].reshape(array.shape), array)


def test_if_all_fails_one_message_has_the_recipe(tmp_path, monkeypatch):
    def offline(*arguments, **keywords):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"no route to host.*`path=...`.*KERAS_VIT_EDU_DATA.*mnist-sample") as error:
        datasets.load("mnist")
    assert f"KERAS_VIT_EDU_DATA={tmp_path} does not hold it" in str(error.value)


# Bad data.


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"x_train": np.zeros((30, 28, 27), "uint8")}, r"shape \(n, 28, 28\).*\(30, 28, 27\)"),
        ({"x_train": np.zeros((30, 784), "uint8")}, r"\(30, 784\)"),
        ({"x_train": np.zeros((30, 28, 28), "float32")}, "must be uint8.*float32"),
        ({"x_train": np.zeros((0, 28, 28), "uint8"), "y_train": np.zeros(0, "uint8")}, r"\(0, 28, 28\)"),
        ({"y_train": np.zeros(29, "uint8")}, "30 images and 29 labels"),
        ({"y_test": np.full(20, 10)}, "labels must be 0 to 9.*10 to 10"),
        ({"y_test": np.full(20, -1)}, "labels must be 0 to 9.*-1 to -1"),
        ({"y_test": np.zeros(20)}, "must be integers.*float64"),
        ({"y_test": np.zeros((20, 10), "uint8")}, r"\(20, 10\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, change, complaint):
    np.savez(tmp_path / "bad.npz", **{**arrays, **change})
    with pytest.raises(ValueError, match=complaint):
        datasets.load("mnist", tmp_path / "bad.npz")


def test_images_with_a_channel_axis_are_welcome(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **{**arrays, "x_train": arrays["x_train"][..., None]})
    assert_holds(datasets.load("mnist", tmp_path / "a.npz"), arrays)


def test_an_npz_without_an_array_says_which(tmp_path, arrays):
    del arrays["y_test"]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match="but no y_test"):
        datasets.load("mnist", tmp_path / "bad.npz")


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.99])
def test_a_truncated_npz(tmp_path, arrays, kept):
    np.savez_compressed(tmp_path / "bad.npz", **arrays)
    data = (tmp_path / "bad.npz").read_bytes()
    (tmp_path / "bad.npz").write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(ValueError, match=r"bad\.npz cannot be read as an npz file"):
        datasets.load("mnist", tmp_path / "bad.npz")


def test_an_npz_with_a_flipped_byte(tmp_path, arrays):
    np.savez_compressed(tmp_path / "bad.npz", **arrays)
    data = bytearray((tmp_path / "bad.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"bad\.npz cannot be read as an npz file"):
        datasets.load("mnist", tmp_path / "bad.npz")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_a_pickle_is_refused_and_not_run(tmp_path, arrays, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.npz").write_bytes(pickle.dumps(Bomb()))
    np.savez("b.npz", **{**arrays, "y_test": np.array([Bomb()] * 20, dtype=object)})
    for file in ("a.npz", "b.npz"):
        with pytest.raises(ValueError, match=r"pickled.*not opened"):
            datasets.load("mnist", file)
    assert not Path("exploded").exists()


def test_one_array_without_a_name(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="one array without a name"):
        datasets.load("mnist", tmp_path / "one.npy")


def test_a_missing_path_and_an_empty_folder(tmp_path):
    for path in (tmp_path / "nothing.npz", tmp_path):
        with pytest.raises(ValueError, match=r"There is no mnist at .*`path=...`"):
            datasets.load("mnist", path)


def test_an_idx_folder_that_lacks_a_file(tmp_path, arrays):
    write_idx(tmp_path, arrays)
    (tmp_path / IDX_FILES["y_test"]).unlink()
    with pytest.raises(ValueError, match="lacks t10k-labels-idx1-ubyte"):
        datasets.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no IDX file.*nothing"),
        (b"not an idx file at all", "no IDX file of unsigned bytes: it begins with 6e 6f 74 20"),
        (b"\0\0\x0d\x03" + bytes(12), "no IDX file of unsigned bytes"),  # floats
        (b"\0\0\x08\x03\0\0", "header ends after 6 of 16 bytes"),
        (b"\0\0\x08\x01\0\0\0\x05ab", r"truncated: its header says \(5,\), 5 bytes, and 2 follow"),
        (b"\0\0\x08\x01\0\0\0\x01ab", r"too long"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated"),  # 2**96 bytes are not asked for
        (b"\x1f\x8bnot gzip", "cannot be read"),
        (gzip.compress(bytes(1000), mtime=0)[:-10], "cannot be read"),
    ],
)
def test_a_damaged_idx_file(tmp_path, arrays, content, complaint):
    write_idx(tmp_path, arrays)
    (tmp_path / IDX_FILES["y_train"]).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        datasets.load("mnist", tmp_path)


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(ValueError, match="Did you mean mnist"):
        datasets.load("minst")
    with pytest.raises(ValueError, match="There are mnist-sample, mnist, fashion-mnist"):
        datasets.load("cifar")


def test_the_sample_has_no_path(tmp_path):
    with pytest.raises(ValueError, match="mnist-sample is bundled"):
        datasets.load("mnist-sample", tmp_path)


# The split.


def test_the_last_tenth_is_for_validation_as_in_keras(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    (x, y), (x_validation, y_validation) = datasets.split(datasets.load("mnist", tmp_path / "a.npz"))
    np.testing.assert_array_equal(x[..., 0], arrays["x_train"][:27])
    np.testing.assert_array_equal(y, arrays["y_train"][:27])
    np.testing.assert_array_equal(x_validation[..., 0], arrays["x_train"][27:])
    np.testing.assert_array_equal(y_validation, arrays["y_train"][27:])


@pytest.mark.parametrize("share", [0, 1, 0.99, -0.5])
def test_a_split_that_leaves_nothing_is_refused(arrays, tmp_path, share):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match="`validation_split` must leave images on both sides"):
        datasets.split(datasets.load("mnist", tmp_path / "a.npz"), share)
