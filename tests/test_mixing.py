"""Mixed images are taken apart again: where each pixel came from says what was mixed, and by which
shares.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import plug, slow_but
from scipy import stats

from ldl_jax.mixing import base as mixing

V, B, COUNT = 2, 6, 700
QUICK = {"xla_backend_optimization_level": 0}  # compiling is most of the time here
NAMES = ("mixup", "cutmix", "ricap")
WAYS = {"none": 1, "mixup": 2, "cutmix": 2, "ricap": 4}
KINDS = {  # name: options, and the size of the images
    "batch": ({"probability": 0.6}, (8, 9)),
    "each": ({"probability": 0.5, "per_example": True, "alpha": 0.5}, (7, 12)),
}


class Drawn(NamedTuple):
    """What came of many draws."""

    image: np.ndarray  # f32[COUNT, V, B, H, W, 4]
    partner: np.ndarray  # i32[COUNT, B, M]
    share: np.ndarray  # f64[COUNT, B, M]


def traced_images(size, dtype=np.float32):
    """Images whose pixels hold (view, place in the batch, row, column): f[V, B, H, W, 4]."""
    return np.stack(np.indices((V, B, *size)), axis=-1).astype(dtype)


@lru_cache(None)
def drawn(name, kind):
    """Many batches of traced images, mixed."""
    options, size = KINDS[kind]
    mix = jax.vmap(plug("mixing", name).make(**options).mix, in_axes=(0, None))
    made = jax.jit(mix, compiler_options=QUICK)(
        jax.random.split(jax.random.key(11), COUNT), traced_images(size)
    )
    return Drawn(*(np.asarray(part) for part in made[:2]), np.asarray(made[2], np.float64))


def rolled_by(image):
    """By how many places of the batch each pixel was moved, i[COUNT, B, H, W]; all views moved it
    alike.
    """
    np.testing.assert_array_equal(image[:, 0, ..., 1:], image[:, 1, ..., 1:])
    assert (image[:, 0, ..., 0] == 0).all()
    assert (image[:, 1, ..., 0] == 1).all()
    return ((np.arange(B)[:, None, None] - image[:, 0, ..., 1]) % B).astype(int)


def lines(roll):
    """Height and width of the upper left patch of RICAP, i[COUNT, B] each."""
    return (roll < 2).any(-1).sum(-1), (roll % 2 == 0).any(-2).sum(-1)


def line_chances(extent, alpha, probability):
    """How often a line of RICAP lies at 0, 1, ..., extent: Beta(alpha, alpha) rounded, or the whole
    image.
    """
    edges = np.clip((np.arange(extent + 2) - 0.5) / extent, 0, 1)
    return (
        probability * np.diff(stats.beta(alpha, alpha).cdf(edges))
        + (1 - probability) * np.eye(extent + 1)[-1]
    )


def joined(image, split, offset):
    """RICAP in numpy: the image [V, B, H, W, C] and its shares f64[B, 4], patch by patch."""
    _, batch, height, width, _ = image.shape
    out, share = np.full_like(image, np.nan), np.zeros((batch, 4))
    for b, (h, w) in enumerate(split):
        places = [
            (0, 0, h, w),
            (0, w, h, width - w),
            (h, 0, height - h, w),
            (h, w, height - h, width - w),
        ]
        for m, (top, left, high, wide) in enumerate(places):
            y, x = offset[b, m]
            patch = image[:, (b - m) % batch, y : y + high, x : x + wide]
            assert patch.shape[1:3] == (high, wide)  # a crop lies within its image
            out[:, b, top : top + high, left : left + wide] = patch
            share[b, m] = high * wide / (height * width)
    return out, share


@pytest.mark.parametrize(
    ("name", "kind"), slow_but([("mixup", "batch")], [(n, k) for n in NAMES for k in KINDS])
)
def test_partners_are_rolls_and_shares_sum_to_one(name, kind):
    made = drawn(name, kind)
    assert (plug("mixing", name).make().ways, plug("mixing", name).make().probability) == (
        WAYS[name],
        1,
    )
    expected = np.stack([np.roll(np.arange(B), m) for m in range(WAYS[name])], axis=1)
    np.testing.assert_array_equal(made.partner, np.broadcast_to(expected, (COUNT, B, WAYS[name])))
    np.testing.assert_allclose(made.share.sum(-1), 1, rtol=0, atol=1e-6)
    assert (made.share >= 0).all()


@pytest.mark.parametrize("name", slow_but(["mixup"], NAMES))
def test_a_batch_shares_one_draw_unless_each_example_has_its_own(name):
    for kind in KINDS:
        share = drawn(name, kind).share
        alike = (share == share[:, :1]).all((1, 2))
        assert alike.all() if kind == "batch" else alike.mean() < 0.1


def test_none_is_the_identity():
    image = traced_images((4, 5))
    mixed, partner, share = plug("mixing", "none").make().mix(jax.random.key(0), image)
    np.testing.assert_array_equal(mixed, image)
    np.testing.assert_array_equal(partner, np.arange(B)[:, None])
    np.testing.assert_array_equal(share, np.ones((B, 1)))
    assert (plug("mixing", "none").make().probability, plug("mixing", "none").make().ways) == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_mixup_is_a_sum_by_shares(kind):
    made, image = drawn("mixup", kind), traced_images(KINDS[kind][1], np.float64)
    first = made.share[:, None, :, 0, None, None, None]
    expected = first * image + (1 - first) * image[:, np.roll(np.arange(B), 1)]
    np.testing.assert_allclose(made.image, expected, rtol=0, atol=2e-6)


def test_a_blend_of_float64_images_is_one_of_float64():
    image, share = (
        np.random.default_rng(0).random((V, B, 4, 5, 3)),
        np.linspace(0, 1, B).astype(np.float32),
    )
    mixed, first = (
        mixing.blend_images(image, jnp.asarray(share)),
        share.astype(np.float64)[None, :, None, None, None],
    )
    np.testing.assert_allclose(
        mixed, first * image + (1 - first) * np.roll(image, 1, axis=1), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("name", WAYS)
def test_an_image_keeps_its_type_and_shares_have_it_too(name, dtype):
    image = jax.ShapeDtypeStruct((V, B, 4, 5, 3), dtype)
    mixed, partner, share = jax.eval_shape(
        plug("mixing", name).make().mix, jax.random.key(0), image
    )
    assert (mixed.shape, mixed.dtype) == (image.shape, dtype)
    assert (partner.shape, share.shape) == ((B, WAYS[name]), (B, WAYS[name]))
    assert share.dtype == jnp.promote_types(dtype, jnp.float32)
    single = jax.ShapeDtypeStruct((V, 1, 4, 5, 3), dtype)
    mixed, partner, share = jax.eval_shape(
        plug("mixing", name).make().mix, jax.random.key(0), single
    )
    assert (mixed.shape, partner.shape, share.shape) == (
        single.shape,
        (1, WAYS[name]),
        (1, WAYS[name]),
    )


@pytest.mark.parametrize(("kind", "alpha"), [("batch", 1.0), ("each", 0.5)])
def test_the_share_of_mixup_is_drawn_from_beta(kind, alpha):
    share = drawn("mixup", kind).share[..., 0]
    share = share[:, 0] if kind == "batch" else share.ravel()
    share = share[share < 1]
    beta = stats.beta(alpha, alpha)
    assert abs(share.mean() - 0.5) < 4 * beta.std() / len(share) ** 0.5
    assert share.var() == pytest.approx(beta.var(), rel=0.1)
    assert stats.kstest(share, beta.cdf).pvalue > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_cutmix_pastes_a_box_in_its_place_and_counts_its_pixels(kind):
    made, size = drawn("cutmix", kind), KINDS[kind][1]
    roll = rolled_by(made.image)
    assert set(np.unique(roll)) == {0, 1}
    # each pixel stays in its place
    assert not (made.image[..., 2:] - traced_images(size)[..., 2:]).any()
    rows, columns = roll.any(-1), roll.any(-2)
    for line in (rows, columns):  # one run each; with the next line: one full rectangle
        assert (
            np.abs(np.diff(np.pad(line.astype(int), ((0, 0), (0, 0), (1, 1))))).sum(-1) <= 2
        ).all()
    np.testing.assert_array_equal(roll.sum((-2, -1)), rows.sum(-1) * columns.sum(-1))
    np.testing.assert_allclose(made.share[..., 0], 1 - roll.mean((-2, -1)), rtol=0, atol=1e-6)
    assert (rows.sum(-1) % 2 == 1).any()  # a whole box has even sides: some were clipped at an edge


@pytest.mark.parametrize(("kind", "alpha"), [("batch", 1.0), ("each", 0.5)])
def test_the_box_of_cutmix_is_drawn_as_algorithm_1_says(kind, alpha):
    (options, size), draw, count = KINDS[kind], np.random.default_rng(1), 20000
    cut, own = np.sqrt(1 - draw.beta(alpha, alpha, count)), np.ones(count)
    cut = np.where(draw.random(count) < options.get("probability", 1), cut, 0)
    for extent in size:
        half, centre = np.floor(extent * cut) // 2, draw.integers(0, extent, count)
        own = own * (np.minimum(centre + half, extent) - np.maximum(centre - half, 0))
    share = drawn("cutmix", kind).share[..., 0]
    share = share[:, 0] if kind == "batch" else share.ravel()
    box = np.round((1 - share) * np.prod(size))
    assert stats.ks_2samp(own, box).pvalue > 0.01
    assert abs(own.mean() - box.mean()) < 4 * own.std() / len(box) ** 0.5


def test_an_empty_box_leaves_the_image_alone_and_a_full_one_replaces_it():
    image = traced_images((4, 6))[:, :3]
    boxes = jnp.asarray([[2, 2, 1, 5], [0, 4, 0, 6], [1, 2, 3, 6]])
    mixed, share = jax.jit(mixing.paste_box, compiler_options=QUICK)(image, boxes)
    np.testing.assert_array_equal(mixed[:, 0], image[:, 0])
    np.testing.assert_array_equal(mixed[:, 1], image[:, 0])
    expected = image[:, 2].copy()
    expected[:, 1:2, 3:6] = image[:, 1, 1:2, 3:6]
    np.testing.assert_array_equal(mixed[:, 2], expected)
    np.testing.assert_allclose(share, [1, 0, 1 - 3 / 24], rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_ricap_joins_four_crops_and_its_shares_are_their_areas(kind):
    made, size = drawn("ricap", kind), KINDS[kind][1]
    roll = rolled_by(made.image)
    split = np.stack(lines(roll), axis=-1)
    for number in range(12):
        offset = np.zeros((B, 4, 2), int)
        for b, m in zip(
            *np.nonzero([[(roll[number, b] == m).any() for m in range(4)] for b in range(B)]),
            strict=True,
        ):
            first = split[number, b] * (m // 2, m % 2)
            offset[b, m] = made.image[number, 0, b, first[0], first[1], 2:]
        expected, areas = joined(traced_images(size), split[number], offset)
        np.testing.assert_array_equal(made.image[number], expected)
        np.testing.assert_allclose(made.share[number], areas, rtol=0, atol=1e-6)
    counted = np.stack([(roll == m).mean((-2, -1)) for m in range(4)], axis=-1)
    np.testing.assert_allclose(made.share, counted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_four_patches_are_numpy_crops_also_where_some_are_empty(dtype):
    image, size = np.random.default_rng(3).random((V, B, 5, 6, 3)).astype(dtype), np.array([5, 6])
    # lines on the edges, every way
    split = np.array([[0, 0], [5, 6], [0, 3], [5, 2], [2, 0], [3, 6]])
    room = np.stack(
        [size - abs(np.array([m // 2, m % 2]) * size - split) for m in range(4)], axis=1
    )
    offset = np.random.default_rng(4).integers(0, room + 1)
    mixed, share = jax.jit(mixing.patch_four, compiler_options=QUICK)(
        image, jnp.asarray(split), jnp.asarray(offset)
    )
    expected, areas = joined(image, split, offset)
    assert mixed.dtype == dtype
    np.testing.assert_array_equal(mixed, expected)
    np.testing.assert_allclose(share, areas, rtol=0, atol=1e-7)
    assert ((np.asarray(share) == 0).sum(1) >= 2).all()


def test_the_lines_of_a_batch_under_ricap_are_rounded_from_beta():
    for line, extent in zip(
        lines(rolled_by(drawn("ricap", "batch").image)), KINDS["batch"][1], strict=True
    ):
        expected = COUNT * line_chances(extent, 0.3, 0.6)
        assert (
            stats.chisquare(np.bincount(line[:, 0], minlength=extent + 1), expected).pvalue > 0.01
        )


def test_the_two_lines_of_an_example_under_ricap_are_drawn_apart():
    height, width = KINDS["each"][1]
    high, wide = (line.ravel() for line in lines(rolled_by(drawn("ricap", "each").image)))
    chances = np.outer(line_chances(height, 0.5, 1), line_chances(width, 0.5, 1)) / 2
    chances[-1, -1] += 1 / 2  # not touched
    found = np.bincount(high * (width + 1) + wide, minlength=chances.size)
    assert stats.chisquare(found, COUNT * B * chances.ravel()).pvalue > 0.01


def test_a_crop_of_ricap_is_taken_from_anywhere():
    image, size = drawn("ricap", "each").image[:, 0], KINDS["each"][1]
    split = np.stack(lines(rolled_by(drawn("ricap", "each").image)), axis=-1)
    which, spread = np.indices(split.shape[:2]), np.random.default_rng(5)
    for m in range(4):
        corner = np.array([m // 2, m % 2])
        extent = np.where(corner == 0, split, size - split)
        first = np.minimum(corner * split, np.array(size) - 1)
        offset = image[which[0], which[1], first[..., 0], first[..., 1], 2:]
        for axis in range(2):
            room = size[axis] - extent[..., axis]
            seen = (extent.min(-1) > 0) & (room > 0)
            # uniform in [0, 1)
            places = (offset[..., axis] + spread.random(room.shape)) / (room + 1)
            assert seen.sum() > 300
            assert stats.kstest(places[seen], "uniform").pvalue > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_so_many_are_touched_as_the_probability_says(name, kind):
    options, size = KINDS[kind]
    alpha = options.get("alpha", 0.3 if name == "ricap" else 1.0)
    whole = {  # how often a draw that counts leaves the image alone all the same
        "mixup": 0.0,
        # no pixel to either side of the centre
        "cutmix": stats.beta(alpha, alpha).sf(1 - (2 / min(size)) ** 2),
        "ricap": np.prod([line_chances(extent, alpha, 1)[-1] for extent in size]),
    }[name]
    touched = drawn(name, kind).share[..., 0] < 1 - 1e-6
    touched = touched.ravel() if kind == "each" else touched[:, 0]
    expected = options.get("probability", 1) * (1 - whole)
    assert abs(touched.mean() - expected) <= 4 * (expected * (1 - expected) / len(touched)) ** 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": -1.0}, {"alpha": float("nan")}, {"probability": -0.1},
                                     {"probability": 1.1}])  # fmt: skip
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(ValueError, match=rf"mixing\.{name}\.{next(iter(options))} must be"):
        plug("mixing", name).make(**options)
