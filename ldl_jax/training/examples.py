"""The batch that a step works on: images fetched, augmented and mixed, and seen by frozen networks."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, Batch, Outputs, PyTree
from ldl_jax.training.recipe import AUGMENT, MIX, STEP, Recipe


def forward(apply: Callable, image: Array) -> tuple[Outputs, PyTree]:
    """Apply a network to views [V, B, ...] as one batch of V * B images.

    apply: (image [B * V, H, W, C]) -> (Outputs, anything). Returns the same, with outputs
    [V, B, ...].
    """
    views, size = image.shape[:2]
    if views == 1:
        outputs, rest = apply(image[0])
        return jax.tree.map(lambda leaf: leaf[None], outputs), rest
    # Example-major, so that the views of an example stay on the device of the example.
    merged = image.swapaxes(0, 1).reshape(size * views, *image.shape[2:])
    outputs, rest = apply(merged)

    def split(leaf):
        return leaf.reshape(size, views, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, outputs), rest


def scaled(image: Array, dtype) -> Array:
    """An image in [0, 1]; as bytes, images are stored and sent in a quarter of the memory of float32."""
    return image.astype(dtype) / 255 if image.dtype == jnp.uint8 else image


def fetch(data: PyTree, batch: PyTree, dtype) -> tuple[Array, Array, Array, PyTree]:
    """(image [B, H, W, C] in [0, 1], label, mask, given), from the batch or by its index from `data`."""
    index = batch["index"]
    image = batch["image"] if "image" in batch else data["images"][index]
    label = batch["label"] if "label" in batch else data["labels"][index]
    image = scaled(image, dtype)
    if "mask" in batch:
        mask = batch["mask"]
    elif "mask" in data:
        mask = data["mask"][index]
    else:
        mask = jnp.ones(index.shape, jnp.float32)
    if "given" in batch:
        return image, label, mask, batch["given"]
    given = jax.tree.map(lambda table: table[index], data.get("given", ()))
    return image, label, mask, given


def draw_views(key, augment: Callable, image: Array, index: Array, draws: int = 1) -> Array:
    """Views [V, B, H, W, C]: draws of the augmentation by key (see `draw_key`), index and view."""
    # Keys by example, not by position: the augmentation is the same for any batch or device count.
    keys = jax.vmap(partial(jax.random.fold_in, key))(index)
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return jnp.stack([augment(fold(keys, view), image) for view in range(draws)])


def draw_key(key, epoch: Array | int) -> Array:
    """The key of the augmentation in an epoch, of the seed's key."""
    return jax.random.fold_in(jax.random.fold_in(key, AUGMENT), epoch)


def _draw_key(recipe: Recipe, key, epoch: Array) -> Array:
    """That of a step, which may repeat the augmentation that stored distributions belong to."""
    if not recipe.source.replay:
        return draw_key(key, epoch)
    stored = recipe.build.stored
    return draw_key(jax.random.key(stored.seed), epoch % stored.views)


def _mixed_views(
    recipe: Recipe, key, of_draws, image: Array, batch: PyTree
) -> tuple[Array, Array, Array, Array]:
    """(views [V, B, ...], clean [B, ...], partner, share), mixed here or already in the batch."""
    if ("partner" in batch) != ("share" in batch):
        given = "partner" if "partner" in batch else "share"
        raise ValueError(f"a mixed batch needs 'partner' and 'share', but has {given!r} alone")
    if "partner" not in batch:
        draws = max([auxiliary.draws for auxiliary in recipe.auxiliaries.values()], default=1)
        views = draw_views(of_draws, recipe.augment, image, batch["index"], draws)
        mixed, partner, share = recipe.mixer.mix(jax.random.fold_in(key, MIX), views)
        return mixed, views[0], partner, share

    # The batch is mixed already. Check that the rest of the step can work with what it holds.
    for name, auxiliary in recipe.auxiliaries.items():
        if auxiliary.draws > 1:
            raise ValueError(
                f"a mixed batch ('partner', 'share') has one view per image, but auxiliary {name!r} compares "
                f"{auxiliary.draws} views; use auxiliaries that need one view"
            )
    partner = batch["partner"]
    share = batch["share"]
    if recipe.source.clean and partner.shape[1] > 1 and "clean" not in batch:
        raise ValueError("a mixed batch needs 'clean', the unmixed images, for this label source")
    return image[None], batch.get("clean", image), partner, share


def prepare(recipe: Recipe, frozen: PyTree, data: PyTree, batch: PyTree, step: Array) -> Batch:
    """Fetch, augment and mix a batch, and apply the frozen networks to it.

    Raises ValueError if a batch that is already mixed lacks something: see `make_train_step`.
    """
    image, label, mask, given = fetch(data, batch, recipe.dtype)
    # Noisy labels replace the published ones in training only; evaluation keeps those.
    if "label" in given:
        label = given["label"]
    epoch = step // recipe.build.steps_per_epoch
    key = jax.random.fold_in(jax.random.fold_in(data["key"], STEP), step)
    of_draws = _draw_key(recipe, data["key"], epoch)
    views, clean, partner, share = _mixed_views(recipe, key, of_draws, image, batch)
    share = share.astype(recipe.dtype)
    for auxiliary in recipe.auxiliaries.values():
        if auxiliary.views is not None:
            views = auxiliary.views(key, views[0])
    # A mixed example counts only if all of its images could be read.
    mask = jnp.min(jnp.where(share > 0, mask[partner], 1), axis=1)
    # The frozen networks are applied once, for the label source and the auxiliaries alike.
    all_views = any(auxiliary.teacher_views for auxiliary in recipe.auxiliaries.values())
    teacher = _teacher_outputs(recipe.teachers, frozen, views if all_views else views[:1])
    return Batch(
        image=views,
        clean=clean if recipe.source.clean else None,
        index=batch["index"],
        label=label,
        given=given,
        partner=partner,
        share=share,
        mask=mask,
        teacher=teacher,
        step=step,
        key=key,
    )


def _teacher_outputs(
    teachers: tuple[Callable, ...], frozen: PyTree, image: Array
) -> tuple[Outputs, ...]:
    """Outputs of each frozen network on views [V, B, H, W, C], without gradient."""
    outputs = []
    for apply, variables in zip(teachers, frozen, strict=True):

        def passed(merged, apply=apply, variables=variables):
            return apply(variables, merged), ()

        outputs.append(forward(passed, image)[0])
    return jax.lax.stop_gradient(tuple(outputs))
