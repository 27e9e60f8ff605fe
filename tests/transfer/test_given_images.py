"""What a `TransferClassifier` takes as images, by every door, and what it refuses."""

import io
import os
import warnings

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit_edu.transfer import Preprocessing, TransferClassifier
from keras_vit_edu.transfer.given_images import array_of
from keras_vit_edu.transfer.training_images import TrainingImages
from tests.support import BACKEND
from tests.transfer.small import classifier as small

RNG = np.random.default_rng(0)
PHOTOS = [RNG.integers(0, 256, (height, width, 3), "uint8") for height, width in ((20, 24), (30, 18))]


@pytest.fixture(scope="module")
def classifier():
    return TransferClassifier(small(2), Preprocessing(16, scale=1 / 127.5, offset=-1.0), ["cat", "dog"])


def png(photo):
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG")
    return stream


def doors(classifier):
    """Every method that takes images, as a function of them."""
    return {
        "predict": classifier.predict,
        "probabilities": classifier.probabilities,
        "preprocess": classifier.preprocess,
        "evaluate": lambda images: classifier.evaluate(images, [0]),
        "attention_scores": classifier.attention_scores,
        "fit": lambda images: classifier.fit((images, [0])),
    }


# Taken. ---------------------------------------------------------------------------------------------------------------


def test_images_of_pillow_streams_and_files_are_the_same_as_arrays(classifier, tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, photo in zip(files, PHOTOS, strict=True):
        Image.fromarray(photo).save(file)
    expected = classifier.preprocess(PHOTOS)
    kinds = {
        "images of Pillow": [Image.fromarray(photo) for photo in PHOTOS],
        "images of files": tuple(map(Image.open, files)),
        "streams": list(map(png, PHOTOS)),
        "open files": [open(file, "rb") for file in files],  # noqa: SIM115
        "a stream and a path": [png(PHOTOS[0]), str(files[1])],
        "an array of texts": np.array(list(map(str, files))),
        "an array of paths": np.array(files, object),
        "an array of arrays": np.array([*PHOTOS, None], object)[:2],
        "an array and an image of Pillow": [PHOTOS[0], Image.fromarray(PHOTOS[1])],
        "nested lists": [photo.tolist() for photo in PHOTOS],
        "tensors": [keras.ops.convert_to_tensor(photo) for photo in PHOTOS],
    }
    for kind, images in kinds.items():
        np.testing.assert_array_equal(classifier.preprocess(images), expected, err_msg=kind)
    one = classifier.preprocess(PHOTOS[0])
    for image in (Image.fromarray(PHOTOS[0]), png(PHOTOS[0]), [png(PHOTOS[0])]):
        np.testing.assert_array_equal(classifier.preprocess(image), one)


@pytest.mark.any_backend
def test_a_stream_is_a_file_for_every_method(classifier):
    expected = classifier.probabilities(PHOTOS)
    streams = list(map(png, PHOTOS))
    np.testing.assert_array_equal(classifier.probabilities(streams), expected)
    np.testing.assert_array_equal(classifier.evaluate(streams, [0, 1]).probabilities.astype("float32"), expected)
    assert list(classifier.predict_each(streams)) == [
        (stream, best, "") for stream, best in zip(streams, classifier.predict(PHOTOS, batch_size=2), strict=True)
    ]
    bad = io.BytesIO(b"no image")
    with pytest.warns(UserWarning, match="1 of 3 files were skipped: This is no image .* Received: a BytesIO"):
        found = classifier.predict([*streams, bad])
    assert found.files == (*streams, bad)
    assert [[name for name, _ in best] for best in found] == [["cat", "dog"], ["cat", "dog"], []]
    assert found.skipped[0][0] is bad


@pytest.mark.any_backend
def test_a_broken_image_of_pillow_is_an_error(classifier):
    content = png(PHOTOS[0]).getvalue()
    with pytest.raises(ValueError, match=r"cannot be read: .* Received: a PngImageFile"):
        classifier.predict([PHOTOS[1], Image.open(io.BytesIO(content[:-200]))])


@pytest.mark.any_backend
def test_paths_of_pandas_are_taken(classifier, tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    Image.fromarray(PHOTOS[0]).save(tmp_path / "a.png")
    paths = pandas.Series([str(tmp_path / "a.png")] * 2, index=[7, 3])
    np.testing.assert_array_equal(classifier.probabilities(paths), classifier.probabilities([PHOTOS[0]] * 2))


def test_tensors_that_numpy_does_not_take_at_once():
    values = np.arange(12, dtype="float32").reshape(2, 2, 3)
    if BACKEND == "torch":
        import torch

        tensor = torch.tensor(values, requires_grad=True)
        np.testing.assert_array_equal(array_of(tensor), values)
        np.testing.assert_array_equal(array_of(tensor.bfloat16()), values)
    else:
        np.testing.assert_array_equal(array_of(keras.ops.convert_to_tensor(values, "bfloat16")), values)


# 16 bits, and beyond. -------------------------------------------------------------------------------------------------


@pytest.mark.any_backend
def test_arrays_of_16_bits_are_taken_with_a_warning_by_every_method(classifier, tmp_path):
    deep = [photo.astype("uint16") * 257 for photo in PHOTOS]
    expected = classifier.probabilities(PHOTOS)
    for images in (deep, [deep[0], Image.fromarray(PHOTOS[1])]):
        for call in (classifier.predict, classifier.probabilities, classifier.preprocess, classifier.attention_scores):
            with pytest.warns(UserWarning, match=r"16 bits are read as from a file.* up to 65535$") as caught:
                call(images)
            assert len([warning for warning in caught if warning.category is UserWarning]) == 1
            assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="16 bits"):
        np.testing.assert_array_equal(classifier.probabilities(deep), expected)
    with pytest.warns(UserWarning, match="16 bits"):
        np.testing.assert_array_equal(classifier.evaluate(deep, [0, 1]).probabilities.astype("float32"), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        same = [photo.astype("uint16") for photo in PHOTOS]  # no value above 255
        np.testing.assert_array_equal(classifier.probabilities(same), expected)


@pytest.mark.any_backend
def test_all_images_of_a_call_have_16_bits_or_none_has():
    """A dark image has no value above 255 by itself: its high bytes are 0, as in a file."""
    batch = np.zeros((2, 4, 4, 3), "uint16")
    batch[0], batch[1] = 60000, 200
    with pytest.warns(UserWarning, match="up to 60000"):
        assert Preprocessing(2)(batch)[:, 0, 0, 0].tolist() == [60000 // 256, 0]
    with pytest.warns(UserWarning, match="up to 60000"):
        images = TrainingImages((batch, [0, 1]))
    assert [int(image.max()) for image in images.thumbnails(np.array([0, 1]))] == [60000 // 256, 0]


@pytest.mark.any_backend
def test_a_grey_array_of_16_bits_equals_its_file(classifier, tmp_path):
    grey = RNG.integers(800, 3500, (20, 24), "uint16")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    with pytest.warns(UserWarning, match="16 bits"):
        found = classifier.preprocess(grey[..., None])
    np.testing.assert_array_equal(found, classifier.preprocess(tmp_path / "grey.png"))


@pytest.mark.any_backend
@pytest.mark.parametrize("door", ["predict", "probabilities", "preprocess", "evaluate", "attention_scores", "fit"])
@pytest.mark.parametrize(
    ("image", "received"),
    [
        (-PHOTOS[0].astype("int16"), "int16"),
        (PHOTOS[0].astype("int32") * 257, "int32"),
        (PHOTOS[0] * 1e300, "float64"),
        (PHOTOS[0] / 127.5 - 1, "float64"),
        (PHOTOS[0] > 100, "bool"),
    ],
    ids=["negative", "16 bits as int32", "1e300", "-1 to 1", "bool"],
)
def test_pixels_beyond_0_to_255_are_refused(classifier, door, image, received):
    for images in (image, [PHOTOS[0], image], image[None]):
        with pytest.raises(ValueError, match=rf"0 to 255.*Received: {received}"):
            doors(classifier)[door](images)


# Refused. -------------------------------------------------------------------------------------------------------------

NO_IMAGES = {
    "None": lambda: None,
    "a number": lambda: 3,
    "a dict": lambda: {"image": PHOTOS[0]},
    "a set": lambda: {1, 2},
    "a generator": lambda: (photo for photo in PHOTOS),
    "bytes": lambda: png(PHOTOS[0]).getvalue(),
    "an object": object,
    "a function": lambda: len,
    "[None, None]": lambda: [None, None],
    "a mixed list": lambda: [PHOTOS[0], "a.png"],
    "a file and None": lambda: ["a.png", None],
    "a list with a dict": lambda: [PHOTOS[0], {}],
    "a ragged list": lambda: [[[1, 2, 3]], [[1, 2]]],
    "texts": lambda: np.full((4, 4, 3), "a"),
    "complex": lambda: np.zeros((4, 4, 3), complex),
    "dates": lambda: np.zeros((4, 4, 3), "datetime64[s]"),
    "objects": lambda: np.full((4, 4, 3), None),
    "a structure": lambda: np.zeros((4, 4), "u1,u1,u1"),
    "nothing": list,
    "an empty array": lambda: np.zeros((0, 4, 4, 3), "uint8"),
    "an image of no pixels": lambda: [np.zeros((0, 4, 3), "uint8")],
    "an empty path": lambda: "",
    "a path with NUL": lambda: "a\0b",
    "a path that is too long": lambda: "x" * 10_000,
    "a closed stream": lambda: [closed()],
    "a text stream": lambda: io.StringIO("text"),
    "a symbolic tensor": lambda: keras.Input((4, 4, 3)),
}


def closed():
    stream = io.BytesIO(b"x")
    stream.close()
    return stream


@pytest.mark.any_backend
@pytest.mark.parametrize("door", ["predict", "probabilities", "preprocess", "evaluate", "attention_scores", "fit"])
@pytest.mark.parametrize("what", NO_IMAGES)
def test_a_value_that_is_no_image_raises_a_value_error_of_one_line(classifier, door, what):
    with pytest.raises(ValueError, match=r"\S") as error:
        doors(classifier)[door](NO_IMAGES[what]())
    assert "\n" not in str(error.value)
    assert "Received" in str(error.value) or "not both" in str(error.value)
    assert "keras_vit_edu" in str(error.traceback[-1].path)  # raised by us, not by NumPy or Keras


@pytest.mark.any_backend
@pytest.mark.parametrize("files", [None, 3, PHOTOS, [], {"a.png"}, ""], ids=str)
def test_predict_each_refuses_at_once(classifier, files):
    with pytest.raises(ValueError, match="Received"):
        classifier.predict_each(files)
    with pytest.raises(ValueError, match="batch_size"):
        classifier.predict_each(["a.png"], batch_size=0)


@pytest.mark.any_backend
def test_control_characters_in_names_are_escaped(classifier, tmp_path):
    if os.name == "nt":
        pytest.skip("a name that Windows does not have")
    for i in range(2):
        (tmp_path / f"a\x1b[2J{i}.png").write_bytes(b"no image")
    Image.fromarray(PHOTOS[0]).save(tmp_path / "b.png")
    with pytest.warns(UserWarning, match=r"skipped: .*a\\x1b\[2J0\.png"):
        found = classifier.predict(tmp_path)
    assert "\x1b" not in found.skipped[0][1]
