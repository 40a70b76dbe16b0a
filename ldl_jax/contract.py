"""The contract between the step and its plugs: what a plug is told, and what it hands back.

Letters in shapes: B batch, V views, K classes, N training examples, M images mixed into one, D
embedding, H W C image. A plug is a NamedTuple of pure functions made by a factory; state goes in
and comes out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import struct

Array = jax.Array
PyTree = Any

# memory rows are padded to a multiple of this: every device count that divides it is served
ROW_MULTIPLE = 3072


class Outputs(NamedTuple):
    """What a network returns; with the view axis V in front inside a step."""

    logits: Array  # f32[V, B, K]
    # f32[V, B, h, w, c] each: the maps before the last ReLU of every stage
    stages: tuple[Array, ...]
    embedding: Array  # f32[V, B, D]: the pooled input of the head


class Build(NamedTuple):
    """What a plug may know when it is made."""

    num_classes: int  # K
    num_examples: int  # N, the published count of the split that is trained on
    rows: int  # N padded to a multiple of ROW_MULTIPLE
    steps_per_epoch: int
    total_steps: int
    mix_prob: float  # share of the examples that mixing touches; 0 none, 1 all
    criterion: Callable  # (logits[B, K], probs[B, K]) -> f32[B]
    init: Callable  # (key) -> {'params', 'batch_stats'}: a fresh network like the student
    # (variables, image[B, H, W, C], *, train, key) -> (Outputs without V, batch_stats)
    apply: Callable
    optimizer: Any  # optax.GradientTransformation
    outputs: Outputs  # abstract, [V, B, ...], of the student
    teachers: tuple[Outputs, ...]  # abstract, of each frozen network
    # (name) -> LabelSource: another source, made from its own config block (for `blend`)
    part: Callable
    # names in Batch.given: 'table' (a distribution an example), 'label' (already in use)
    tables: tuple[str, ...] = ()


class Batch(NamedTuple):
    """What the step works on, after fetch, augmentation and mixing; what is not needed is None."""

    image: Array  # [V, B, H, W, C] in [0, 1]; view 0 is what the criterion sees
    clean: Array | None  # [B, H, W, C]: the unmixed view 0, where a source asks for it
    index: Array  # i32[B]: position in the published order of the training set
    label: Array  # i32[B], to train on: given['label'] where there is one
    given: PyTree  # dict of [B, ...]: these examples' rows of fixed tables, or ()
    # i32[B, M]: positions in this batch of the images mixed together; column 0 is the own one
    partner: Array
    share: Array  # f32[B, M]: their shares; rows sum to 1
    # f32[B]: 0 for slots that count for nothing (unreadable, or mixed with an unreadable one)
    mask: Array
    teacher: tuple[Outputs, ...]  # frozen networks on exactly this image
    step: Array  # i32[]
    key: Array  # a key of (seed, step); a plug folds in a number of its own


@struct.dataclass
class Target:
    """One term of the loss: a distribution to learn from, its weight and temperature."""

    probs: Array  # f32[B, K], rows sum to 1
    weight: Array | float = 1.0  # f32[] or f32[B]
    temperature: Array | float = 1.0  # f32[], or f32[B] where `mixed`
    # True: KL divergence instead of the criterion
    soft: bool = struct.field(pytree_node=False, default=False)
    # True: of the mixed image; False: the step mixes it
    mixed: bool = struct.field(pytree_node=False, default=False)


class Forward(NamedTuple):
    """What `update` gets after the optimizer step."""

    outputs: Outputs  # [V, B, ...] of the student, from before the optimizer step
    targets: tuple[Target, ...]  # after mixing
    # f32[B, K]: of Batch.clean with the same parameters, for sources that ask for it
    clean_logits: Array | None
    params: PyTree  # the model's, after the optimizer step
    batch_stats: PyTree
    # bool[]: False on the micro-batches of an accumulated update that is not complete
    updated: Array


def _no_state(key, variables):
    del key, variables
    return ()


def _keep(state, batch, forward):
    del batch, forward
    return state


def _nothing(state):
    del state
    return {}


class LabelSource(NamedTuple):
    """Where the label distribution comes from, and how it changes during training."""

    # (state, batch, outputs) -> (Target, ...); outputs: the student's, gradient stopped
    targets: Callable
    # (key, variables) -> state, any pytree; `variables` are the student's at the start
    init: Callable = _no_state
    update: Callable = (
        # (state, batch, forward) -> state; rows of a memory are written where batch.mask > 0 alone
        _keep
    )
    clean: bool = False  # True: wants forward.clean_logits
    # (state) -> {name: scalar}; reads whole tables, so called at evaluations only
    report: Callable = _nothing


def _no_parameters(key):
    del key
    return {}, ()


class Auxiliary(NamedTuple):
    """What else is asked of the network: distillation on features, or a penalty."""

    loss: Callable  # (params, state, batch, outputs, targets) -> (f32[], state)
    init: Callable = _no_parameters  # (key) -> (params, state)
    # views that are further draws of the configured augmentation, from (seed, epoch, index, view)
    draws: int = 1
    # (key, image[B, H, W, C]) -> image[V, B, H, W, C]; view 0 is the image itself
    views: Callable | None = None
    teacher_views: bool = False  # True: frozen networks look at all views, not view 0 alone
