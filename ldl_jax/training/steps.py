"""The jitted computations: the initial state, the train step and the evaluation step."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from ldl_jax import optimizer
from ldl_jax.contract import Auxiliary, Batch, Forward, PyTree
from ldl_jax.labels.base import mix_target, ramp, term_loss
from ldl_jax.metrics.base import Metric, Seen
from ldl_jax.training import updates
from ldl_jax.training.examples import fetch, forward, prepare
from ldl_jax.training.finite import all_finite, unless_finite
from ldl_jax.training.recipe import AUXILIARY, INIT, LABELS, Recipe, TrainState


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
