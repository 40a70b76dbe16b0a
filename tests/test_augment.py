"""Each pixel operation against numpy, and each image by its own key alone."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldl_jax.augment import base as augment

SIZE, MEAN, COUNT = (5, 6), (0.25, 0.5), 4000
H, W = SIZE
OPTIONS = {"pad": 2, "flip": True, "cutout": 3}
QUICK = {"xla_backend_optimization_level": 0}  # compiling is most of the time here


def marked_image(dtype=np.float32):
    """An image [5, 6, 2] of which every pixel is another, and none is black or of the mean colour."""
    return (1 + np.arange(H * W * 2).reshape(H, W, 2)).astype(dtype) / 100


@lru_cache(None)
def all_on():
    return jax.jit(augment.make(MEAN, **OPTIONS), compiler_options=QUICK)


def keys(count=COUNT, seed=4):
    return jax.random.split(jax.random.key(seed), count)


@lru_cache(None)
def drawn(**options):
    """One image, augmented by 4,000 keys: f32[4000, 5, 6, 2]."""
    images = np.broadcast_to(marked_image(), (COUNT, H, W, 2))
    return np.asarray(
        jax.jit(augment.make(MEAN, **options), compiler_options=QUICK)(keys(), images)
    )


def which(made, allowed):
    """Which of the allowed images f[A, H, W, C] each made one is, i[N]; each must be exactly one of
    them.
    """
    same = (made[:, None] == allowed[None]).all((2, 3, 4))
    np.testing.assert_array_equal(same.sum(1), 1)
    return same.argmax(1)


def cropped(image, pad):
    """All crops of the image's size over a black border, in numpy."""
    black = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return np.stack([black[y : y + H, x : x + W] for y, x in np.ndindex(2 * pad + 1, 2 * pad + 1)])


def erased(image, side):
    """The image with a square of the mean colour around each of its pixels, clipped at the edges,
    in numpy.
    """
    made = np.repeat(image[None], H * W, axis=0)
    for number, (y, x) in enumerate(np.ndindex(H, W)):
        top, left = y - side // 2, x - side // 2
        made[number, max(top, 0) : top + side, max(left, 0) : left + side] = MEAN
    return made


def test_a_crop_is_shifted_evenly_over_a_black_border():
    found = which(drawn(pad=2), cropped(marked_image(), 2))
    assert stats.chisquare(np.bincount(found, minlength=25)).pvalue > 0.01


def test_every_second_image_is_mirrored():
    found = which(drawn(flip=True), np.stack([marked_image(), marked_image()[:, ::-1]]))
    assert abs(found.mean() - 0.5) < 4 * 0.5 / COUNT**0.5


@pytest.mark.parametrize("side", [3, 4])
def test_an_erased_square_has_the_mean_colour_and_lies_around_any_pixel(side):
    found = which(drawn(cutout=side), erased(marked_image(), side))
    assert stats.chisquare(np.bincount(found, minlength=H * W)).pvalue > 0.01


def test_an_image_is_cropped_then_mirrored_then_erased_each_by_a_draw_of_its_own():
    crops = cropped(marked_image(), 1)
    before = np.concatenate([crops, crops[:, :, ::-1]])
    allowed = np.concatenate([erased(image, 1) for image in before])
    names = {image.tobytes(): number for number, image in enumerate(allowed)}
    assert len(names) == len(allowed)
    found = np.array([names[image.tobytes()] for image in drawn(pad=1, flip=True, cutout=1)])
    # 540 sorts of image, all alike
    assert stats.chisquare(np.bincount(found, minlength=len(allowed))).pvalue > 0.01


def test_an_image_depends_on_its_own_key_and_not_on_its_batch():
    make = all_on()
    images = np.random.default_rng(0).random((8, H, W, 2)).astype(np.float32)
    whole = make(keys(8), images)
    np.testing.assert_array_equal(make(keys(8)[::-1], images[::-1])[::-1], whole)
    others = images.copy()
    others[[0, 1, 2, 4, 5, 6, 7]] = 0.9
    np.testing.assert_array_equal(make(keys(8), others)[3], whole[3])
    np.testing.assert_array_equal(make(keys(8)[3:4], images[3:4])[0], whole[3])


def test_equal_keys_do_equal_things_and_others_differ():
    make = all_on()
    images = np.broadcast_to(marked_image(), (8, H, W, 2))
    alike = np.asarray(make(jnp.stack([keys(1)[0]] * 8), images))
    np.testing.assert_array_equal(alike, np.broadcast_to(alike[0], alike.shape))
    assert len({image.tobytes() for image in np.asarray(make(keys(8), images))}) > 4


def test_nothing_is_done_where_all_is_off():
    images = np.random.default_rng(0).random((3, H, W, 2))
    assert augment.make(MEAN)(keys(3), images) is images


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
def test_an_image_keeps_its_shape_and_type(dtype):
    images = jax.ShapeDtypeStruct((3, H, W, 2), dtype)
    for options in ({"pad": 1}, {"flip": True}, {"cutout": 2}, OPTIONS):
        made = jax.eval_shape(
            augment.make(MEAN, **options), jax.eval_shape(partial(keys, 3)), images
        )
        assert (made.shape, made.dtype) == (images.shape, dtype)


def test_a_float64_image_loses_no_digit():
    image, mean = marked_image(np.float64) / 3, (1 / 3, 2 / 3)
    make = jax.jit(augment.make(mean, **OPTIONS), compiler_options=QUICK)
    made = np.asarray(make(keys(50), np.broadcast_to(image, (50, H, W, 2))))
    assert set(np.unique(made)) <= {0.0, *mean, *image.ravel()}
    assert set(mean) <= set(np.unique(made))


@pytest.mark.parametrize("options", [{"pad": -1}, {"cutout": -2}])
def test_negative_sizes_are_refused(options):
    with pytest.raises(
        ValueError, match=rf"augment.{next(iter(options))} must be at least 0 pixels, got -"
    ):
        augment.make(MEAN, **options)
