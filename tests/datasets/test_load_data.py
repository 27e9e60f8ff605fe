"""What people bring to train on: arrays, folders of images, and MNIST's relatives under the names that they have."""

import gzip

import numpy as np
import pytest
from PIL import Image

from keras_vit_edu import datasets
from keras_vit_edu.datasets.class_balance import stratified_split

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return header + array.tobytes()


def write_four(folder, arrays, name="{part}-{kind}", test="t10k", suffix=""):
    """IDX files of four arrays; `name` says how they are called."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, called in (("train", "train"), ("test", test)):
        for array, kind in ((f"x_{part}", "images-idx3-ubyte"), (f"y_{part}", "labels-idx1-ubyte")):
            data = idx_bytes(arrays[array])
            file = folder / (name.format(part=called, kind=kind) + suffix)
            file.write_bytes(gzip.compress(data, mtime=0) if suffix else data)
    return folder


def digits(rng, classes=10, first=0, count=40, side=28):
    labels = (np.arange(count) % classes + first).astype("uint8")
    images = rng.integers(0, 256, (count, side, side), dtype="uint8")
    return {
        "x_train": images,
        "y_train": labels,
        "x_test": images[::-1][:20].copy(),
        "y_test": labels[::-1][:20].copy(),
    }


def coloured(rng, classes=3, shape=(20, 24, 3), count=30):
    arrays = {"x_train": rng.integers(0, 256, (count, *shape), dtype="uint8"), "y_train": np.arange(count) % classes}
    return arrays | {"x_test": rng.integers(0, 256, (9, *shape), dtype="uint8"), "y_test": np.arange(9) % classes}


def pairs(images, labels):
    """Images with their labels, whatever their order."""
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def assert_same_images(dataset, arrays):
    assert pairs(dataset.x_train, dataset.y_train) == pairs(arrays["x_train"], arrays["y_train"].ravel())
    np.testing.assert_array_equal(dataset.x_test, arrays["x_test"].reshape(dataset.x_test.shape))
    np.testing.assert_array_equal(dataset.y_test, arrays["y_test"].ravel())


# npz. -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 24, 3), (9, 7, 1), (9, 7)])
@pytest.mark.parametrize("dtype", ["int64", "uint8", ">i4"])
def test_an_npz_of_any_image_size(tmp_path, rng, shape, dtype):
    arrays = coloured(rng, shape=shape)
    arrays |= {name: arrays[name].astype(dtype) for name in ("y_train", "y_test")}
    np.savez(tmp_path / "shapes.npz", **arrays)
    dataset = datasets.load_data(tmp_path / "shapes.npz")
    assert (dataset.name, dataset.class_names) == ("shapes", ("0", "1", "2"))
    assert dataset.x_train.shape == (30, *shape[:2], shape[2] if len(shape) == 3 else 1)
    assert_same_images(dataset, arrays)


def test_the_last_part_of_sorted_training_images_has_every_class(tmp_path, rng):
    arrays = coloured(rng)
    order = np.argsort(arrays["y_train"], kind="stable")
    np.savez(tmp_path / "a.npz", **arrays | {name: arrays[name][order] for name in ("x_train", "y_train")})
    (_, y), (_, kept) = datasets.split(datasets.load_data(tmp_path / "a.npz"), 0.3)
    assert set(kept.tolist()) == set(y.tolist()) == {0, 1, 2}


def test_names_of_classes_and_labels_in_a_column(tmp_path, rng):
    arrays = coloured(rng)
    arrays |= {name: arrays[name][:, None] for name in ("y_train", "y_test")}  # as `keras.datasets.cifar10` has them
    np.savez(tmp_path / "a.npz", class_names=["cat", "dög", "owl", "yak"], **arrays)
    dataset = datasets.load_data(tmp_path / "a.npz")
    assert dataset.class_names == ("cat", "dög", "owl", "yak")
    assert dataset.notes == ("there is no training image of class yak", "there is no test image of class yak")
    assert_same_images(dataset, arrays)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"x_train": np.zeros((30, 20, 24, 4), "uint8")}, r"\(n, H, W, 3\).*\(30, 20, 24, 4\)"),
        ({"x_train": np.zeros((30, 3, 20, 24), "uint8")}, r"channels come first, use `np\.moveaxis"),
        ({"x_train": np.zeros((30, 20, 25, 3), "uint8")}, r"one size.*\(20, 24, 3\) and \(20, 25, 3\)"),
        ({"x_train": np.zeros((30, 20, 24), "uint8")}, "of one size"),
        ({"x_train": np.zeros((30, 20, 24, 3))}, "must be uint8.*float64"),
        ({"x_train": np.zeros((30, 20, 24, 3), "uint16")}, "must be uint8.*uint16"),
        ({"x_train": np.zeros(30, "uint8")}, "must be uint8 of shape"),
        ({"y_train": np.zeros(30)}, "labels must be integers.*float64"),
        ({"y_train": np.eye(30, dtype=int)}, "labels must be integers of shape"),
        ({"y_train": np.full(30, -1)}, "labels must be 0 to 99999. Received: y_train from -1 to -1"),
        ({"y_train": np.zeros(29, int)}, "30 images and 29 labels"),
        ({"class_names": ["a", "b"]}, "labels must be 0 to 1. Received: y_train from 0 to 2"),
        ({"class_names": ["a", "b", "b"]}, "no two of them equal. Received: 3 texts, 2 different ones"),
        ({"class_names": ["a", "b", ""]}, "none of them empty"),
        ({"class_names": [1, 2, 3]}, "`class_names` must be texts.*int64"),
        ({"class_names": "abc"}, r"`class_names` must be texts.*\(\)"),
        ({"class_names": np.array(["a", "b", "c"], object)}, "pickled"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, rng, change, complaint):
    np.savez(tmp_path / "a.npz", **coloured(rng) | change)
    with pytest.raises(ValueError, match=complaint):
        datasets.load_data(tmp_path / "a.npz")


def test_ten_classes_of_28_pixels_are_mnist(tmp_path, rng):
    arrays = digits(rng)
    np.savez(tmp_path / "mine.npz", **arrays)
    dataset = datasets.load_data(tmp_path / "mine.npz")
    assert (dataset.name, dataset.source) == ("mnist", str(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(dataset.x_train[..., 0], arrays["x_train"])  # in their own order
    np.savez(tmp_path / "few.npz", **digits(rng, classes=4))
    assert datasets.load_data(tmp_path / "few.npz").class_names == ("0", "1", "2", "3")


def test_another_size(tmp_path, rng):
    arrays = coloured(rng, shape=(10, 20, 3))
    np.savez(tmp_path / "a.npz", **arrays)
    dataset = datasets.load_data(tmp_path / "a.npz", image_size=(5, 5))
    assert dataset.x_train.shape == (30, 5, 5, 3)
    # A square of the middle, at half the size.
    middle = Image.fromarray(arrays["x_test"][0]).resize((5, 5), Image.Resampling.BICUBIC, box=(5, 0, 15, 10))
    np.testing.assert_array_equal(dataset.x_test[0], middle)
    grey = datasets.resized(datasets.load("mnist-sample"), 14)
    assert grey.x_test.shape == (2000, 14, 14, 1)


# Folders of images. ---------------------------------------------------------------------------------------------------


def write_images(folder, rng, names=("cat", "dog"), count=10, size=(12, 16), mode="RGB"):
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            shape = (*size, 3) if mode == "RGB" else size
            Image.fromarray(rng.integers(0, 256, shape, dtype="uint8")).save(folder / name / f"{i}.png")
    return folder


def test_a_folder_with_a_subfolder_per_class(tmp_path, rng):
    write_images(tmp_path / "pets", rng)
    dataset = datasets.load_data(tmp_path / "pets")
    assert (dataset.name, dataset.class_names) == ("pets", ("cat", "dog"))
    assert dataset.x_train.shape == (16, 12, 16, 3)
    assert dataset.notes == ("a fifth of every class was kept for the test",)
    folder = datasets.scan_folder(tmp_path / "pets")
    training, test = stratified_split(folder.labels, 0.2, seed=0)
    images = [np.asarray(Image.open(path)) for path in folder.paths]
    assert pairs(dataset.x_train, dataset.y_train) == pairs([images[i] for i in training], folder.labels[training])
    np.testing.assert_array_equal(dataset.x_test, [images[i] for i in test])
    again = datasets.load_data(tmp_path / "pets")
    np.testing.assert_array_equal(again.x_train, dataset.x_train)


def test_nothing_is_kept_for_the_test(tmp_path, rng):
    write_images(tmp_path, rng, count=1)
    with pytest.raises(ValueError, match="too small"):
        datasets.load_data(tmp_path)
    dataset = datasets.load_data(tmp_path, keep_test=False)
    images = [np.asarray(Image.open(path)) for path in datasets.scan_folder(tmp_path).paths]
    assert not dataset.has_test
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert pairs(x, y) == pairs(images, [0, 1])
    write_csv(tmp_path / "train.csv", np.array(images)[:, :3, :3, 0], [1, 0])
    assert datasets.load_data(tmp_path / "train.csv", keep_test=False).y_test.tolist() == [1, 0]


def test_grey_images_stay_grey(tmp_path, rng):
    write_images(tmp_path / "grey", rng, mode="L")
    dataset = datasets.load_data(tmp_path / "grey")
    assert dataset.x_train.shape == (16, 12, 16, 1)
    # One pixel of colour is colour.
    image = np.asarray(Image.open(tmp_path / "grey/cat/3.png").convert("RGB")).copy()
    image[0, 0] = (1, 2, 3)
    Image.fromarray(image).save(tmp_path / "grey/cat/3.png")
    assert datasets.load_data(tmp_path / "grey").x_train.shape == (16, 12, 16, 3)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Testing"), ("train", "val")])
def test_a_folder_that_is_split(tmp_path, rng, train, test):
    write_images(tmp_path / train, rng, ("ant", "bee", "cow"), 4)
    write_images(tmp_path / test, rng, ("bee", "cow"), 2)
    dataset = datasets.load_data(tmp_path)
    assert dataset.class_names == ("ant", "bee", "cow")
    assert dataset.x_train.shape == (12, 12, 16, 3)
    assert dataset.y_test.tolist() == [1, 1, 2, 2]
    assert "there is no test image of class ant" in dataset.notes


def test_validation_images_of_a_split_folder_are_said_to_be_unused(tmp_path, rng):
    for part in ("train", "val", "test"):
        write_images(tmp_path / part, rng, count=3)
    dataset = datasets.load_data(tmp_path)
    assert len(dataset.x_test) == 6
    assert "the folder val is not used: validation is a part of train" in dataset.notes


def test_a_class_of_trains_is_a_class(tmp_path, rng):
    write_images(tmp_path, rng, ("bus", "train", "test"))
    assert datasets.load_data(tmp_path).class_names == ("bus", "test", "train")


def test_a_class_that_only_the_test_has(tmp_path, rng):
    write_images(tmp_path / "train", rng)
    write_images(tmp_path / "test", rng, ("cat", "yak"))
    with pytest.raises(ValueError, match=r"must be in training too\. Received: 'yak'"):
        datasets.load_data(tmp_path)


def test_images_of_several_sizes_want_one(tmp_path, rng):
    write_images(tmp_path, rng, ("cat",))
    write_images(tmp_path, rng, ("dog",), size=(8, 8))
    with pytest.raises(ValueError, match=r"one size.*`image_size=64`.*12 x 16 pixels.*8 x 8 pixels"):
        datasets.load_data(tmp_path)
    assert datasets.load_data(tmp_path, image_size=10).x_train.shape == (16, 10, 10, 3)


def test_what_is_skipped_is_noted(tmp_path, rng):
    write_images(tmp_path, rng)
    (tmp_path / "cat" / "notes\x1b.txt").write_text("no image")
    dataset = datasets.load_data(tmp_path)
    assert dataset.notes[0].startswith("skipped cat/notes\\x1b.txt: This is no image file")


def test_images_that_would_take_too_much(tmp_path, rng):
    write_images(tmp_path, rng)
    with pytest.raises(ValueError, match="at most 4 GiB"):
        datasets.load_data(tmp_path, image_size=100_000)


@pytest.mark.parametrize("size", [0, -3, 2.5, (4,), (4, 0), "64"])
def test_what_is_no_size(tmp_path, rng, size):
    write_images(tmp_path, rng, count=2)
    with pytest.raises(ValueError, match="`image_size` must be"):
        datasets.load_data(tmp_path, image_size=size)


def test_a_folder_named_like_a_dataset_is_not_taken_for_it(tmp_path, rng):
    write_images(tmp_path / "mnist", rng)
    assert datasets.load_data(tmp_path / "mnist").name == "mnist-images"


# MNIST's relatives. ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("given", [".", "MNIST", "MNIST/raw"])
def test_the_folders_of_torchvision(tmp_path, rng, suffix, given):
    arrays = digits(rng)
    write_four(tmp_path / "MNIST" / "raw", arrays, suffix=suffix)
    for dataset in (datasets.load("mnist", tmp_path / given), datasets.load_data(tmp_path / given)):
        assert dataset.name == "mnist"
        np.testing.assert_array_equal(dataset.x_train[..., 0], arrays["x_train"])
        np.testing.assert_array_equal(dataset.y_test, arrays["y_test"])


@pytest.mark.parametrize("given", [".", "FashionMNIST", "FashionMNIST/raw"])
def test_the_clothes_of_torchvision(tmp_path, rng, given):
    write_four(tmp_path / "FashionMNIST" / "raw", digits(rng))
    for dataset in (datasets.load("fashion-mnist", tmp_path / given), datasets.load_data(tmp_path / given)):
        assert (dataset.name, dataset.class_names[9]) == ("fashion-mnist", "Ankle boot")


def test_torchvisions_folders_beside_each_other(tmp_path, rng, monkeypatch):
    arrays, other = digits(rng), digits(rng)
    write_four(tmp_path / "MNIST" / "raw", arrays)
    write_four(tmp_path / "FashionMNIST" / "raw", other)
    monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(tmp_path))
    np.testing.assert_array_equal(datasets.load("mnist").x_train[..., 0], arrays["x_train"])
    np.testing.assert_array_equal(datasets.load("fashion-mnist").x_train[..., 0], other["x_train"])


# How many classes each set has, from the paper's table II, and what its mapping file says of some labels.
SETS = {
    "emnist-byclass": (62, {0: "0", 10: "A", 35: "Z", 36: "a", 61: "z"}),
    "emnist-bymerge": (47, {9: "9", 10: "A", 36: "a", 37: "b", 38: "d", 46: "t"}),
    "emnist-balanced": (47, {35: "Z", 39: "e", 40: "f", 41: "g", 42: "h", 43: "n", 44: "q", 45: "r"}),
    "emnist-letters": (26, {0: "A/a", 25: "Z/z"}),
    "emnist-digits": (10, {0: "0", 9: "9"}),
    "emnist-mnist": (10, {0: "0", 9: "9"}),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("inside", [".", "EMNIST/raw", "gzip"])
def test_emnist(tmp_path, rng, name, inside):
    count, names = SETS[name]
    first = 1 if name == "emnist-letters" else 0
    arrays = digits(rng, classes=count, first=first, count=2 * count)
    write_four(tmp_path / inside, arrays, name=f"{name}-{{part}}-{{kind}}", test="test", suffix=".gz")
    for dataset in (datasets.load(name, tmp_path), datasets.load_data(tmp_path)):
        assert dataset.name == name
        assert len(dataset.class_names) == count
        assert {label: dataset.class_names[label] for label in names} == names
        np.testing.assert_array_equal(dataset.y_train, arrays["y_train"].astype(int) - first)
        for image, stored in zip(dataset.x_train, arrays["x_train"], strict=True):
            np.testing.assert_array_equal(image[..., 0], stored.T)  # rows and columns are swapped in the files


@pytest.mark.parametrize("name", ["emnist-mnist", "emnist-digits"])
def test_emnists_digits_pass_for_mnist(tmp_path, rng, name):
    arrays = digits(rng)
    write_four(tmp_path, arrays, name=f"{name}-{{part}}-{{kind}}", test="test")
    dataset = datasets.load("mnist", tmp_path)
    np.testing.assert_array_equal(dataset.x_train[..., 0], arrays["x_train"].swapaxes(1, 2))


def test_several_sets_of_emnist_want_a_name(tmp_path, rng):
    for name in ("emnist-letters", "emnist-balanced"):
        write_four(tmp_path, digits(rng, first=1), name=f"{name}-{{part}}-{{kind}}", test="test")
    with pytest.raises(
        ValueError, match=r"several datasets: emnist-balanced, emnist-letters\. Load one with `datasets\.load"
    ):
        datasets.load_data(tmp_path)
    with pytest.raises(ValueError, match=r"There is no mnist at .*it holds emnist-balanced, emnist-letters"):
        datasets.load("mnist", tmp_path)
    assert datasets.load("emnist-letters", tmp_path).y_train.min() == 0


def test_emnist_is_not_downloaded(monkeypatch):
    monkeypatch.delenv("KERAS_VIT_EDU_DATA", raising=False)
    with pytest.raises(ValueError, match="emnist-letters is not downloaded"):
        datasets.load("emnist-letters")


# CSV. -----------------------------------------------------------------------------------------------------------------


def write_csv(file, images, labels=None, header="label", line_break="\n"):
    rows = images.reshape(len(images), -1).tolist()
    rows = rows if labels is None else [[label, *row] for label, row in zip(labels, rows, strict=True)]
    names = [*(["label"] if labels is not None else []), *(f"pixel{i}" for i in range(images[0].size))]
    lines = [",".join(names)] if header else []
    lines += [",".join(map(str, row)) for row in rows]
    file.write_bytes((line_break.join(lines) + line_break).encode())


def test_kaggles_digits(tmp_path, rng):
    """train.csv has labels; those of test.csv are for Kaggle to know."""
    arrays = digits(rng, count=50)
    write_csv(tmp_path / "train.csv", arrays["x_train"], arrays["y_train"])
    write_csv(tmp_path / "test.csv", arrays["x_test"])
    training, test = stratified_split(arrays["y_train"], 0.2, seed=0)
    for path in (tmp_path, tmp_path / "train.csv"):
        for dataset in (datasets.load("mnist", path), datasets.load_data(path)):
            assert dataset.name == "mnist"
            assert dataset.notes == ("test.csv has no labels, so a fifth of every class was kept for the test",)
            np.testing.assert_array_equal(dataset.x_train[..., 0], arrays["x_train"][training])
            np.testing.assert_array_equal(dataset.y_test, arrays["y_train"][test])
    (tmp_path / "train.csv").unlink()
    for path in (tmp_path / "test.csv",):
        with pytest.raises(ValueError, match=r"has no labels.*Kaggle's test\.csv has no labels"):
            datasets.load("mnist", path)


@pytest.mark.parametrize("header", [True, False])
def test_a_csv_with_a_byte_order_mark(tmp_path, rng, header):
    arrays = digits(rng)
    for part in ("train", "test"):
        file = tmp_path / f"mnist_{part}.csv"
        write_csv(file, arrays[f"x_{part}"], arrays[f"y_{part}"], header)
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    dataset = datasets.load("mnist", tmp_path)
    np.testing.assert_array_equal(dataset.x_train[..., 0], arrays["x_train"])
    np.testing.assert_array_equal(dataset.y_test, arrays["y_test"])


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_a_file_for_training_and_one_for_the_test(tmp_path, rng, header, line_break):
    arrays = digits(rng)
    for part in ("train", "test"):
        write_csv(tmp_path / f"mnist_{part}.csv", arrays[f"x_{part}"], arrays[f"y_{part}"], header, line_break)
    for path in (tmp_path, tmp_path / "mnist_train.csv", tmp_path / "mnist_test.csv"):
        dataset = datasets.load("mnist", path)
        np.testing.assert_array_equal(dataset.x_train[..., 0], arrays["x_train"])
        np.testing.assert_array_equal(dataset.y_train, arrays["y_train"])
        np.testing.assert_array_equal(dataset.x_test[..., 0], arrays["x_test"])
        np.testing.assert_array_equal(dataset.y_test, arrays["y_test"])


def test_a_csv_of_other_sizes_and_classes(tmp_path, rng):
    arrays = digits(rng, classes=24, count=48, side=5)
    for part in ("train", "test"):
        write_csv(tmp_path / f"sign_{part}.csv", arrays[f"x_{part}"], arrays[f"y_{part}"])
    dataset = datasets.load_data(tmp_path / "sign_train.csv")
    assert (dataset.name, len(dataset.class_names)) == ("sign_train", 24)
    assert_same_images(dataset, arrays)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1,2,3,4", "line 2 or after: a line must have 5 whole numbers"),
        ("1,2,3,4,5,6", "line 2 or after: a line must have 5 whole numbers"),
        ("1,2,3,4,", "line 2 or after"),
        ("1,2,3,4,x", "line 2 or after"),
        ("1,2,3,4,1.5", "line 2 or after"),
        ("1,2,3,4,-1", "line 2 or after"),
        ("1,2,3,4,1000", "line 2 or after"),
        ("1,2,3,4,256", "pixels must be 0 to 255. Received: 256"),
    ],
)
def test_a_line_that_is_no_image(tmp_path, line, complaint):
    (tmp_path / "a.csv").write_text(f"0,255,1,22,3\n{line}\n1,2,3,4,5\n")
    with pytest.raises(ValueError, match=complaint):
        datasets.load_data(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ["", "\n", "label\n", "a,b\n1,2\n", "label,p0,p1\n1,2,3\n", "label,p0\n", "no table"])
def test_what_is_no_csv_of_images(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"a\.csv"):
        datasets.load_data(tmp_path / "a.csv")
