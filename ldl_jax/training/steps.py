"""Everything that is jitted: the train state, the one train step and the one evaluation step."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ldl_jax import optimizer
from ldl_jax.contract import Array, Auxiliary, Batch, Build, Forward, LabelSource, Outputs, PyTree
from ldl_jax.labels.base import mix_target, term_loss
from ldl_jax.metrics.base import Metric, Seen
from ldl_jax.mixing.base import Mixer
from ldl_jax.training.finite import all_finite, unless_finite

# numbers folded into the seed's key, one for each use
INIT, LABELS, AUXILIARY, AUGMENT, STEP, MIX = range(6)


@struct.dataclass
class TrainState:
    """All that changes during training; nothing in it is static."""

    step: Array  # i32[]
    params: PyTree  # {'model': ..., 'auxiliary': {name: ...}}
    batch_stats: PyTree  # the model's
    opt_state: PyTree
    labels: PyTree  # the label source's state: memories and averages
    auxiliary: PyTree  # {name: state}
    ema: PyTree  # {'params', 'batch_stats'} averaged over updates, or {}


class Recipe(NamedTuple):
    """All that is static in a step."""

    build: Build
    source: LabelSource
    auxiliaries: dict[str, Auxiliary]
    # (variables, image[B, H, W, C]) -> Outputs without V, in eval mode
    teachers: tuple[Callable, ...]
    augment: Callable  # (keys[B], image[B, H, W, C]) -> image
    mixer: Mixer
    schedule: Callable  # (updates) -> learning rate
    accumulate: int = 1  # steps averaged into one update
    ema: float = 0.0  # decay of the averaged parameters; 0 = none are kept
    dtype: Any = jnp.float32  # of images and losses
    # True: a step that is not finite leaves the state as it was, but for the count of steps
    skip: bool = False


def num_views(auxiliaries: dict[str, Auxiliary], image) -> int:
    """V of the batches that these auxiliaries ask for, given an abstract image [B, H, W, C]."""
    for auxiliary in auxiliaries.values():
        if auxiliary.views is not None:
            return jax.eval_shape(auxiliary.views, jax.random.key(0), image).shape[0]
        if auxiliary.draws > 1:
            return auxiliary.draws
    return 1


def init_state(recipe: Recipe, key) -> TrainState:
    """The state at step 0, a pure function of the seed's key."""
    variables = recipe.build.init(jax.random.fold_in(key, INIT))
    auxiliary_key = jax.random.fold_in(key, AUXILIARY)
    auxiliary_params = {}
    auxiliary_states = {}
    for number, (name, auxiliary) in enumerate(recipe.auxiliaries.items()):
        auxiliary_params[name], auxiliary_states[name] = auxiliary.init(
            jax.random.fold_in(auxiliary_key, number)
        )
    params = {"model": variables["params"], "auxiliary": auxiliary_params}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=recipe.build.optimizer.init(params),
        labels=recipe.source.init(jax.random.fold_in(key, LABELS), variables),
        auxiliary=auxiliary_states,
        ema=jax.tree.map(jnp.copy, dict(variables)) if recipe.ema else {},
    )


def forward(apply: Callable, image: Array) -> tuple[Outputs, PyTree]:
    """Views [V, B, ...] through a network as one batch, example-major, so that a split batch stays
    where it is.

    `apply` takes [B * V, H, W, C] and returns (Outputs, anything); the outputs come back as [V, B,
    ...].
    """
    views, size = image.shape[:2]
    if views == 1:
        outputs, rest = apply(image[0])
        return jax.tree.map(lambda leaf: leaf[None], outputs), rest
    outputs, rest = apply(image.swapaxes(0, 1).reshape(size * views, *image.shape[2:]))
    return jax.tree.map(
        lambda leaf: leaf.reshape(size, views, *leaf.shape[1:]).swapaxes(0, 1), outputs
    ), rest


def fetch(data: PyTree, batch: PyTree, dtype) -> tuple[Array, Array, Array, PyTree]:
    """Images [B, H, W, C] in [0, 1], labels, mask and rows of fixed tables: from the batch, or by
    its index.
    """
    index = batch["index"]
    image = batch["image"] if "image" in batch else data["images"][index]
    label = batch["label"] if "label" in batch else data["labels"][index]
    if image.dtype == jnp.uint8:
        image = image.astype(dtype) / 255
    if "mask" in batch:
        mask = batch["mask"]
    else:
        mask = data["mask"][index] if "mask" in data else jnp.ones(index.shape, jnp.float32)
    given = (
        batch["given"]
        if "given" in batch
        else jax.tree.map(lambda table: table[index], data.get("given", ()))
    )
    return image, label, mask, given


def _draw_views(recipe: Recipe, key, image: Array, index: Array) -> Array:
    """Draws of the configured augmentation [V, B, H, W, C]; key of (seed, epoch), then of index and
    view.
    """
    draws = max([auxiliary.draws for auxiliary in recipe.auxiliaries.values()], default=1)
    keys = jax.vmap(partial(jax.random.fold_in, key))(index)
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return jnp.stack([recipe.augment(fold(keys, view), image) for view in range(draws)])


def _mixed_views(
    recipe: Recipe, key, draw_key, image: Array, batch: PyTree
) -> tuple[Array, Array, Array, Array]:
    """(views [V, B, ...], clean [B, ...], partner, share): augmented and mixed here, or as they
    were fed.
    """
    if ("partner" in batch) != ("share" in batch):
        found = "partner" if "partner" in batch else "share"
        raise ValueError(
            f"batch has {found!r} alone; allowed are both of 'partner' and 'share', or neither"
        )
    if "partner" not in batch:
        views = _draw_views(recipe, draw_key, image, batch["index"])
        mixed, partner, share = recipe.mixer.mix(jax.random.fold_in(key, MIX), views)
        return mixed, views[0], partner, share
    for name, auxiliary in recipe.auxiliaries.items():
        if auxiliary.draws > 1:
            raise ValueError(
                f"batch comes already mixed ('partner', 'share') with one view an image, but auxiliary {name!r} "
                f"compares {auxiliary.draws}; allowed are auxiliaries that look at one"
            )
    partner, share = batch["partner"], batch["share"]
    if recipe.source.clean and partner.shape[1] > 1 and "clean" not in batch:
        raise ValueError(
            "batch comes already mixed, but the label source also asks for the images as they were; feed them as "
            "'clean', of the shape of 'image'"
        )
    return image[None], batch.get("clean", image), partner, share


def prepare(recipe: Recipe, frozen: PyTree, data: PyTree, batch: PyTree, step: Array) -> Batch:
    """Fetch, augment, mix, and let the frozen networks look: what the rest of the step works on.

    Raises ValueError where a batch that comes already mixed lacks something: see `make_train_step`.
    """
    image, label, mask, given = fetch(data, batch, recipe.dtype)
    if "label" in given:  # noisy labels are for training alone: evaluation has the published ones
        label = given["label"]
    epoch = step // recipe.build.steps_per_epoch
    key = jax.random.fold_in(jax.random.fold_in(data["key"], STEP), step)
    draw_key = jax.random.fold_in(jax.random.fold_in(data["key"], AUGMENT), epoch)
    views, clean, partner, share = _mixed_views(recipe, key, draw_key, image, batch)
    share = share.astype(recipe.dtype)
    for auxiliary in recipe.auxiliaries.values():
        if auxiliary.views is not None:
            views = auxiliary.views(key, views[0])
    mask = jnp.min(jnp.where(share > 0, mask[partner], 1), axis=1)
    # Frozen networks look once, for labels and auxiliaries alike.
    all_views = any(auxiliary.teacher_views for auxiliary in recipe.auxiliaries.values())
    teacher = _look(recipe.teachers, frozen, views if all_views else views[:1])
    return Batch(
        image=views, clean=clean if recipe.source.clean else None, index=batch["index"], label=label, given=given,
        partner=partner, share=share, mask=mask, teacher=teacher, step=step, key=key,
    )  # fmt: skip


def _look(teachers: tuple[Callable, ...], frozen: PyTree, image: Array) -> tuple[Outputs, ...]:
    """Outputs of each frozen network on views [V, B, H, W, C], without a gradient."""
    outputs = []
    for apply, variables in zip(teachers, frozen, strict=True):
        evaluated = forward(
            lambda merged, apply=apply, variables=variables: (apply(variables, merged), ()), image
        )[0]
        outputs.append(evaluated)
    return jax.lax.stop_gradient(tuple(outputs))


def _loss(recipe: Recipe, state: TrainState, batch: Batch, params):
    """The whole loss f32[] and, beside it, what the rest of the step needs."""
    apply = partial(recipe.build.apply, train=True, key=batch.key)
    variables = {"params": params["model"], "batch_stats": state.batch_stats}
    outputs, batch_stats = forward(partial(apply, variables), batch.image)
    targets = recipe.source.targets(state.labels, batch, jax.lax.stop_gradient(outputs))
    targets = tuple(mix_target(target, batch.partner, batch.share) for target in targets)
    targets = jax.lax.stop_gradient(targets)
    terms = sum(term_loss(target, outputs.logits[0], recipe.build.criterion) for target in targets)
    mask = batch.mask.astype(terms.dtype)
    losses = {"label": jnp.sum(jnp.where(mask > 0, terms, 0)) / jnp.maximum(mask.sum(), 1)}
    states = {}
    for name, auxiliary in recipe.auxiliaries.items():
        losses[name], states[name] = auxiliary.loss(
            params["auxiliary"][name], state.auxiliary[name], batch, outputs, targets
        )
    clean_logits = None
    if recipe.source.clean:
        clean_logits = outputs.logits[0]
        if batch.partner.shape[1] > 1:
            clean_logits = apply(variables, batch.clean)[0].logits
        clean_logits = jax.lax.stop_gradient(clean_logits)
    return sum(losses.values()), (outputs, targets, batch_stats, states, losses, clean_logits)


def _average(old: PyTree, new: PyTree, decay: float, moved: Array) -> PyTree:
    def average(a, b):
        m = jnp.where(moved, decay, 1).astype(a.dtype)
        return m * a + (1 - m) * b

    return jax.tree.map(average, old, new)


def make_train_step(recipe: Recipe) -> Callable:
    """The one train step: (state, frozen, data, batch) -> (state, scalars), pure.

    frozen: a tuple of the teachers' variables. data: {'key': the seed's key, 'given': fixed tables,
    and for resident sets 'images' u8[N, H, W, C], 'labels' i32[N], 'mask' f32[N]}. batch: {'index'
    i32[B]}, and for streamed sets 'image', 'label', 'mask'. scalars: loss, grad_norm,
    learning_rate, finite, and each term of the loss, all from before the update. `finite` is
    whether loss, gradient and the whole new state are, but for memories. With `recipe.skip` a step
    that is not finite changes nothing but the count of steps.

    A batch may come already mixed: with 'partner' i32[B, M], positions in this batch of the images
    mixed together (column 0 the own one, the others any permutation), and 'share' f32[B, M], whose
    rows sum to 1. Its 'image' [B, H, W, C] is then used as it is: the recipe's augmentation and
    mixing are left out. 'clean' [B, H, W, C] are the unmixed images, for sources that ask for them.
    So a published method can be replayed step by step, with its own weights, batches and boxes
    (`mixing.base.paste_box` makes such an image). Raises ValueError while it is traced, where one
    of the two is missing, 'clean' is asked for and missing, or an auxiliary compares several draws.
    """
    transformation = recipe.build.optimizer

    def train_step(state, frozen, data, batch):
        batch = prepare(recipe, frozen, data, batch, state.step)
        grad = jax.value_and_grad(partial(_loss, recipe, state, batch), has_aux=True)
        (loss, (outputs, targets, batch_stats, auxiliary, losses, clean_logits)), grads = grad(
            state.params
        )

        updates, opt_state = transformation.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        moved = optimizer.updated(opt_state, recipe.accumulate)

        # The label source comes after the optimizer, since it may follow the network, and so does
        # the average.
        model = {"params": params["model"], "batch_stats": batch_stats}
        outputs, targets = jax.lax.stop_gradient((outputs, targets))
        passed = Forward(
            outputs=outputs, targets=targets, clean_logits=clean_logits, **model, updated=moved
        )
        labels = recipe.source.update(state.labels, batch, passed)
        ema = _average(state.ema, model, recipe.ema, moved) if recipe.ema else {}
        new = state.replace(
            step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state
        )
        new = new.replace(labels=labels, auxiliary=auxiliary, ema=ema)

        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & all_finite(new)
        if clean_logits is not None:
            finite &= jnp.isfinite(clean_logits).all()
        count = state.step // recipe.accumulate
        if recipe.skip:
            count = optimizer.count(state.opt_state)  # of the updates that were not skipped
            # what is used of it: rows, that is all
            masked = batch._replace(mask=jnp.where(finite, batch.mask, 0))
            new = unless_finite(
                finite, state, new, recipe.source.update(state.labels, masked, passed)
            )
        rate = jnp.asarray(recipe.schedule(count), recipe.dtype)
        scalars = {"loss": loss, "grad_norm": norm, "learning_rate": rate, "finite": finite}
        if len(losses) > 1:
            scalars |= {f"loss_{name}": value for name, value in losses.items()}
        return new, scalars

    return train_step


def make_chunk(train_step: Callable) -> Callable:
    """Several train steps in one dispatch: batches stacked on a new first axis, scalars come back
    stacked.
    """

    def chunk(state, frozen, data, batches):
        return jax.lax.scan(
            lambda carry, batch: train_step(carry, frozen, data, batch), state, batches
        )

    return chunk


def make_eval_step(apply: Callable, metrics: dict[str, Metric], dtype) -> Callable:
    """The one evaluation step: (variables, data, batch) -> (sums of each metric, predictions).

    batch: {'index' i32[B], 'mask' f32[B]}, and for streamed sets 'image' and 'label'. predictions:
    {'logits' f32[B, K], 'label' i32[B], 'index' i32[B], 'mask' f32[B]}.
    """

    def eval_step(variables, data, batch):
        image, label, mask, given = fetch(data, batch, dtype)
        if "mask" in data:
            mask = mask * data["mask"][batch["index"]]
        logits = apply(variables, image, train=False, key=None)[0].logits
        seen = Seen(label, mask, given)
        predictions = {"logits": logits, "label": label, "index": batch["index"], "mask": mask}
        return {name: metric.sums(logits, seen) for name, metric in metrics.items()}, predictions

    return eval_step
