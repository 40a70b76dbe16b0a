"""Contracts over the members of augment/, and random erasing against its definition."""

from functools import partial

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldl_jax import config
from ldl_jax.augment import base
from ldl_jax.config.options import plug

MEAN = (0.2, 0.5, 0.7)
COUNT, SHAPE = 400, (20, 16, 3)
# Operations drawn from many take long to compile.
QUICK = ["color_jitter", "grayscale", "random_erasing", "randaugment"]


def drawn(name, **options):
    """COUNT random images, and what a member makes of them."""
    images = np.random.default_rng(0).random((COUNT, *SHAPE), np.float32)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(1)))(jnp.arange(COUNT))
    member = plug("augment", name).make(base.Pixels(SHAPE, MEAN), **options)
    return images, np.asarray(jax.jit(jax.vmap(member))(keys, images))


@pytest.mark.parametrize("name", frame.slow_but(QUICK, config.plugs("augment")))
def test_a_member_keeps_shape_type_and_range_and_takes_each_image_by_its_key(name):
    images, made = drawn(name)
    assert made.shape == images.shape
    assert made.dtype == images.dtype
    assert made.min() >= 0
    assert made.max() <= 1
    assert np.isfinite(made).all()
    member = jax.jit(plug("augment", name).make(base.Pixels(SHAPE, MEAN)))
    for number in (0, COUNT - 1):
        one = member(jax.random.fold_in(jax.random.key(1), number), images[number])
        np.testing.assert_allclose(one, made[number], rtol=0, atol=1e-6)
    for dtype in (jnp.bfloat16, jnp.float64):
        shape = jax.ShapeDtypeStruct(SHAPE, dtype)
        assert (
            jax.eval_shape(member, jax.eval_shape(lambda: jax.random.key(0)), shape).dtype == dtype
        )


def test_members_come_between_flip_and_cutout_and_leave_the_bits_of_these():
    images = np.random.default_rng(0).random((8, *SHAPE), np.float32)
    keys = jax.random.split(jax.random.key(0), 8)

    def augmented(*members, cutout):
        augment = base.make(MEAN, members, pad=2, flip=True, cutout=cutout)
        return np.asarray(jax.jit(augment)(keys, images))

    plain, cropped = augmented(cutout=4), augmented(cutout=0)
    same, negative = (lambda key, image: image), (lambda key, image: 1 - image)
    np.testing.assert_array_equal(augmented(same, cutout=4), plain)
    # A member that inverts the image sees what crop and flip left, and not the square of cutout.
    inverted = augmented(negative, cutout=4)
    erased = (plain == np.asarray(MEAN, np.float32)).all(-1)
    assert erased.any((1, 2)).all()
    np.testing.assert_array_equal(inverted[~erased], (1 - cropped)[~erased])
    np.testing.assert_array_equal(inverted[erased], plain[erased])


def test_members_have_keys_of_their_own():
    def writes(row):
        return lambda key, image: image.at[row, :2, 0].set(
            jax.random.key_data(key).astype(image.dtype)
        )

    keys = jax.random.split(jax.random.key(0), 1)
    image = jax.jit(base.make(MEAN, [writes(0), writes(1)]))(
        keys, jnp.zeros((1, *SHAPE), jnp.float64)
    )
    used = {tuple(np.asarray(image)[0, row, :2, 0].astype(np.uint32).tolist()) for row in (0, 1)}
    used |= {
        tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in jax.random.split(keys[0], 3)
    }
    assert len(used) == 5


def test_random_erasing_erases_one_rectangle_of_the_mean_colour():
    images, made = drawn("random_erasing", smallest=0.1, largest=0.3, ratio=0.5)
    erased = (made != images).any(-1)
    some = erased.any((1, 2))
    assert abs(some.mean() - 0.5) < 0.08
    for image, where in zip(made[some], erased[some], strict=True):
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        box = np.zeros(SHAPE[:2], bool)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        np.testing.assert_array_equal(where, box)
        np.testing.assert_allclose(
            image[where], np.broadcast_to(MEAN, image[where].shape), rtol=1e-6
        )
        assert 0.08 < box.mean() < 0.32
        assert 0.35 < len(rows) / len(columns) < 2.9


def test_random_erasing_reaches_every_pixel_and_none_where_it_does_not_fit():
    images, made = drawn("random_erasing", probability=1.0)
    assert (made != images).any((0, 3)).all()
    images, made = drawn("random_erasing", probability=1.0, smallest=0.99, largest=0.99, ratio=0.05)
    np.testing.assert_array_equal(made, images)
    images, made = drawn("random_erasing", probability=0.0)
    np.testing.assert_array_equal(made, images)


@pytest.mark.parametrize(
    "options", [{"probability": 1.5}, {"smallest": 0.5, "largest": 0.2}, {"ratio": 0.0}]
)
def test_random_erasing_refuses(options):
    with pytest.raises(ValueError, match=r"augment\.random_erasing\..* must .*got"):
        plug("augment", "random_erasing").make(base.Pixels(SHAPE, MEAN), **options)
