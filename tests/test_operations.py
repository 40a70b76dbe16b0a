"""Operations of automatic augmentation against Pillow, and the members that draw them."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from ldl_jax.augment import operations
from ldl_jax.augment.base import Pixels
from ldl_jax.augment.operations import chains, policies, spaces
from ldl_jax.config.options import plug

DRAW = np.random.default_rng(0)
VECTORS = Path(__file__).parent / "vectors"
HEIGHT, WIDTH = 20, 24


def pictures(count=6):
    """Smooth images whose channels use parts of the levels, one flat, one of two levels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    made = []
    for number in range(count):
        waves = DRAW.uniform(0.05, 0.6, (3, 2))
        image = np.stack([np.sin(a * x + b * y + number) for a, b in waves], -1)
        low, high = sorted(DRAW.integers(0, 256, 2))
        made.append(low + (image + 1) / 2 * (high - low))
    made[0][...] = 77
    made[1] = np.where(made[1] > made[1].mean(), 200, 3)
    made[2] = DRAW.integers(0, 256, (HEIGHT, WIDTH, 3))
    return np.stack(made).astype(np.uint8)


def warped(image, coefficients):
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST
    )


# What torchvision asks of Pillow for each operation.
PILLOW = {
    "identity": lambda image, m: image,
    "shear_x": lambda image, m: warped(image, (1, m, 0, 0, 1, 0)),
    "shear_y": lambda image, m: warped(image, (1, 0, 0, m, 1, 0)),
    "translate_x": lambda image, m: warped(image, (1, 0, -int(m), 0, 1, 0)),
    "translate_y": lambda image, m: warped(image, (1, 0, 0, 0, 1, -int(m))),
    "rotate": lambda image, m: image.rotate(m, Image.Resampling.NEAREST),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(1 + m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m),
    "posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "solarize": lambda image, m: ImageOps.solarize(image, m),
    "invert": lambda image, m: ImageOps.invert(image),
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "equalize": lambda image, m: ImageOps.equalize(image),
}
TOLERANCE = {  # (levels, share of the values that may differ)
    "autocontrast": (1, 0.02),  # whole numbers here, doubles there
    "rotate": (255, 0.025),  # ties of positions at 135 degrees
}


@pytest.fixture(scope="module")
def apply():
    return jax.jit(jax.vmap(operations.apply, in_axes=(0, None, None)))


@pytest.mark.parametrize("name", operations.NAMES)
def test_an_operation_is_pillow_s(apply, name):
    images = pictures()
    for space in (spaces.usual(images[0].shape, 31), spaces.wide(images[0].shape, 31)):
        for at in (0, 9, 17, 30):
            for sign in (1, -1) if name in operations.SIGNED else (1,):
                m = sign * float(space.get(name, np.zeros(31))[at])
                made = apply(images.astype(np.float32), operations.number(name), np.float32(m))
                expected = [np.asarray(PILLOW[name](Image.fromarray(i), m)) for i in images]
                error = np.abs(np.asarray(made) - np.stack(expected))
                most, share = TOLERANCE.get(name, (0, 0))
                assert error.max() <= most, (m, error.max())
                assert (error > 0).mean() <= share, (m, (error > 0).mean())


def test_images_of_one_channel_are_grey(apply):
    images = pictures()[..., :1]
    for name in ("color", "contrast", "equalize", "sharpness"):
        made = np.asarray(
            apply(images.astype(np.float32), operations.number(name), np.float32(0.5))
        )
        for image, result in zip(images, made, strict=True):
            expected = PILLOW[name](Image.fromarray(image[..., 0], "L"), 0.5)
            np.testing.assert_array_equal(result[..., 0], np.asarray(expected))


def test_levels_are_those_of_bytes():
    level = np.arange(256, dtype=np.uint8)
    image = level.astype(np.float32) / 255
    np.testing.assert_array_equal(operations.to_levels(image), level)
    np.testing.assert_allclose(operations.to_image(level, np.float32), image, atol=1e-7)


def test_the_spaces_are_torchvision_s():
    space = spaces.usual((32, 32, 3), 31)
    assert len(space) == 14
    assert space["translate_x"][1] == pytest.approx(0.4833837, rel=1e-6)
    assert space["rotate"][-1] == 30
    assert (space["posterize"][[0, 9, 15, 30]] == [8, 7, 6, 4]).all()
    assert (space["solarize"][[0, 1, 30]] == [255, 246.5, 0]).all()
    wide = spaces.wide((32, 32, 3), 31)
    assert (wide["posterize"][[0, 15, 30]] == [8, 5, 2]).all()
    assert (wide["rotate"][-1], wide["translate_y"][-1]) == (135, 32)
    for policy in policies.POLICIES.values():
        assert len(policy) == 25
        assert all(0 <= share <= 1 and 0 <= at <= 9 for pair in policy for _, share, at in pair)
        assert {name for pair in policy for name, _, _ in pair} <= set(operations.NAMES)


@pytest.mark.slow
def test_augmix_chains_are_those_of_its_authors():
    """Two images of CIFAR-10 as google-research/augmix (commit 9b9824c7) mixed them, with its draws."""
    with np.load(VECTORS / "augmix.npz") as vectors:
        recorded = dict(vectors)
    for number, image in enumerate(recorded["images"]):
        draws = iter(json.loads(str(recorded[f"{number}/draws"])))
        weights, share = next(draws)[1], next(draws)[1]
        total = np.zeros(image.shape)
        for weight in weights:
            levels = jnp.asarray(image, jnp.float32)
            for _ in range(int(next(draws)[1])):
                name = next(draws)[1]
                magnitude = 0.0
                if name not in ("autocontrast", "equalize"):
                    level = jnp.float32(next(draws)[1])
                    magnitude = float(chains.magnitudes(level, image.shape)[name])
                if name in operations.SIGNED:
                    # A translation of AugMix is in the direction opposite to torchvision's.
                    turned = next(draws)[1] > 0.5
                    magnitude *= -1 if turned != name.startswith("translate") else 1
                levels = operations.apply(
                    levels, operations.number(name), jnp.float32(magnitude), bilinear=True
                )
            total += weight * np.asarray(levels)
        mixed = ((1 - share) * image + share * total) / 255
        normalised = (mixed - recorded["mean"]) / recorded["std"]
        np.testing.assert_allclose(normalised, recorded[f"{number}/mixed"], atol=1e-5)


@pytest.mark.slow
def test_operations_are_drawn_with_equal_probability():
    space = {name: np.ones(2, np.float32) for name in ("identity", "invert", "solarize")}
    count = 3000
    keys = jax.random.split(jax.random.key(0), count)
    # One level tells the three apart: it stays, is inverted, or is inverted where it is at least 1.
    pixels = jnp.stack([jnp.full((1, 1), 0.0), jnp.full((1, 1), 10.0)], -1)
    pixels = jnp.concatenate([pixels, pixels[..., :1]], -1)
    made = jax.vmap(lambda key: spaces.draw(key, space, pixels, lambda _: jnp.int32(1)))(keys)
    first, second = np.asarray(made)[:, 0, 0, 0], np.asarray(made)[:, 0, 0, 1]
    counts = [
        ((first == 0) & (second == 10)).sum(),
        (first == 255).sum(),
        ((first == 0) & (second == 245)).sum(),
    ]
    assert sum(counts) == count
    assert stats.chisquare(counts).pvalue > 0.001


def test_signs_are_drawn_for_signed_operations_alone():
    keys = jax.random.split(jax.random.key(0), 2000)
    signs = np.asarray(
        jax.vmap(lambda key: operations.draw_signs(key, jnp.asarray([True, False])))(keys)
    )
    assert (signs[:, 1] == 1).all()
    assert stats.binomtest(int((signs[:, 0] == 1).sum()), 2000).pvalue > 0.001


def drawn(name, **options):
    images = pictures(3)
    keys = jax.random.split(jax.random.key(3), 3)
    member = plug("augment", name).make(Pixels(images[0].shape, (0.5,) * 3), **options)
    return images, np.asarray(jax.jit(jax.vmap(member))(keys, images.astype(np.float32) / 255))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["randaugment", "trivialaugment_wide", "autoaugment", "augmix", "color_jitter", "grayscale"],
)
def test_images_of_bytes_are_augmented_alike(name):
    images, made = drawn(name)
    keys = jax.random.split(jax.random.key(3), 3)
    member = plug("augment", name).make(Pixels(images[0].shape, (0.5,) * 3))
    levels = np.asarray(jax.jit(jax.vmap(member))(keys, images))
    assert levels.dtype == np.uint8
    np.testing.assert_allclose(levels, 255 * made, atol=0.501 if name == "augmix" else 1e-3)


def test_no_strength_changes_nothing():
    images, made = drawn("color_jitter", brightness=0.0, contrast=0.0, saturation=0.0)
    np.testing.assert_allclose(made, images.astype(np.float32) / 255, atol=1e-7)
    images, made = drawn("grayscale", probability=0.0)
    np.testing.assert_allclose(made, images.astype(np.float32) / 255, atol=1e-7)


def test_grey_images_are_pillow_s():
    images, made = drawn("grayscale", probability=1.0)
    for image, result in zip(images, made, strict=True):
        grey = np.asarray(Image.fromarray(image).convert("L"))
        np.testing.assert_array_equal(np.round(255 * result), np.repeat(grey[..., None], 3, -1))


def test_a_hue_moves_around_its_circle():
    images = pictures()
    shift = jax.jit(jax.vmap(operations.levels.shift_hue, in_axes=(0, None)))
    levels = images.astype(np.float32)
    np.testing.assert_array_equal(shift(levels, 0.0), levels)
    np.testing.assert_array_equal(shift(levels, 1 / 3), levels[..., [2, 0, 1]])
    # Pillow has 256 hues and saturations, so a level may differ by some.
    for share in (0.1, -0.25):
        for image, result in zip(images, np.asarray(shift(levels, share)), strict=True):
            hue, saturation, value = Image.fromarray(image).convert("HSV").split()
            moved = (np.asarray(hue, int) + int(share * 255)) % 256
            parts = (Image.fromarray(moved.astype(np.uint8)), saturation, value)
            expected = np.asarray(Image.merge("HSV", parts).convert("RGB"), float)
            error = np.abs(result - expected)
            assert error.mean() <= 2
            assert error.max() <= 20


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "randaugment",
            {"operations_in_row": 0},
            "operations_in_row must be between 1 and 20, got 0",
        ),
        ("randaugment", {"magnitude": 31}, "magnitude must be between 0 and 30, got 31"),
        ("randaugment", {"bins": 1}, "bins must be between 2 and 1000, got 1"),
        ("trivialaugment_wide", {"bins": 0}, "bins must be between 2 and 1000, got 0"),
        ("autoaugment", {"policy": "mnist"}, "must be one of cifar10, imagenet, svhn; got 'mnist'"),
        ("augmix", {"severity": 0.0}, "severity must be above 0.1 and at most 10, got 0.0"),
        ("augmix", {"width": 0}, "width must be between 1 and 10, got 0"),
        ("augmix", {"depth": 11}, "depth must be between 0 and 10, got 11"),
        ("augmix", {"alpha": 0.0}, "alpha must be above 0 and finite, got 0.0"),
        ("grayscale", {"probability": 2.0}, r"probability must be in \[0, 1\], got 2.0"),
        ("color_jitter", {"hue": 0.6}, "hue must be between 0 and 0.5, got 0.6"),
        ("color_jitter", {"contrast": -1.0}, "contrast must be between 0 and 100, got -1.0"),
    ],
)
def test_a_member_refuses(name, options, sentence):
    with pytest.raises(ValueError, match=rf"config\.augment\.{name}\..*{sentence}"):
        plug("augment", name).make(Pixels((8, 8, 3), (0.5,) * 3), **options)


def test_colours_need_one_channel_or_three():
    with pytest.raises(ValueError, match="randaugment needs images of one channel or three, got 4"):
        plug("augment", "randaugment").make(Pixels((8, 8, 4), (0.5,) * 4))


@pytest.mark.slow
def test_views_of_augmix_are_the_image_and_two_mixtures():
    images = jnp.asarray(pictures(4), jnp.float32) / 255
    auxiliary = plug("auxiliary", "augmix").make(None)
    views = jax.jit(auxiliary.views)(jax.random.key(0), images)
    assert views.shape == (3, *images.shape)
    np.testing.assert_array_equal(views[0], images)
    assert (np.abs(views[1] - views[2]).max((1, 2, 3))[1:] > 0.01).all()
    # Each example has a key of its own, whatever the size of the batch.
    single = partial(
        chains.make, "x", severity=3.0, width=3, depth=0, alpha=1.0, all_operations=False
    )
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 2), 3)
    np.testing.assert_allclose(views[2, 3], jax.jit(single())(key, images[3]), atol=1e-6)
