"""Photographs made ready for a pretrained model: by hand, and against keras_hub's own converters."""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tracemalloc
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_vit_edu.transfer import Preprocessing
from tests.support import BACKEND

IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
NUMBERS = {  # scale and offset of published presets
    "vit_base_patch16_224_imagenet": (1 / 127.5, -1.0),
    "deit": ((1 / (255 * IMAGENET_STD)).tolist(), (-IMAGENET_MEAN / IMAGENET_STD).tolist()),
}


def plain(image_size=None, **attributes):
    """Neither crops nor pads unless asked to."""
    return Preprocessing(image_size, **{"crop_to_aspect_ratio": False, **attributes})


def numbered(height, width):
    """Pixel (row, column) is 10 * row + column, in all three channels."""
    pixels = 10 * np.arange(height)[:, None] + np.arange(width)
    return np.repeat(pixels[..., None], 3, axis=-1).astype("uint8")


# By hand. -------------------------------------------------------------------------------------------------------------


def test_scale_and_offset_are_applied_in_that_order():
    pixels = plain(scale=1 / 127.5, offset=-1)(np.array([0, 51, 255], "uint8").reshape(1, 1, 3))
    assert pixels.dtype == "float32"
    np.testing.assert_allclose(pixels.ravel(), [-1, -0.6, 1], atol=1e-7)


def test_each_channel_has_its_own_mean_and_deviation():
    scale, offset = NUMBERS["deit"]
    mean_pixel = (255 * IMAGENET_MEAN).reshape(1, 1, 3)
    np.testing.assert_allclose(plain(scale=scale, offset=offset)(mean_pixel), 0, atol=1e-6)
    brighter = (255 * (IMAGENET_MEAN + IMAGENET_STD)).reshape(1, 1, 3)
    np.testing.assert_allclose(plain(scale=scale, offset=offset)(brighter), 1, atol=1e-6)


def test_the_centre_is_cut_out_of_a_wide_or_high_image():
    preprocessing = Preprocessing(2, interpolation="nearest")
    assert preprocessing(numbered(2, 7))[..., 0].tolist() == [[2, 3], [12, 13]]  # two columns left, three right
    assert preprocessing(numbered(7, 2))[..., 0].tolist() == [[20, 21], [30, 31]]  # two rows above, three below
    assert Preprocessing((1, 3), interpolation="nearest")(numbered(3, 3))[..., 0].tolist() == [[10, 11, 12]]


def test_padding_is_black_and_the_same_on_both_sides():
    preprocessing = plain(4, pad_to_aspect_ratio=True, interpolation="nearest")
    assert preprocessing(numbered(2, 4) + 1)[..., 0].tolist() == [[0] * 4, [1, 2, 3, 4], [11, 12, 13, 14], [0] * 4]
    assert preprocessing(numbered(4, 2) + 1)[0, :, 0].tolist() == [0, 1, 2, 0]


def test_without_either_the_image_is_distorted():
    assert plain((1, 2), interpolation="nearest")(numbered(1, 6))[..., 0].tolist() == [[1, 4]]


def test_integers_are_rounded_to_the_even_neighbour_and_floats_are_not():
    image = np.array([10, 11, 11, 12], "uint8").reshape(1, 4, 1)
    assert plain((1, 2))(image)[0, :, 0].tolist() == [10, 12]
    assert plain((1, 2))(image.astype("float32"))[0, :, 0].tolist() == [10.5, 11.5]


def test_bytes_stay_bytes_where_a_cubic_kernel_overshoots():
    edge = np.array([0] * 8 + [255] * 8, "uint8").reshape(1, 16, 1)
    preprocessing = plain((1, 32), interpolation="bicubic")
    assert preprocessing(edge).min() == 0
    assert preprocessing(edge).max() == 255
    assert preprocessing(edge.astype("float32")).max() > 260


def test_grey_is_repeated():
    assert plain(scale=[1, 2, 3])(np.full((1, 1, 1), 10, "uint8")).tolist() == [[[10, 20, 30]]]


def test_one_image_a_batch_and_a_list_of_several_sizes(rng):
    preprocessing = Preprocessing((5, 4), scale=1 / 255)
    images = [rng.integers(0, 256, (*size, channels), "uint8") for size, channels in [((9, 8), 3), ((4, 4), 1)]]
    alone = [preprocessing(image) for image in images]
    assert alone[0].shape == (5, 4, 3)
    np.testing.assert_array_equal(preprocessing(images), alone)
    np.testing.assert_array_equal(preprocessing(tuple(images)), alone)
    np.testing.assert_array_equal(preprocessing(images[0][None]), alone[:1])
    np.testing.assert_array_equal(preprocessing([images[0]]), alone[:1])


def test_channels_may_come_first(rng):
    images = rng.integers(0, 256, (2, 9, 8, 3), "uint8")
    last = Preprocessing((5, 4), scale=[1, 2, 3])(images)
    first = Preprocessing((5, 4), scale=[1, 2, 3], data_format="channels_first")
    np.testing.assert_array_equal(first(np.moveaxis(images, -1, 1)), np.moveaxis(last, -1, 1))
    np.testing.assert_array_equal(first(np.moveaxis(images[0], -1, 0)), np.moveaxis(last[0], -1, 0))


@pytest.mark.parametrize("dtype", ["int32", "float64", "float16"])
def test_other_real_dtypes_give_the_same_pixels(dtype):
    image = numbered(4, 6)
    np.testing.assert_array_equal(
        plain(2, antialias=True)(image), np.rint(plain(2, antialias=True)(image.astype(dtype)))
    )


def test_tensors_of_the_backend_are_taken():
    image = numbered(4, 6)
    np.testing.assert_array_equal(plain(2)(keras.ops.convert_to_tensor(image)), plain(2)(image))


def test_the_given_image_is_not_changed():
    image = numbered(4, 6)
    plain(scale=2.0, offset=1.0)(image)
    np.testing.assert_array_equal(image, numbered(4, 6))


def test_the_bits_are_the_same_on_every_backend_and_machine():
    pixels = (np.arange(60 * 80 * 3) * 7919 % 256).astype("uint8").reshape(60, 80, 3)
    digest = hashlib.sha256()
    for interpolation in ("nearest", "bilinear", "bicubic"):
        for antialias in (False, True):
            preprocessing = Preprocessing(
                32, interpolation=interpolation, antialias=antialias, scale=1 / 127.5, offset=-1
            )
            digest.update(preprocessing(pixels).tobytes())
            digest.update(preprocessing(pixels.astype("float32")).tobytes())
    assert digest.hexdigest()[:16] == "7e741ca21de63f84"


def test_neither_keras_hub_nor_another_backend_nor_pillow_is_imported():
    code = (
        "import sys, numpy, keras_vit_edu\n"
        "before = set(sys.modules)\n"
        "from keras_vit_edu.transfer.preprocessing import Preprocessing\n"
        "Preprocessing(2)(numpy.full((4, 4, 3), 9))\n"
        "print(sorted((set(sys.modules) - before) & {'keras_hub', 'tensorflow', 'torch', 'jax', 'PIL'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[-2] == "[]"


# Mistakes. ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image", [np.full((2, 2, 3), 1.0), np.eye(2, dtype="uint8")[..., None]], ids=["floats", "bytes"]
)
def test_values_up_to_1_draw_a_warning_once(image):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            plain()([image, image])
    (warning,) = caught
    assert str(warning.message) == "The images look like values in [0, 1]. Expected: 0 to 255."
    assert caught[0].filename == __file__


@pytest.mark.parametrize("images", [np.zeros((2, 2, 3)), [np.zeros((2, 2, 3)), np.full((2, 2, 3), 255.0)]])
def test_black_images_draw_none(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain()(images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.ones((4, 4)), r"Received: float64 of shape \(4, 4\)"),
        (np.ones((1, 1, 4, 4, 3)), r"Received: float64 of shape \(1, 1, 4, 4, 3\)"),
        (np.ones((4, 4, 4)), r"Received: float64 of shape \(4, 4, 4\)"),
        (np.ones((3, 4, 4)), r"\(H, W, 3\) or \(H, W, 1\).*Received: float64 of shape \(3, 4, 4\)"),
        (np.ones((4, 4, 3), "complex64"), r"Received: complex64 of shape \(4, 4, 3\)"),
        (np.ones((4, 4, 3), "bool"), r"Received: bool of shape \(4, 4, 3\)"),
        (np.ones((0, 4, 3)), r"Received: float64 of shape \(0, 4, 3\)"),
        (np.ones((0, 4, 4, 3)), r"Received: none"),
        ([], r"Received: none"),
        ("photo.jpg", r"Received: <U9 of shape \(\)"),
        (None, r"Received: NoneType"),
        ({"image": 1}, r"Received: dict"),
        ((i for i in range(3)), r"Make it a list. Received: generator"),
        ({1, 2}, r"Make it a list. Received: set"),
        (b"photo", r"Put the bytes of a file into io.BytesIO. Received: bytes"),
        ([None, None], r"Received: NoneType"),
        ([[[1, 2], [3]]], r"Received: list, not an image: .*inhomogeneous.*"),
        (np.full((4, 4, 3), "a"), r"Received: <U1 of shape \(4, 4, 3\)"),
        (np.full((4, 4, 3), None), r"Received: object of shape \(4, 4, 3\)"),
        (np.full((4, 4, 3), np.nan), "Received: an image with NaN"),
        ([np.full((4, 4, 3), 9.0), np.full((4, 4, 3), -np.inf)], "Received: an image with infinity"),
    ],
)
def test_a_value_that_is_no_image_is_refused(images, message):
    with pytest.raises(ValueError, match=message + "$"):
        plain(2)(images)


def test_images_of_several_sizes_need_an_image_size():
    with pytest.raises(ValueError, match=r"Without `image_size`.*Received: sizes \[\(2, 2\), \(3, 2\)\]$"):
        plain()([numbered(2, 2), numbered(3, 2)])


@pytest.mark.parametrize(
    "attributes",
    [
        {"image_size": 0},
        {"image_size": (224, 224, 3)},
        {"crop_to_aspect_ratio": 1},
        {"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True},
        {"interpolation": "area"},
        {"antialias": None},
        {"scale": "1/255"},
        {"scale": [1.0, 2.0]},
        {"scale": [[1.0, 2.0, 3.0]]},
        {"offset": float("nan")},
        pytest.param({"offset": 10**400}, id="offset beyond floats"),
        {"offset": True},
        {"data_format": "NHWC"},
    ],
    ids=str,
)
def test_attributes_out_of_range_are_refused_by_name(attributes):
    with pytest.raises(ValueError, match=rf"{list(attributes)[-1]}.*Received: .*{list(attributes)[-1]}="):
        Preprocessing(**{"image_size": 2, **attributes})


# As JSON. -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(
            224, scale=NUMBERS["deit"][0], offset=NUMBERS["deit"][1], interpolation="bicubic", antialias=True
        ),
        plain(scale=1 / 127.5, data_format="channels_first"),
    ],
)
def test_json_gives_it_back(preprocessing):
    again = Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json())))
    assert again == preprocessing
    assert hash(again) == hash(preprocessing)


def test_json_of_other_keys_is_refused():
    values = Preprocessing(224).to_json()
    with pytest.raises(ValueError, match=r"Received: unknown \['mean'\], missing \[\]$"):
        Preprocessing.from_json({**values, "mean": 0.5})
    del values["scale"]
    with pytest.raises(ValueError, match=r"Received: unknown \[\], missing \['scale'\]$"):
        Preprocessing.from_json(values)
    with pytest.raises(ValueError, match=r"Received: list$"):
        Preprocessing.from_json([224])


# From a converter. ----------------------------------------------------------------------------------------------------


def attributes_of(preprocessing):
    return {field.name: getattr(preprocessing, field.name) for field in dataclasses.fields(Preprocessing)}


def test_anything_with_a_converters_attributes_is_read():
    expected = Preprocessing((3, 5), interpolation="bicubic", antialias=True, scale=[1, 2, 3], offset=-1)
    assert Preprocessing.from_converter(SimpleNamespace(**attributes_of(expected))) == expected


def test_an_object_that_is_no_converter_is_refused():
    with pytest.raises(ValueError, match=r"must have `image_size`. Received: dict without it$"):
        Preprocessing.from_converter({"image_size": (224, 224)})


def test_a_converter_with_steps_of_its_own_is_refused():
    class ImageConverter(SimpleNamespace):
        def call(self, inputs):
            return inputs

    class Sub(ImageConverter):
        pass

    class Other(ImageConverter):
        def call(self, inputs):
            return inputs[::-1]

    attributes = attributes_of(Preprocessing(2))
    assert Preprocessing.from_converter(Sub(**attributes)) == Preprocessing(2)
    with pytest.raises(ValueError, match=r"steps of its own. Received: Other$"):
        Preprocessing.from_converter(Other(**attributes))


# Against keras_hub's. -------------------------------------------------------------------------------------------------

SIZES = [(300, 451), (61, 83), (10, 7), (32, 24), (50, 1), (1, 50)]  # larger, smaller, the size itself, strips
TARGET = (32, 24)
CASES = [("bilinear", antialias, shape) for antialias in (False, True) for shape in ("crop", "pad", "distort")] + [
    (interpolation, antialias, "crop")
    for interpolation in ("nearest", "bicubic", "lanczos3", "lanczos5")
    for antialias in (False, True)
]


@pytest.fixture
def keras_hub():
    return pytest.importorskip("keras_hub", reason="keras_hub is not installed", exc_type=ImportError)


def settings(interpolation, antialias, shape):
    return {
        "interpolation": interpolation,
        "antialias": antialias,
        "crop_to_aspect_ratio": shape == "crop",
        "pad_to_aspect_ratio": shape == "pad",
    }


def differences(converter, images):
    expected = keras.ops.convert_to_numpy(converter(images))
    return np.abs(Preprocessing.from_converter(converter)(images) - expected.astype("float64"))


@pytest.mark.parametrize(("interpolation", "antialias", "shape"), CASES)
def test_pixels_are_those_of_keras_hub(keras_hub, interpolation, antialias, shape, rng):
    if BACKEND == "torch" and interpolation.startswith("lanczos"):
        pytest.skip("Keras has no Lanczos kernel on PyTorch")
    if BACKEND == "torch" and interpolation == "bicubic" and not antialias:
        pytest.skip("Keras on PyTorch takes another cubic kernel when it does not antialias")
    from_a_table = BACKEND == "tensorflow" and interpolation == "bicubic" and not antialias
    converter = keras_hub.layers.ImageConverter(TARGET, **settings(interpolation, antialias, shape))
    for size in SIZES:
        image = rng.integers(0, 256, (*size, 3), "uint8")
        difference = differences(converter, image.astype("float32"))
        assert difference.max() <= (0.2 if from_a_table else 255e-4), size
        if BACKEND == "tensorflow" and shape == "pad":
            continue  # Keras on TensorFlow cannot pad bytes
        difference = differences(converter, image)
        assert difference.max() <= 1, size
        assert (difference > 0).mean() <= 0.05, size  # ties


@pytest.mark.parametrize("family", ["ViT", "DeiT", ""])
@pytest.mark.parametrize("preset", NUMBERS)
def test_the_numbers_of_the_presets_are_read_and_used(keras_hub, preset, family, rng):
    scale, offset = NUMBERS[preset]
    cls = getattr(keras_hub.layers, f"{family}ImageConverter")
    converter = cls((224, 224), scale, offset, crop_to_aspect_ratio=False)
    again = cls.from_config(converter.get_config())  # as `from_preset` makes it
    image = rng.integers(0, 256, (75, 100, 3), "uint8")
    for images in (image, image.astype("float32"), np.stack([image, image[::-1]])):
        assert differences(again, images).max() <= 1.001 * np.max(scale)  # 1 of 255
    assert differences(again, image.astype("float32")).max() <= 1e-4


def test_numbers_of_the_old_style_are_read(keras_hub):
    converter = keras_hub.layers.ImageConverter(
        height=8, width=8, scale=1 / 255, mean=IMAGENET_MEAN.tolist(), variance=(IMAGENET_STD**2).tolist()
    )
    preprocessing = Preprocessing.from_converter(converter)
    assert preprocessing.image_size == (8, 8)
    np.testing.assert_allclose(preprocessing.scale, NUMBERS["deit"][0])
    np.testing.assert_allclose(preprocessing.offset, NUMBERS["deit"][1])


def test_a_converter_that_leaves_the_size_is_read(keras_hub):
    converter = keras_hub.layers.ImageConverter(scale=1 / 255)
    assert differences(converter, numbered(5, 7)).max() == 0


def test_channels_first_is_read(keras_hub, rng):
    if BACKEND == "tensorflow":
        pytest.skip("its kernels on a CPU take channels_last only")
    converter = keras_hub.layers.ImageConverter(TARGET, scale=[1.0, 2.0, 3.0], data_format="channels_first")
    assert differences(converter, rng.integers(0, 256, (2, 3, 40, 50)).astype("float32")).max() <= 3 * 255e-4


def test_a_family_with_steps_of_its_own_is_refused(keras_hub):
    if not hasattr(keras_hub.layers, "Gemma4ImageConverter"):
        pytest.skip("this keras_hub has none")
    with pytest.raises(ValueError, match=r"steps of its own. Received: Gemma4ImageConverter$"):
        Preprocessing.from_converter(keras_hub.layers.Gemma4ImageConverter())


def test_a_long_image_is_padded_without_the_memory_of_a_square():
    image = np.full((40, 20_000, 3), 255, "uint8")
    tracemalloc.start()
    try:
        found = Preprocessing(100, crop_to_aspect_ratio=False, pad_to_aspect_ratio=True, antialias=True)(image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6  # the square has 1,200 million values
    # Of 20,000 rows the 40 in the middle are white; a new row takes in 200 old ones to each side of its centre, and the
    # centres of rows 49 and 50 are 100 old rows away from the middle, those of the next ones 300.
    assert found.shape == (100, 100, 3)
    assert found[:48].max() == found[52:].max() == 0
    assert found[49:51].min() > 0


# Resizing before a crop. ----------------------------------------------------------------------------------------------


def test_the_shorter_side_is_resized_and_the_centre_cut_out():
    image = numbered(4, 8)  # to 2 x 4, of which the two columns in the middle stay
    found = plain((2, 2), resize_size=2, antialias=False)(image)
    np.testing.assert_array_equal(found, plain((2, 4))(image)[:, 1:3])
    assert plain((2, 2), resize_size=(2, 4))(image).tolist() == found.tolist()


def test_a_crop_that_is_larger_than_the_image_is_padded_with_black():
    found = plain(5, resize_size=(2, 2))(numbered(2, 2) + 1)[..., 0]
    expected = np.zeros((5, 5))
    expected[2:4, 2:4] = [[1, 2], [11, 12]]  # one row more above than below, as in transformers
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "attributes",
    [
        {"resize_size": 0},
        {"resize_size": "large"},
        {"resize_size": 8, "image_size": None},
        {"resize_size": 8, "crop_to_aspect_ratio": True},
        {"resize_size": 8, "pad_to_aspect_ratio": True},
        {"pillow": True},
        {"pillow": 1},
    ],
    ids=str,
)
def test_options_that_exclude_resize_size_are_refused(attributes):
    with pytest.raises(ValueError, match=r"resize_size|pillow"):
        plain(**{"image_size": 4, **attributes})


def test_the_later_fields_are_written_only_where_they_are_used():
    before = {"image_size", "crop_to_aspect_ratio", "pad_to_aspect_ratio", "interpolation", "antialias", "scale",
              "offset", "data_format"}  # fmt: skip
    assert set(plain(4).to_json()) == before
    later = plain(4, resize_size=(6, 8), antialias=True, pillow=True)
    assert set(later.to_json()) == before | {"resize_size", "pillow"}
    assert Preprocessing.from_json(json.loads(json.dumps(later.to_json()))) == later
    with pytest.raises(ValueError, match="unknown \\['more'\\], missing \\[\\]"):
        Preprocessing.from_json({**later.to_json(), "more": 1})


def test_another_image_size_takes_the_resize_along():
    assert plain(224, resize_size=256).at_image_size(112).resize_size == 128
    assert plain((224, 112), resize_size=(256, 128)).at_image_size(448).resize_size == (512, 512)
    assert plain(224).at_image_size((32, 48)).image_size == (32, 48)
