"""The contract between the training step and its plugs: what a plug receives and returns.

Letters in shapes: B batch, V views, K classes, N training examples, M images mixed into one, D
embedding, H W C image. A plug is a NamedTuple of pure functions made by a factory; state is passed
in and returned.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import struct

Array = jax.Array
PyTree = Any

# Memory rows are padded to a multiple of this, so that any device count dividing it can share them.
ROW_MULTIPLE = 3072


class Outputs(NamedTuple):
    """The outputs of a network; inside a step with the view axis V in front."""

    logits: Array  # f32[V, B, K]
    # f32[V, B, h, w, c] per stage: its maps before the last ReLU
    stages: tuple[Array, ...]
    embedding: Array  # f32[V, B, D]: the pooled input of the head


class Stored(NamedTuple):
    """What is known of stored distributions of augmented views: given['stored_classes'] [B, V, k] and
    given['stored_probs'] [B, V, k].
    """

    views: int  # V; in epoch e the images are augmented as view e mod V was
    seed: int  # of the augmentation
    scale: float = 1.0  # probability that the number 1 in 'stored_probs' stands for
    spread: bool = True  # the other classes share what is left; False: it goes to the k stored ones


class Build(NamedTuple):
    """What a plug may know when it is built."""

    num_classes: int  # K
    num_examples: int  # N, size of the published training split
    rows: int  # N padded to a multiple of ROW_MULTIPLE
    steps_per_epoch: int
    total_steps: int
    mix_prob: float  # share of examples that are mixed, [0, 1]
    criterion: Callable  # (logits[B, K], probs[B, K]) -> f32[B]
    init: Callable  # (key) -> {'params', 'batch_stats'} of a fresh network like the student
    # (variables, image[B, H, W, C], *, train, key) -> (Outputs without V, batch_stats)
    apply: Callable
    optimizer: Any  # optax.GradientTransformation
    outputs: Outputs  # the student's, abstract, [V, B, ...]
    teachers: tuple[Outputs, ...]  # those of each frozen network, abstract
    # (name) -> LabelSource, another source built from its own config block (for `blend`)
    part: Callable
    # names in Batch.given: 'table' (a distribution per example), 'label' (already in Batch.label)
    tables: tuple[str, ...] = ()
    stored: Stored | None = None  # of config.data.train_store


class Batch(NamedTuple):
    """A batch after loading, augmentation and mixing; fields that are not needed are None."""

    image: Array  # [V, B, H, W, C] in [0, 1]; view 0 is what the criterion sees
    clean: Array | None  # [B, H, W, C]: the unmixed view 0, if a source needs it
    index: Array  # i32[B]: position in the published order of the training set
    label: Array  # i32[B]: labels to train on, given['label'] if present
    given: PyTree  # dict of [B, ...]: these examples' rows of fixed tables, or ()
    # i32[B, M]: positions in this batch of the images mixed together; column 0 is the image itself
    partner: Array
    share: Array  # f32[B, M]: their shares; rows sum to 1
    # f32[B]: 0 for images that do not count (unreadable, or mixed with an unreadable one)
    mask: Array
    teacher: tuple[Outputs, ...]  # of the frozen networks on exactly this image
    step: Array  # i32[]
    key: Array  # key of (seed, step); a plug folds in a number of its own


@struct.dataclass
class Target:
    """A term of the loss: a distribution to learn, its weight and its temperature."""

    probs: Array  # f32[B, K], rows sum to 1
    weight: Array | float = 1.0  # f32[] or f32[B]
    temperature: Array | float = 1.0  # f32[], or f32[B] if `mixed`
    # True: compared by the KL divergence instead of the criterion
    soft: bool = struct.field(pytree_node=False, default=False)
    # True: probs belong to the mixed image; False: the step mixes them
    mixed: bool = struct.field(pytree_node=False, default=False)


class Forward(NamedTuple):
    """What `update` gets after the optimizer step."""

    outputs: Outputs  # the student's, [V, B, ...], from before the optimizer step
    targets: tuple[Target, ...]  # after mixing
    # f32[B, K]: logits of Batch.clean with the same parameters, for sources with clean=True
    clean_logits: Array | None
    params: PyTree  # the student's, after the optimizer step
    batch_stats: PyTree  # the student's, after the optimizer step
    # bool[]: whether the parameters changed; False while gradients of an update accumulate
    updated: Array


def _no_state(key, variables):
    del key, variables
    return ()


def _keep_state(state, batch, forward):
    del batch, forward
    return state


def _no_report(state):
    del state
    return {}


class LabelSource(NamedTuple):
    """Where label distributions come from, and how they change during training."""

    # (state, batch, outputs) -> (Target, ...); outputs are the student's, with gradient stopped
    targets: Callable
    # (key, variables) -> state, any pytree; `variables` are the student's at the start
    init: Callable = _no_state
    # (state, batch, forward) -> state; rows of a memory are written only where batch.mask > 0
    update: Callable = _keep_state
    clean: bool = False  # True: needs forward.clean_logits
    # (state) -> {name: scalar}; called only at evaluations, since it reads whole tables
    report: Callable = _no_report
    # True: the images are augmented as those of Build.stored were
    replay: bool = False


def _no_parameters(key):
    del key
    return {}, ()


class Auxiliary(NamedTuple):
    """An additional loss, such as distillation of features or a penalty."""

    loss: Callable  # (params, state, batch, outputs, targets) -> (f32[], state)
    init: Callable = _no_parameters  # (key) -> (params, state)
    # number of views drawn from the configured augmentation, by (seed, epoch, index, view)
    draws: int = 1
    # (key, image[B, H, W, C]) -> image[V, B, H, W, C]; view 0 is the image itself
    views: Callable | None = None
    teacher_views: bool = False  # True: frozen networks see all views, not only view 0
    # (state) -> {name: scalar}; logged at evaluations as 'auxiliary/<plug>/<name>'
    report: Callable = _no_report
    # The step multiplies the loss by this weight, which is 0 before start_epoch and then rises
    # linearly from 0 in ramp_epochs.
    weight: float = 1.0
    start_epoch: float = 0.0
    ramp_epochs: float = 0.0
