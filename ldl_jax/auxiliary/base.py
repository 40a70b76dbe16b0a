"""Shared parts of auxiliary losses."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, Auxiliary, Batch, Build, Outputs
from ldl_jax.labels.base import mix_rows, mix_target, one_hot, term_loss
from ldl_jax.mixing.base import blend_images, mixup_shares, partners, precision

KEY = 8  # folded into the key of a step where an auxiliary mixes or crops images itself


def timed(
    auxiliary: Auxiliary,
    *,
    start_epoch: float = 0.0,  # epochs before the loss counts, at least 0
    ramp_epochs: float = 0.0,  # epochs after that in which its weight rises linearly from 0
) -> Auxiliary:
    """The auxiliary, counted from an epoch on: the options that every auxiliary has beside its own.

    A factory declares one of them itself where its method has another default. Raises ValueError if
    an option is negative or not finite, or the weight of the auxiliary is.
    """
    given = {"weight": auxiliary.weight, "start_epoch": start_epoch, "ramp_epochs": ramp_epochs}
    for option, value in given.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{option} must be finite and at least 0, got {value}")
    return auxiliary._replace(start_epoch=start_epoch, ramp_epochs=ramp_epochs)


def check_views(auxiliaries: dict[str, Auxiliary]) -> None:
    """Raise ValueError if an auxiliary makes views of its own and another one needs views too.

    There is one batch of views, so the second would compare those of the first.
    """
    makers = [name for name, auxiliary in auxiliaries.items() if auxiliary.views is not None]
    drawers = [name for name, auxiliary in auxiliaries.items() if auxiliary.draws > 1]
    if makers and len(makers + drawers) > 1:
        raise ValueError(
            f"config.auxiliary.names must have no second loss that compares views beside {makers[0]!r}, "
            f"which makes its own; got {', '.join(map(repr, makers + drawers))}"
        )


def masked_mean(values: Array, batch: Batch) -> Array:
    """Mean over the examples that are not masked, f32[] from f32[B]."""
    # `where`, not a product: the value of a masked example may be NaN.
    counted = jnp.where(batch.mask > 0, batch.mask * values, 0)
    return jnp.sum(counted) / jnp.maximum(batch.mask.sum(), 1)


def counted_logits(outputs: Outputs, batch: Batch) -> Array:
    """The logits [B, K] of view 0, in float32 or better; 0 for masked examples.

    So whatever a masked example holds changes neither a value nor a gradient.
    """
    logits = outputs.logits[0]
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jnp.where(batch.mask[:, None] > 0, logits, 0)


def label_distribution(batch: Batch, like: Array) -> Array:
    """The labels as distributions [B, K]: one-hot rows, or the labels of a mixed image by share."""
    return mix_rows(one_hot(batch, like), batch.partner, batch.share)


def confidence_and_accuracy(logits: Array, batch: Batch) -> tuple[Array, Array]:
    """The probability of the predicted class and whether it is the label, both [B].

    The second is in [0, 1]: of a mixed image it is the share of the images of that class.
    """
    predicted = jnp.argmax(logits, axis=-1, keepdims=True)
    largest = jnp.take_along_axis(jax.nn.softmax(logits), predicted, axis=-1)
    accuracy = jnp.take_along_axis(label_distribution(batch, logits), predicted, axis=-1)
    return largest[:, 0], accuracy[:, 0]


def gaps(largest: Array, logits: Array) -> Array:
    """How far each logit is below `largest` [B], [B, K]; 0 for an impossible class (logit -inf)."""
    return jnp.where(logits > -jnp.inf, largest[:, None] - logits, 0)


def root(values: Array, order: float = 2.0) -> Array:
    """values ** (1 / order) for values of at least 0; with gradient 0 at 0, where it is infinite."""
    positive = values > 0
    return jnp.where(positive, jnp.where(positive, values, 1) ** (1 / order), 0)


def laplacian_kernel(values: Array, width: float) -> Array:
    """exp(-|values_i - values_j| / width) for all pairs, [B, B] from [B]."""
    return jnp.exp(-jnp.abs(values[:, None] - values[None, :]) / width)


def check(allowed: bool, option: str, condition: str, value: object) -> None:
    """Raise ValueError if the value of an option such as 'mbls.margin' is not allowed."""
    if not allowed:
        raise ValueError(f"config.auxiliary.{option} must be {condition}, got {value!r}")


def jensen_shannon(logits: Array) -> Array:
    """Jensen-Shannon divergence f32[B] between the predictions of several views, logits [V, B, K].

    The mixture is clamped to [1e-7, 1], as in the code of AugMix.
    """
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    log_mixture = jnp.log(jnp.clip(p.mean(0), 1e-7, 1))
    # A probability that underflows to 0 contributes 0, and no NaN to the gradient.
    return jnp.sum(p * jnp.where(p > 0, log_p - log_mixture, 0), -1).mean(0)


def check_mixup(name: str, build: Build, alpha: float) -> None:
    """Raise ValueError if images are mixed already, or the parameter of mixup is out of range."""
    if build.mix_prob > 0:
        raise ValueError(
            f"config.auxiliary.names has {name!r}, which mixes images itself, so config.mixing.name must "
            f"be 'none', got a mixing with probability {build.mix_prob}"
        )
    if not 0 < alpha < math.inf:
        raise ValueError(f"config.auxiliary.{name}.alpha must be above 0 and finite, got {alpha}")


def mixup_numbers(
    key, like: Array, count: int, *, alpha: float, per_example: bool = False
) -> tuple[Array, Array]:
    """Partners i32[B, count] and shares of the own image f32[B, count] of `count` mixups of a batch.

    like: [B, ...], of whose size and precision they are. They depend on the key of the step alone,
    so that `loss` finds what `views` has drawn. Mixup m has the batch rolled by m + 1 as partners.
    """
    size = len(like)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, KEY)))(jnp.arange(count))
    draw = partial(mixup_shares, size=size, alpha=alpha, probability=1.0, per_example=per_example)
    share = jax.vmap(draw, out_axes=1)(keys).astype(precision(like))
    return partners(size, count + 1)[:, 1:], share


def mixup_views(key, image: Array, count: int, *, alpha: float, per_example: bool = False) -> Array:
    """Views [1 + count, B, H, W, C] of images [B, H, W, C]: the images, and `count` mixups of them."""
    _, shares = mixup_numbers(key, image, count, alpha=alpha, per_example=per_example)
    views = [image[None]]
    for number in range(count):
        views.append(blend_images(image[None], shares[:, number], column=number + 1))
    return jnp.concatenate(views)


def counted_pairs(batch: Batch, partner: Array) -> Batch:
    """The batch, with a mask f32[B] that is 0 where the example or one of its partners is masked."""
    return batch._replace(mask=batch.mask * batch.mask[partner].min(axis=1))


def largest_share(batch: Batch, partner: Array, share: Array) -> Array:
    """The largest entry of each mixture of two one-hot labels, [B, count]; 1 for equal labels."""
    equal = batch.label[:, None] == batch.label[partner]
    return jnp.where(equal, 1, jnp.maximum(share, 1 - share))


def confidence(values: Array) -> Array:
    """The largest entry [...] of each row [..., K], whose gradient goes to the first one if tied."""
    first = jnp.argmax(values, axis=-1, keepdims=True)
    return jnp.take_along_axis(values, first, axis=-1)[..., 0]


def mixup_term(
    build: Build, name: str, *, weight: float, alpha: float, per_example: bool
) -> Auxiliary:
    """The terms of the label source on a mixup of the batch, beside those on the batch itself.

    Distributions, weights and temperatures are those of the label source; where they come from a
    network that has seen the images (`teacher`), its predictions of the images are mixed.
    """
    check_mixup(name, build, alpha)

    def views(key, image):
        return mixup_views(key, image, 1, alpha=alpha, per_example=per_example)

    def loss(params, state, batch, outputs, targets):
        del params
        logits = outputs.logits[1]
        partner, share = mixup_numbers(batch.key, logits, 1, alpha=alpha, per_example=per_example)
        pair = jnp.concatenate([jnp.arange(len(logits))[:, None], partner], axis=1)
        shares = jnp.concatenate([share, 1 - share], axis=1)
        terms = 0
        for target in targets:
            # All targets are those of view 0, which is not mixed.
            mixed = mix_target(replace(target, mixed=False), pair, shares)
            terms += term_loss(mixed, logits, build.criterion)
        return masked_mean(terms, counted_pairs(batch, partner)), state

    return Auxiliary(loss, views=views, weight=weight)
