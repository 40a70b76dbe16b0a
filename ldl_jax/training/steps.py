"""The jitted computations: the train state, the train step and the evaluation step."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ldl_jax import optimizer
from ldl_jax.contract import Array, Auxiliary, Batch, Build, Forward, LabelSource, Outputs, PyTree
from ldl_jax.labels.base import mix_target, ramp, term_loss
from ldl_jax.metrics.base import Metric, Seen
from ldl_jax.mixing.base import Mixer
from ldl_jax.training import updates
from ldl_jax.training.finite import all_finite, unless_finite

# Folded into the seed's key, one number for each use. Runs depend on them: never renumber.
INIT, LABELS, AUXILIARY, AUGMENT, STEP, MIX = range(6)


@struct.dataclass
class TrainState:
    """Everything that changes during training."""

    step: Array  # i32[]
    params: PyTree  # {'model': ..., 'auxiliary': {name: ...}}
    batch_stats: PyTree  # the model's
    opt_state: PyTree
    labels: PyTree  # the label source's state: memories and averages
    auxiliary: PyTree  # {name: state}
    ema: PyTree  # {'params', 'batch_stats'} averaged over updates, or {}


class Recipe(NamedTuple):
    """Everything that is static in a step."""

    build: Build
    source: LabelSource
    auxiliaries: dict[str, Auxiliary]
    # (variables, image[B, H, W, C]) -> Outputs without V, in eval mode
    teachers: tuple[Callable, ...]
    augment: Callable  # (keys[B], image[B, H, W, C]) -> image
    mixer: Mixer
    schedule: Callable  # (updates) -> learning rate
    accumulate: int = 1  # steps averaged into one update
    ema: float = 0.0  # decay of the averaged parameters; 0 = no average
    dtype: Any = jnp.float32  # of images and losses
    skip: bool = False  # True: a step that is not finite changes nothing but the step count
    body: updates.Body | None = None  # how the model without its head learns, if not like the rest


def num_views(auxiliaries: dict[str, Auxiliary], image) -> int:
    """The number of views V that the auxiliaries need, given an abstract image [B, H, W, C]."""
    for auxiliary in auxiliaries.values():
        if auxiliary.views is not None:
            return jax.eval_shape(auxiliary.views, jax.random.key(0), image).shape[0]
        if auxiliary.draws > 1:
            return auxiliary.draws
    return 1


def init_state(recipe: Recipe, key, start: PyTree = None) -> TrainState:
    """The state at step 0, a pure function of the seed's key.

    start: variables, or a part of them, to start from instead of fresh ones.
    """
    variables = recipe.build.init(jax.random.fold_in(key, INIT))
    if start is not None:
        variables = updates.replaced(variables, start)
    # Each auxiliary has a key of its own, so that adding one leaves the model's init as it is.
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
        # A copy: the state is donated, and donating the same buffer twice is an error.
        ema=jax.tree.map(jnp.copy, dict(variables)) if recipe.ema else {},
    )


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


def fetch(data: PyTree, batch: PyTree, dtype) -> tuple[Array, Array, Array, PyTree]:
    """(image [B, H, W, C] in [0, 1], label, mask, given), from the batch or by its index from `data`."""
    index = batch["index"]
    image = batch["image"] if "image" in batch else data["images"][index]
    label = batch["label"] if "label" in batch else data["labels"][index]
    # Images are stored and sent as bytes, a quarter of the memory of float32.
    if image.dtype == jnp.uint8:
        image = image.astype(dtype) / 255
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


def _draw_views(recipe: Recipe, key, image: Array, index: Array) -> Array:
    """Views [V, B, H, W, C]: draws of the augmentation by key (of seed and epoch), index and view."""
    draws = max([auxiliary.draws for auxiliary in recipe.auxiliaries.values()], default=1)
    # Keys by example, not by position: the augmentation is the same for any batch or device count.
    keys = jax.vmap(partial(jax.random.fold_in, key))(index)
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    views = [recipe.augment(fold(keys, view), image) for view in range(draws)]
    return jnp.stack(views)


def _mixed_views(
    recipe: Recipe, key, draw_key, image: Array, batch: PyTree
) -> tuple[Array, Array, Array, Array]:
    """(views [V, B, ...], clean [B, ...], partner, share), mixed here or already in the batch."""
    if ("partner" in batch) != ("share" in batch):
        given = "partner" if "partner" in batch else "share"
        raise ValueError(f"a mixed batch needs 'partner' and 'share', but has {given!r} alone")
    if "partner" not in batch:
        views = _draw_views(recipe, draw_key, image, batch["index"])
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
    draw_key = jax.random.fold_in(jax.random.fold_in(data["key"], AUGMENT), epoch)
    views, clean, partner, share = _mixed_views(recipe, key, draw_key, image, batch)
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


def _loss(recipe: Recipe, state: TrainState, batch: Batch, params):
    """The total loss f32[] and, as auxiliary output, what the rest of the step needs."""
    apply = updates.student(batch.key, recipe.body, recipe.build.apply, batch.step)
    variables = {"params": params["model"], "batch_stats": state.batch_stats}
    outputs, batch_stats = forward(partial(apply, variables), batch.image)

    # Targets are constants: the gradient goes through the student's prediction alone.
    targets = recipe.source.targets(state.labels, batch, jax.lax.stop_gradient(outputs))
    targets = tuple(mix_target(target, batch.partner, batch.share) for target in targets)
    targets = jax.lax.stop_gradient(targets)
    terms = sum(term_loss(target, outputs.logits[0], recipe.build.criterion) for target in targets)

    # `where`, not a product: the term of a masked image may be NaN.
    mask = batch.mask.astype(terms.dtype)
    losses = {"label": jnp.sum(jnp.where(mask > 0, terms, 0)) / jnp.maximum(mask.sum(), 1)}
    states = {}
    for name, auxiliary in recipe.auxiliaries.items():
        loss, states[name] = auxiliary.loss(
            params["auxiliary"][name], state.auxiliary[name], batch, outputs, targets
        )
        share = ramp(batch.step, recipe.build, auxiliary.start_epoch, auxiliary.ramp_epochs)
        losses[name] = auxiliary.weight * share * loss

    # A source that records predictions on clean images needs a second pass only if images are mixed.
    clean_logits = None
    if recipe.source.clean:
        clean_logits = outputs.logits[0]
        if batch.partner.shape[1] > 1:
            clean_logits = apply(variables, batch.clean)[0].logits
        clean_logits = jax.lax.stop_gradient(clean_logits)
    return sum(losses.values()), (outputs, targets, batch_stats, states, losses, clean_logits)


def make_train_step(recipe: Recipe) -> Callable:
    """The train step: (state, frozen, data, batch) -> (state, scalars), a pure function.

    frozen: tuple of the teachers' variables. data: {'key': the seed's key, 'given': fixed tables};
    for resident sets also 'images' u8[N, H, W, C], 'labels' i32[N], 'mask' f32[N]. batch: {'index'
    i32[B]}; for streamed sets also 'image', 'label', 'mask'. scalars: loss, grad_norm,
    learning_rate, finite, and each term of the loss, all from before the update. `finite`: whether
    the loss, the gradient and the new state (without memories) are. With `recipe.skip`, a step that
    is not finite changes nothing but the step count.

    A batch may be mixed already, to replay a published method with its own weights, batches and
    boxes (`mixing.base.paste_box` makes such an image). It then has 'partner' i32[B, M], positions
    in this batch of the images mixed together (column 0: the image itself; the others: any
    permutation), and 'share' f32[B, M], whose rows sum to 1. Its 'image' [B, H, W, C] is used as it
    is, without augmentation and mixing; 'clean' [B, H, W, C] are the unmixed images, for sources
    that need them. Raises ValueError, while tracing, if one of these is missing or an auxiliary
    compares several draws.
    """
    update = partial(updates.update, recipe.body, recipe.build.optimizer)

    def train_step(state, frozen, data, batch):
        batch = prepare(recipe, frozen, data, batch, state.step)
        grad = jax.value_and_grad(partial(_loss, recipe, state, batch), has_aux=True)
        (loss, aux), grads = grad(state.params)
        outputs, targets, batch_stats, auxiliary, losses, clean_logits = aux

        # sam's second gradient is that of the same batch, of which nothing else is kept.
        extra = {"value": loss, "grad_fn": lambda params, _: grad(params)[1]}
        moves, opt_state = update(grads, state.opt_state, state.params, state.step, **extra)
        params = optax.apply_updates(state.params, moves)
        moved = optimizer.updated(opt_state, recipe.accumulate)

        # The label source and the average come after the optimizer, since both may follow the
        # updated network.
        model = {"params": params["model"], "batch_stats": batch_stats}
        outputs, targets = jax.lax.stop_gradient((outputs, targets))
        passed = Forward(
            outputs=outputs, targets=targets, clean_logits=clean_logits, **model, updated=moved
        )
        labels = recipe.source.update(state.labels, batch, passed)
        ema = {}
        if recipe.ema:
            ema = updates.average(recipe.body, state.ema, model, recipe.ema, moved, state.step)
        new = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats)
        new = new.replace(opt_state=opt_state, labels=labels, auxiliary=auxiliary, ema=ema)

        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & all_finite(new)
        if clean_logits is not None:
            finite &= jnp.isfinite(clean_logits).all()
        count = state.step // recipe.accumulate
        if recipe.skip:
            # The schedule counts updates that were not skipped. Only the rows of `written` are
            # used, so that the compiler drops the rest of the second update.
            count = optimizer.count(state.opt_state)
            masked = batch._replace(mask=jnp.where(finite, batch.mask, 0))
            written = recipe.source.update(state.labels, masked, passed)
            new = unless_finite(finite, state, new, written)
        rate = jnp.asarray(recipe.schedule(count), recipe.dtype)
        scalars = {"loss": loss, "grad_norm": norm, "learning_rate": rate, "finite": finite}
        if len(losses) > 1:
            scalars |= {f"loss_{name}": value for name, value in losses.items()}
        return new, scalars

    return train_step


def make_chunk(train_step: Callable) -> Callable:
    """Several train steps in one dispatch; batches and scalars are stacked on a new first axis."""

    def chunk(state, frozen, data, batches):
        return jax.lax.scan(
            lambda carry, batch: train_step(carry, frozen, data, batch), state, batches
        )

    return chunk


def make_eval_step(apply: Callable, metrics: dict[str, Metric], dtype) -> Callable:
    """The evaluation step: (variables, data, batch) -> (sums of each metric, predictions).

    batch: {'index' i32[B], 'mask' f32[B]}; for streamed sets also 'image' and 'label'. predictions:
    {'logits' f32[B, K], 'label' i32[B], 'index' i32[B], 'mask' f32[B]}.
    """

    def eval_step(variables, data, batch):
        image, label, mask, given = fetch(data, batch, dtype)
        # The batch's mask marks padding, the split's mask images that could not be read.
        if "mask" in data:
            mask = mask * data["mask"][batch["index"]]
        logits = apply(variables, image, train=False, key=None)[0].logits
        examples = Seen(label, mask, given)
        sums = {name: metric.sums(logits, examples) for name, metric in metrics.items()}
        predictions = {"logits": logits, "label": label, "index": batch["index"], "mask": mask}
        return sums, predictions

    return eval_step
