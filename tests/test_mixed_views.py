"""Auxiliaries that see a batch beside a mixture or a crop of it, against numpy in float64.

What an auxiliary has mixed is read off its views: the image of example i is the i-th unit vector,
so the pixels of a mixed image are the shares of the images in it.
"""

from functools import lru_cache, partial
from pathlib import Path

import chex
import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import Case, plain_batch, plain_build, plug, softmax
from jax.sharding import NamedSharding, PartitionSpec

from ldl_jax import mesh
from ldl_jax.auxiliary import base
from ldl_jax.auxiliary.base import check_views, mixup_numbers
from ldl_jax.contract import Auxiliary, Outputs, Target

B, K = 7, 5
LABEL = np.array([0, 1, 1, 3, 4, 2, 2])  # two neighbours of one class each; rolled by 3, none
MASK = np.array([1, 1, 1, 1, 0, 1, 1.0])
DRAW = np.random.default_rng(0)
VIEWS = {"regmixup": 2, "mixupmp": 2, "rankmixup_mrl": 2, "rankmixup_mndcg": 4}
CASES = [
    ("regmixup", ()),
    ("mixupmp", ()),
    ("rankmixup_mrl", ()),
    ("rankmixup_mrl", (("skip_equal", True), ("margin", 0.5))),
    ("rankmixup_mndcg", ()),
    ("rankmixup_mndcg", (("mixes", 1), ("alpha", 0.7))),
]
OFFICIAL = np.load(Path(__file__).parent / "vectors" / "mixed_views.npz")


@lru_cache(None)
def make(name, options=()):
    return plug("auxiliary", name).make(plain_build(), **dict(options))


def distributions(seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(K), B)


@lru_cache(None)
def numbers(key, size, count, alpha, per_example):
    """What `mixup_numbers` draws, outside of any compiled program."""
    with jax.ensure_compile_time_eval():
        key = jax.random.wrap_key_data(jnp.asarray(key, jnp.uint32))
        draw = partial(mixup_numbers, count=count, alpha=alpha, per_example=per_example)
        drawn = jax.jit(draw)(key, jnp.zeros(size))
        return tuple(np.asarray(part) for part in drawn)


def drawn_once(key, like, count, *, alpha, per_example=False):
    """`mixup_numbers` of a known key, whose sampling takes longer to compile than any loss here."""
    with jax.ensure_compile_time_eval():
        words = tuple(np.asarray(jax.random.key_data(key)).tolist())
    return numbers(words, len(like), count, alpha, per_example)


@lru_cache(None)
def shares(name, options=(), size=B):
    """What each view [V, B] is made of, [V, B, B]."""
    pixels = jnp.eye(size).reshape(size, 1, 1, size)
    auxiliary = make(name, options)  # imported before the patch, which it would keep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "mixup_numbers", drawn_once)
        return np.asarray(auxiliary.views(jax.random.key(0), pixels))[:, :, 0, 0]


@lru_cache(None)
def compiled(name, options=()):
    """The loss and its gradient, of logits, labels, mask, and probs, weights of two terms."""
    key = jax.random.key(0)

    def loss(logits, label, mask, probs, weights):
        batch = plain_batch(label, mask=mask)._replace(key=key)
        first = Target(probs, weights[0])
        # A term of a network that has seen the images, at a temperature.
        second = Target(probs[::-1], weights[1], 3.0, soft=True, mixed=True)
        targets = (first, second)
        return make(name, options).loss({}, (), batch, Outputs(logits, (), None), targets)[0]

    def with_draws(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            draw_from(patch, name, drawn_once)
            return jax.value_and_grad(loss)(*arguments)

    return jax.jit(with_draws)


def draw_from(patch, name, function):
    """Let an auxiliary mix by `function` in place of `mixup_numbers`."""
    module = plug("auxiliary", name)
    place = module if hasattr(module, "mixup_numbers") else base
    patch.setattr(place, "mixup_numbers", function)


def run(name, options, logits, label=LABEL, mask=MASK, probs=None, weights=(0.7, 0.4)):
    probs = distributions() if probs is None else probs
    return compiled(name, options)(
        jnp.asarray(logits), jnp.asarray(label), jnp.asarray(mask), jnp.asarray(probs), weights
    )


# ---- references


def counted(made, mask):
    """Examples of whose views no image is masked."""
    return [
        i for i in range(B) if all(mask[j] > 0 for view in made for j in np.flatnonzero(view[i]))
    ]


def mixed_terms(options, made, logits, mask, probs, weights):
    del options
    log_p = np.log(softmax(logits[1]))
    hard = -(made[1] @ probs * log_p).sum(-1)
    mixed = made[1] @ probs[::-1]
    soft = 9 * (mixed * (np.log(mixed) - np.log(softmax(logits[1] / 3)))).sum(-1)
    return (weights[0] * hard + weights[1] * soft)[counted(made, mask)].mean()


def ranking(options, made, logits, mask, probs, weights):
    del probs, weights
    rows = counted(made, mask)
    excess = np.maximum(logits[1].max(-1) - logits[0].max(-1) + options.get("margin", 2.0), 0)
    apart = np.array([len({LABEL[j] for j in np.flatnonzero(row)}) > 1 for row in made[1]])
    if options.get("skip_equal"):
        return (excess * apart)[rows].mean()
    return excess[rows].mean() * apart[rows].mean()


def gain(options, made, logits, mask, probs, weights):
    del options, probs, weights
    losses = []
    for i in counted(made, mask):
        one_hot = np.eye(K)[LABEL]
        ideal = [(view[i] @ one_hot).max() for view in made[1:]]
        order = sorted(range(len(ideal)), key=lambda view: -ideal[view])
        found = [softmax(logits[1 + view, i]).max() for view in order]
        best = [1.0] + [ideal[view] for view in order]
        found = [softmax(logits[0, i]).max(), *found]
        dcg, top = (sum(g / np.log2(r + 2) for r, g in enumerate(row)) for row in (found, best))
        losses.append(1 - min(dcg / top, top / dcg))
    return np.mean(losses)


REFERENCES = {"regmixup": mixed_terms, "mixupmp": mixed_terms, "rankmixup_mrl": ranking}
REFERENCES["rankmixup_mndcg"] = gain


def reference(name, options, logits, mask=MASK, probs=None, weights=(0.7, 0.4)):
    probs = distributions() if probs is None else probs
    made = shares(name, options)
    return REFERENCES[name](dict(options), made, logits, mask, probs, weights)


# ---- values


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_loss_is_that_of_the_images_in_its_views(name, options):
    logits = 2 * DRAW.standard_normal((len(shares(name, options)), B, K))
    for mask in (MASK, np.ones(B)):
        value, slope = run(name, options, logits, mask=mask)
        np.testing.assert_allclose(value, reference(name, options, logits, mask), rtol=1e-10)
        way = DRAW.standard_normal(logits.shape)
        ahead, behind = (
            reference(name, options, logits + step * way, mask) for step in (1e-6, -1e-6)
        )
        np.testing.assert_allclose((slope * way).sum(), (ahead - behind) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_masked_examples_and_those_mixed_with_one_count_for_nothing(name, options):
    logits = DRAW.standard_normal((len(shares(name, options)), B, K))
    value, slope = run(name, options, logits, weights=(0.7, 0.0))
    others = np.setdiff1d(np.arange(B), counted(shares(name, options), MASK))
    assert 4 in others
    assert len(others) > 1
    changed = logits.copy()
    changed[:, others] = np.nan
    label = np.where(MASK > 0, LABEL, 0)
    probs = np.where(MASK[:, None] > 0, distributions(), 1 / K)
    again, slope_again = run(name, options, changed, label, probs=probs, weights=(0.7, 0.0))
    np.testing.assert_array_equal(again, value)
    kept = np.setdiff1d(np.arange(B), others)
    np.testing.assert_array_equal(slope_again[:, kept], slope[:, kept])
    assert (np.asarray(slope)[:, others] == 0).all()
    assert run(name, options, logits, mask=np.zeros(B))[0] == 0


@pytest.mark.parametrize(("name", "options"), CASES)
def test_saturated_logits_and_logits_of_minus_infinity(name, options):
    """One class is impossible in all views and has no probability in the labels."""
    logits = 1e4 * np.eye(K)[DRAW.integers(0, K - 1, (len(shares(name, options)), B))]
    logits[..., K - 1] = -np.inf
    probs = np.eye(K)[np.where(LABEL < K - 1, LABEL, 0)]
    value, slope = run(name, options, logits, np.where(LABEL < K - 1, LABEL, 0), probs=probs)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_terms_inherit_the_weights_of_the_label_source():
    logits = DRAW.standard_normal((2, B, K))
    whole, half = (run("regmixup", (), logits, weights=w)[0] for w in ((1.0, 0.0), (0.5, 0.0)))
    np.testing.assert_allclose(half, whole / 2, rtol=1e-14)


@pytest.mark.parametrize("case", frame.slow_but(["base"], ["base", "k2"]))
@pytest.mark.parametrize("name", ["regmixup", "rankmixup_mrl", "rankmixup_mndcg"])
def test_the_published_code_has_the_same_loss_and_gradient(monkeypatch, name, case):
    """Its own partners and shares stand in for the drawn ones; of RegMixup, half of each half."""
    prefix = f"{name}/{case}/"
    given = {key[len(prefix) :]: OFFICIAL[key] for key in OFFICIAL if key.startswith(prefix)}
    draw_from(monkeypatch, name, lambda *_, **__: (given["partner"], given["share"]))
    build = plain_build()
    auxiliary, clean = plug("auxiliary", name).make(build), 0.5 if name == "regmixup" else 1.0
    probs = np.eye(given["logits"].shape[-1])[given["label"]]
    batch = plain_batch(given["label"])

    def total(logits):
        outputs = Outputs(logits, (), None)
        loss, _ = auxiliary.loss({}, (), batch, outputs, (Target(jnp.asarray(probs), clean),))
        return clean * build.criterion(logits[0], probs).mean() + auxiliary.weight * loss

    value, slope = jax.jit(jax.value_and_grad(total))(jnp.asarray(given["logits"]))
    np.testing.assert_allclose(value, given["loss"], rtol=1e-12)
    np.testing.assert_allclose(slope, given["slope"], rtol=0, atol=1e-12 * np.abs(slope).max())


# ---- views


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_the_batch_and_its_mixups_with_other_partners_each(name):
    made = shares(name)
    assert made.shape == (VIEWS[name], B, B)
    np.testing.assert_array_equal(made[0], np.eye(B))
    for number, view in enumerate(made[1:], start=1):
        np.testing.assert_allclose(view.sum(-1), 1, rtol=1e-15)
        own = np.diag(view)
        np.testing.assert_array_equal(view, np.diag(own) + np.roll(np.diag(1 - own), -number, 1))
        assert (own > 0).all()
        assert len(np.unique(own)) == (B if name == "mixupmp" else 1)
    assert len({view[0, 0] for view in made}) == len(made)
    assert make(name).draws == 1


@pytest.mark.slow
def test_shares_are_beta_distributed():
    for alpha in (1.0, 20.0):
        share = numbers((0, 0), 4000, 2, alpha, True)[1]
        np.testing.assert_allclose(share.mean(0), 0.5, atol=0.015)
        np.testing.assert_allclose(share.var(0), 1 / (4 * (2 * alpha + 1)), rtol=0.1)
        assert abs(np.corrcoef(share.T)[0, 1]) < 0.05


@pytest.mark.parametrize(
    "name", frame.slow_but(["soft_augmentation"], [*VIEWS, "soft_augmentation"])
)
def test_views_are_those_of_any_number_of_devices(name):
    image = jnp.asarray(DRAW.random((16, 8, 8, 3)))
    seen = []
    for devices in (1, 8):
        there = mesh.make_mesh(jax.devices()[:devices])
        spread = NamedSharding(there, PartitionSpec(there.axis_names[0]))
        seen.append(jax.jit(make(name).views)(jax.random.key(1), jax.device_put(image, spread)))
    np.testing.assert_array_equal(*map(np.asarray, seen))


def test_other_steps_draw_other_shares():
    one, other = (numbers((0, step), B, 1, 2.0, False)[1] for step in (0, 1))
    assert abs(one - other).min() > 1e-3


# ---- soft augmentation

SIDE = (6, 5)


@lru_cache(None)
def softened():
    """(views, share of the image in each crop, read off the pixels)."""
    ids = np.arange(1.0, 31.0).reshape(*SIDE, 1)  # of mean 15.5, which is no pixel's
    image = jnp.asarray(np.tile(ids, (40, 1, 1, 1)))
    views = np.asarray(jax.jit(make("soft_augmentation").views)(jax.random.key(0), image))
    return views, (views[1] != 15.5).mean((1, 2, 3))


def test_crops_are_shifts_filled_with_the_mean_colour():
    views, seen = softened()
    np.testing.assert_array_equal(views[0, 0, :, :, 0], np.arange(1, 31).reshape(SIDE))
    hit = set()
    for crop in views[1, ..., 0]:
        rows, columns = np.nonzero(crop != 15.5)
        if not len(rows):
            continue
        pixel = crop[rows, columns].astype(int) - 1
        down, right = (pixel // SIDE[1] - rows)[0], (pixel % SIDE[1] - columns)[0]
        assert (pixel // SIDE[1] - rows == down).all()
        assert (pixel % SIDE[1] - columns == right).all()
        assert len(rows) == (SIDE[0] - abs(down)) * (SIDE[1] - abs(right))
        hit.add((down, right))
    assert len(hit) > 12
    assert min(seen) < 0.3 < 0.9 < max(seen)


@pytest.mark.parametrize("power", frame.slow_but([2.0], [2.0, 1.0]))
def test_the_label_is_softened_by_the_hidden_share(power):
    views, seen = softened()
    count = len(seen)
    label, mask = np.arange(count) % K, (np.arange(count) % 5 != 2) * 1.0
    logits = DRAW.standard_normal((2, count, K))
    batch = plain_batch(label, mask=jnp.asarray(mask))._replace(image=jnp.asarray(views))
    auxiliary = make("soft_augmentation", (("power", power),))

    @jax.jit
    def loss(logits, mask):
        outputs = Outputs(jnp.asarray(logits), (), None)
        targets = (Target(jnp.asarray(np.eye(K)[label]), 0.0),)  # whose weight does not matter
        return auxiliary.loss({}, (), batch._replace(mask=mask), outputs, targets)[0]

    def by_numpy(logits):
        sure = 1 - (1 - 1 / K) * (1 - seen) ** power
        soft = np.where(np.eye(K)[label] > 0, sure[:, None], (1 - sure[:, None]) / (K - 1))
        log_soft = np.log(np.where(soft > 0, soft, 1))
        terms = (soft * (log_soft - np.log(softmax(logits[1])))).sum(-1)
        return (sure * terms)[mask > 0].mean()

    np.testing.assert_allclose(loss(logits, mask), by_numpy(logits), rtol=1e-10)
    way = DRAW.standard_normal(logits.shape)
    slope = jax.jit(jax.grad(loss))(logits, mask)
    expected = (by_numpy(logits + 1e-6 * way) - by_numpy(logits - 1e-6 * way)) / 2e-6
    np.testing.assert_allclose((slope * way).sum(), expected, rtol=1e-6)
    logits[:, mask == 0] = np.nan
    np.testing.assert_allclose(loss(logits, mask), by_numpy(logits), rtol=1e-10)
    assert loss(logits, jnp.zeros(count)) == 0


# ---- refusals


@pytest.mark.parametrize("name", frame.MIXES)
def test_a_run_that_mixes_is_refused(name):
    sentence = (
        f"config.auxiliary.names has '{name}', which mixes images itself, so config.mixing.name"
    )
    for probability in (0.5, 1.0):
        with pytest.raises(ValueError, match=f"^{sentence} must be 'none', got .* {probability}$"):
            plug("auxiliary", name).make(plain_build(mix_prob=probability))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        *[(name, {"alpha": np.nan}, "alpha must be above 0 and finite, got nan") for name in VIEWS],
        *[(name, {"alpha": np.inf}, "alpha must be above 0 and finite, got inf") for name in VIEWS],
        ("rankmixup_mrl", {"margin": np.nan}, "margin must be finite, got nan"),
        ("rankmixup_mndcg", {"mixes": 64}, "mixes must be between 1 and 63, got 64"),
        ("soft_augmentation", {"spread": np.inf}, "spread must be above 0 and finite, got inf"),
        ("soft_augmentation", {"power": np.nan}, "power must be above 0 and finite, got nan"),
    ],
)
def test_options_are_refused(name, options, sentence):
    with pytest.raises(ValueError, match=rf"^config\.auxiliary\.{name}\.{sentence}$"):
        plug("auxiliary", name).make(plain_build(), **options)


def test_a_second_loss_with_views_is_refused():
    plain, draws = Auxiliary(None), Auxiliary(None, draws=3)
    own = Auxiliary(None, views=lambda key, image: image[None])
    for allowed in ({"a": plain, "b": own}, {"a": draws, "b": draws, "c": plain}, {}):
        check_views(allowed)
    for wrong in ({"a": own, "b": own}, {"b": draws, "a": own, "c": plain}):
        with pytest.raises(ValueError, match=r"no second loss .* beside 'a', .* 'b'"):
            check_views(wrong)


# ---- in the step


@pytest.mark.slow
@pytest.mark.parametrize("name", ["augmix", "jsd", *VIEWS, "soft_augmentation"])
def test_views_of_streamed_and_of_resident_batches_train_alike(name):
    case = Case("hard", dtype="float64", auxiliaries=(name,), network="linear")
    case = case._replace(augment=(("pad", 1), ("flip", True)))
    (one, a), (two, b) = (
        frame.train(case, 3, make=make) for make in (frame.resident, frame.streamed)
    )
    assert min(abs(scalars[f"loss_{name}"]) for scalars in a) > 1e-6
    chex.assert_trees_all_close((one, a), (two, b), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher", "mean_teacher", "blend", "online"])
def test_other_label_sources_are_mixed(name):
    """The mixed term of a label source is that of its targets, mixed by hand."""
    case = Case(name, dtype="float64", auxiliaries=("regmixup",), network="linear")
    step = frame.observed(case)
    data, batch = frame.data(), frame.streamed(0)
    (_, scalars), (seen, targets, outputs) = step(
        frame.fresh(case), frame.frozen("float64", name="linear"), data, batch
    )
    (partner,), (share,) = (
        np.asarray(leaf).T for leaf in mixup_numbers(seen.key, outputs.logits[0], 1, alpha=20.0)
    )
    total = 0
    for target in targets:
        probs = np.asarray(target.probs)
        probs = share[:, None] * probs + (1 - share[:, None]) * probs[partner]
        heat = float(target.temperature)
        log_p = np.log(softmax(outputs.logits[1] / heat))
        entropy = (probs * np.log(np.where(probs > 0, probs, 1))).sum(-1) if target.soft else 0
        total += float(target.weight) * heat**2 * (entropy - (probs * log_p).sum(-1)).mean()
    np.testing.assert_allclose(scalars["loss_regmixup"], total, rtol=1e-10)
