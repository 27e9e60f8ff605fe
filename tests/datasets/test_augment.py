"""`Augmentation`: what becomes of images, and that it is the same everywhere."""

import json

import numpy as np
import pytest

from keras_vit_edu import random
from keras_vit_edu.datasets import AUGMENTATIONS, Augmentation, Batches, load_augmentation
from keras_vit_edu.datasets.augment import beta, interpolate, rectangles, smoothing
from tests.support import fingerprint

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]

EVERYTHING = {
    "rotation": 15.0,
    "shift": 2.5,
    "crop": 2,
    "scale": 0.12,
    "shear": 0.2,
    "mirror": 0.5,
    "elastic": 0.75,
    "elastic_sigma": 3.0,
    "erase": 0.5,
    "erase_area": 0.2,
    "mixup": 0.2,
    "cutmix": 1.0,
    "fill": 7,
}


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 9, 12, 3), dtype="uint8")


ROWS = np.eye(4, dtype="float32")[[0, 1, 2, 3, 0, 1]]


def fixed(monkeypatch, **draws):
    """Let each image have these draws; what is not named is in the middle of its range, where nothing happens."""
    columns = {"rotation": 0, "stretch_y": 1, "stretch_x": 2, "shear": 3, "mirror": 4, "shift_y": 5, "shift_x": 6}
    columns |= {"crop_y": 13, "crop_x": 14}

    def uniform(seed, counter, shape):
        u = np.full(shape, 0.5)
        for name, value in draws.items():
            u[:, columns[name]] = value
        return u

    monkeypatch.setattr(random, "uniform", uniform)


def varied(images, epoch=0, index=0, strength=1.0, seed=0, **fields):
    return Augmentation(**fields)(images, ROWS[: len(images)], seed, epoch, index, strength)[0]


ALMOST_1 = 1 - 2**-53


# The same bits everywhere. --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rotation": 15, "shift": 2.5, "scale": 0.12, "shear": 0.2, "mirror": 0.5}, "583d65738ace466e"),
        ({"crop": 2, "mirror": 0.5}, "5a0c5e3cd0517089"),
        ({"elastic": 0.75, "elastic_sigma": 3}, "44799bb3238f76d5"),
        ({"erase": 0.5, "erase_area": 0.2}, "61ecfdd96cd7cc47"),
        ({"mixup": 0.2, "cutmix": 1.0}, "7463730fa668bd34"),
        (EVERYTHING, "2e86cad128cec7e5"),
    ],
    ids=["affine", "crop", "elastic", "erase", "mix", "everything"],
)
def test_the_bits_are_these_on_every_backend_and_machine(fields, expected):
    images = (np.arange(64 * 28 * 28) * 7919 % 256).astype("uint8").reshape(64, 28, 28, 1)
    labels = np.eye(10, dtype="float32")[np.arange(64) % 10]
    pixels, mixed = Augmentation(**fields)(images, labels, seed=3, epoch=5, index=2)
    # Written down on the day this was made.
    assert fingerprint(np.concatenate([pixels.reshape(64, -1), mixed], axis=1)) == expected


def test_a_batch_depends_on_seed_epoch_and_index_alone(images):
    first = varied(images, **EVERYTHING)
    np.testing.assert_array_equal(varied(images, **EVERYTHING), first)
    for other in ({"seed": 1}, {"epoch": 1}, {"index": 1}):
        assert (varied(images, **EVERYTHING, **other) != first).any()


def test_one_option_leaves_the_draws_of_the_others_alone(images):
    erased = varied(images, erase=1, erase_area=0.3) == 0
    also_turned = varied(images, erase=1, erase_area=0.3, rotation=20, elastic=1, fill=0)
    assert (also_turned[erased] == 0).mean() > 0.95  # but where an image is black itself


# Nothing, and what can be said exactly. -------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {**EVERYTHING, "mixup": 0.0, "cutmix": 0.0}, EVERYTHING])
def test_without_strength_nothing_changes(images, fields):
    pixels, labels = Augmentation(**fields)(images, ROWS, 0, 0, 0, strength=0.0)
    np.testing.assert_array_equal(pixels, images.astype("float32") / np.float32(255))
    np.testing.assert_array_equal(labels, ROWS)


def test_in_the_middle_of_every_range_the_image_comes_through_the_interpolation_unchanged(images, monkeypatch):
    fixed(monkeypatch)
    pixels = varied(images, rotation=30, shift=3, scale=0.5, shear=0.5)
    np.testing.assert_array_equal(pixels, images.astype("float32") / np.float32(255))


def test_a_turn_of_90_degrees_counter_clockwise_is_rot90(rng, monkeypatch):
    fixed(monkeypatch, rotation=1.0)
    images = rng.integers(0, 256, (2, 9, 9, 1), dtype="uint8")
    expected = np.rot90(images, axes=(1, 2)).astype("float32") / np.float32(255)
    np.testing.assert_array_equal(varied(images, rotation=90), expected)


def test_a_shift_of_whole_pixels_is_a_roll_with_fill(images, monkeypatch):
    fixed(monkeypatch, shift_y=1.0, shift_x=0.0)  # down and to the left
    expected = np.full_like(images, 7)
    expected[:, 3:, :-3] = images[:, :-3, 3:]
    np.testing.assert_array_equal(varied(images, shift=3, fill=7), expected.astype("float32") / np.float32(255))


@pytest.mark.parametrize(("strength", "pixels"), [(1.0, 3), (0.7, 2), (0.1, 0)])
def test_a_crop_of_the_padded_image_is_a_roll_with_fill(images, strength, pixels, monkeypatch):
    """`crop` pads by 3 and cuts out the first columns and the last rows; less of it at a lower strength."""
    fixed(monkeypatch, crop_y=0.0, crop_x=ALMOST_1)  # up and to the right
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), constant_values=7)
    expected = padded[:, 2 * pixels :, : padded.shape[2] - 2 * pixels] / np.float32(255)
    np.testing.assert_array_equal(varied(images, crop=3, fill=7, strength=strength), expected)


def test_crops_and_mirrors_interpolate_nothing_and_every_place_is_as_likely(rng):
    image = rng.permutation(np.arange(81, dtype="uint8") + 1).reshape(1, 9, 9, 1)
    varied_images = Augmentation(crop=1, mirror=0.5)(np.repeat(image, 1800, axis=0), np.zeros(1800), 0, 0, 0)[0]
    found, counts = np.unique(np.rint(varied_images * 255).astype("uint8"), axis=0, return_counts=True)
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    places = [padded[y : y + 9, x : x + 9] for y in range(3) for x in range(3)]
    expected = {crop[:, ::way].tobytes() for crop in places for way in (1, -1)}
    np.testing.assert_array_equal(varied_images * 255, np.rint(varied_images * 255))
    assert {crop.tobytes() for crop in found} == expected
    np.testing.assert_allclose(counts, 100, atol=40)  # standard deviation 9.7


def test_a_mirrored_image_is_flipped(images, monkeypatch):
    fixed(monkeypatch, mirror=0.0)
    np.testing.assert_array_equal(varied(images, mirror=0.5), images[:, :, ::-1].astype("float32") / np.float32(255))


@pytest.mark.parametrize(
    ("draws", "fields", "point", "moved"),
    [
        ({"stretch_x": 1.0}, {"scale": 0.5}, (0, 4), (0, 6)),
        ({"stretch_y": 0.0}, {"scale": 0.5}, (-4, 0), (-2, 0)),
        ({"shear": 1.0}, {"shear": 0.5}, (4, 0), (4, 2)),
        ({"shear": 1.0, "stretch_y": 1.0}, {"shear": 0.5, "scale": 0.5}, (4, 1), (6, 4)),  # stretched first
        ({"shear": 1.0, "rotation": 1.0}, {"shear": 0.5, "rotation": 90}, (4, 0), (-2, 4)),  # turned last
    ],
)
def test_where_a_point_goes(draws, fields, point, moved, monkeypatch):
    """A dot at (row, column) from the centre."""
    fixed(monkeypatch, **draws)
    images = np.zeros((1, 21, 21, 1), "uint8")
    images[0, 10 + point[0], 10 + point[1]] = 255
    pixels = varied(images, **fields)[0, ..., 0]
    brightest = np.unravel_index(pixels.argmax(), pixels.shape)
    assert (brightest[0] - 10, brightest[1] - 10) == moved
    assert pixels.max() > 0.9


def test_between_pixels_the_interpolation_is_bilinear():
    image = np.array([[0, 100], [200, 40]], "uint8").reshape(1, 2, 2, 1)
    y, x = np.array([[[64, 256]]]), np.array([[[128, 320]]])  # (0.25, 0.5) and (1, 1.25)
    expected = [0.75 * 50 + 0.25 * 120, 0.75 * 40 + 0.25 * 8]
    assert interpolate(image, y, x, fill=8).ravel().tolist() == expected
    far = np.array([[[-9999, 9999]]])
    assert interpolate(image, far, far, fill=8).ravel().tolist() == [8, 8]


# Distributions. -------------------------------------------------------------------------------------------------------


def test_displacements_have_the_standard_deviation_asked_for_at_the_edges_too_and_are_smooth():
    field = Augmentation(elastic=2.0, elastic_sigma=3.0)._fields(500, 16, 16, 1.0, 0, 0, 0) / 256
    assert field.shape == (2, 500, 16, 16)
    for part in (field[0], field[1], field[:, :, 0, 0], field[:, :, 8, 15]):
        assert part.std() == pytest.approx(2.0, rel=0.1)
        assert abs(part.mean()) < 0.2
    assert (field[0] * field[1]).mean() == pytest.approx(0, abs=0.2)
    # Neighbours that are sigma apart agree as Gaussians of that width do: exp(-1 / 4).
    apart = (field[..., 6, 5] * field[..., 6, 8]).mean() / 4
    assert apart == pytest.approx(np.exp(-1 / 4), abs=0.08)
    np.testing.assert_array_equal(smoothing(16, 3.0) % 1, 0)


def test_angles_and_shifts_are_even_over_their_range(rng):
    matrix, shift = Augmentation(rotation=20, shift=3)._motion(rng.random((4000, 16)), 0.5)
    angles = np.rad2deg(np.arctan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    for values, limit in ((angles, 10), (shift[:, 0] / 256, 1.5), (shift[:, 1] / 256, 1.5)):
        assert abs(values).max() <= limit * 1.001
        assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)


def test_as_many_images_are_erased_as_asked_and_as_much_of_them():
    images = np.full((2000, 20, 20, 1), 255, "uint8")
    pixels = Augmentation(erase=0.25, erase_area=0.2, fill=51)(images, np.zeros(2000), 0, 0, 0)[0]
    assert set(np.unique(pixels)) == {np.float32(0.2), np.float32(1)}
    shares = (pixels < 1).mean(axis=(1, 2, 3))
    assert (shares > 0).mean() == pytest.approx(0.25, abs=0.03)
    assert shares[shares > 0].mean() == pytest.approx(0.1, rel=0.1)
    assert shares.max() < 0.22
    for erased in (pixels < 1)[:50, ..., 0]:  # a rectangle: all of some rows by all of some columns
        np.testing.assert_array_equal(erased, erased.any(axis=1)[:, None] & erased.any(axis=0)[None, :])


def test_rectangles_reach_every_place_but_none_outside():
    place = np.array([[0.0, 0.0], [ALMOST_1, ALMOST_1], [0.5, 0.5]])
    inside = rectangles(10, 10, np.full(3, 0.16), np.ones(3), place)
    assert [tuple(np.argwhere(mask)[0]) for mask in inside] == [(0, 0), (6, 6), (3, 3)]
    assert inside.sum(axis=(1, 2)).tolist() == [16, 16, 16]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_beta_has_the_mean_and_variance_of_its_distribution(alpha, rng):
    draws = beta(alpha, rng.random((5000, 32, 2)))
    assert draws.mean() == pytest.approx(0.5, abs=0.02)
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert ((draws >= 0) & (draws <= 1)).all()


# Mixing. --------------------------------------------------------------------------------------------------------------

GREYS = np.repeat(np.array([0, 51, 102, 153, 204, 255], "uint8"), 100).reshape(6, 10, 10, 1)


@pytest.mark.parametrize("fields", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
def test_labels_are_mixed_as_the_images_are_and_sum_to_1(fields):
    grey = np.linspace(0, 1, 6, dtype="float32")
    labels = np.eye(6, dtype="float32")
    seen = set()
    for epoch in range(8):
        pixels, mixed = Augmentation(**fields)(GREYS, labels, 0, epoch, 0)
        np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
        assert (mixed.dtype, pixels.dtype) == ("float32", "float32")
        # Images of one grey value each: the mean is the mix, by the shares of the labels.
        np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)), mixed @ grey, atol=1e-5)
        partly = (mixed > 0).sum(axis=1) == 2
        seen |= {len(np.unique(image)) == 1 for image in pixels[partly]}
        for i in range(6):
            assert mixed[i, i] + mixed[i, i - 1] == pytest.approx(1)
    assert (True in seen) == ("mixup" in fields)
    assert (False in seen) == ("cutmix" in fields)


def test_numbers_of_classes_cannot_be_mixed():
    with pytest.raises(ValueError, match=r"rows of class probabilities.*Received: labels of shape \(6,\)"):
        Augmentation(mixup=0.2)(GREYS, np.arange(6), 0, 0, 0)


@pytest.mark.parametrize("wrong", [GREYS[..., 0], GREYS.astype("float32")])
def test_images_must_be_uint8_of_rank_4(wrong):
    with pytest.raises(ValueError, match=r"Images must be uint8 of shape \(B, H, W, C\)"):
        Augmentation(rotation=3)(wrong, np.arange(6), 0, 0, 0)


# As a part of batches. ------------------------------------------------------------------------------------------------


def test_batches_are_augmented_and_stay_pure_in_epoch_and_index(rng):
    images = rng.integers(0, 256, (10, 8, 8, 1), dtype="uint8")
    augmentation = Augmentation(rotation=30, elastic=1)

    def augment(images, labels, epoch, index):
        return augmentation(images, labels, 5, epoch, index)

    batches = Batches(images, np.arange(10), batch_size=4, seed=5, augment=augment)
    plain = Batches(images, np.arange(10), batch_size=4, seed=5)
    for epoch in (2, 0):
        batches.epoch = plain.epoch = epoch
        for index in (0, 1, 2, 1):
            pixels, labels = batches[index]
            clean, same_labels = plain[index]
            np.testing.assert_array_equal(labels, same_labels)
            expected, _ = augment(np.rint(clean * 255).astype("uint8"), labels, epoch, index)
            np.testing.assert_array_equal(pixels, expected)
            assert (pixels != clean).any()


# Configuration. -------------------------------------------------------------------------------------------------------


def test_json_both_ways():
    assert Augmentation.from_json(json.loads(json.dumps(EVERYTHING))).to_json() == EVERYTHING
    assert set(EVERYTHING) == set(Augmentation().to_json())


def test_an_augmentation_by_its_name_or_values():
    assert load_augmentation("digits") is AUGMENTATIONS["digits"]
    assert load_augmentation("none") is load_augmentation(None) is None
    assert load_augmentation({"rotation": 3}) == load_augmentation(Augmentation(rotation=3)) == Augmentation(rotation=3)
    with pytest.raises(ValueError, match=r"no augmentation 'digit'\. There are: none, digits, clothes"):
        load_augmentation("digit")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rotation", 181),
        ("shift", -1),
        ("crop", 1.5),
        ("crop", -1),
        ("scale", 1),
        ("shear", 1.5),
        ("mirror", 2),
        ("elastic", float("nan")),
        pytest.param("elastic", 10**400, id="elastic-beyond floats"),
        ("elastic_sigma", 0),
        ("erase", "often"),
        ("erase_area", 0),
        ("mixup", 0.01),
        ("cutmix", 2),
        ("fill", 0.5),
        ("fill", True),
    ],
)
def test_a_value_out_of_range_names_its_field(field, value):
    with pytest.raises(ValueError, match=rf"The augmentation's `{field}` must be .*Received: {field}="):
        Augmentation.from_json({field: value})


@pytest.mark.parametrize(
    ("values", "complaint"), [([], "a JSON object.*list"), ({"rotate": 3}, "Did you mean rotation")]
)
def test_what_is_no_augmentation(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        Augmentation.from_json(values)
