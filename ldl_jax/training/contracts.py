"""Checks of the user's own plugs by shapes, before a run starts: do they keep to the contract?

Everything here works on abstract arrays, so nothing is compiled or computed. The package's own
plugs are checked by its tests.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ldl_jax import mesh
from ldl_jax.config.options import called
from ldl_jax.config.own import own_names
from ldl_jax.contract import Auxiliary, Batch, Build, Forward, LabelSource, Outputs, PyTree, Target
from ldl_jax.data.base import Split
from ldl_jax.metrics.base import Metric, Seen
from ldl_jax.mixing.base import Mixer, precision
from ldl_jax.training.recipe import Recipe


def _key():
    """An abstract key; a function, since JAX must not start before the processes have joined."""
    return jax.eval_shape(lambda: jax.random.key(0))


def _traced(what: str, function, *arguments) -> Any:
    """The abstract result of a function of the user's own; its errors name `what`."""
    return called(what, jax.eval_shape, function, *arguments)


def _shown(tree: PyTree) -> str:
    """The shapes and types of a pytree as text."""
    leaves = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
    return str(leaves).replace("'", "")


def _check_shape(what: str, array, shape: tuple[int, ...]) -> None:
    if not hasattr(array, "shape") or array.shape != shape:
        found = _shown(array) if hasattr(array, "shape") else type(array).__name__
        raise ValueError(f"{what} must have the shape {list(shape)}, got {found}")


def _check_state(what: str, new: PyTree, state: PyTree) -> None:
    """Raise ValueError unless a plug hands its state on as it got it."""
    if _shown(new) != _shown(state) or jax.tree.structure(new) != jax.tree.structure(state):
        raise ValueError(
            f"{what} must return a state like the one of init(), {_shown(state)[:200]}, got "
            f"{_shown(new)[:200]}"
        )


def _check_report(name: str, function, state: PyTree) -> None:
    report = _traced(f"{name}: report()", function, state)
    if not isinstance(report, dict):
        raise ValueError(
            f"{name}: report() must return {{name: scalar}}, got {type(report).__name__}"
        )
    for key, value in report.items():
        _check_shape(f"{name}: report()[{key!r}]", value, ())


def check(config: ConfigDict, recipe: Recipe, split: Split, metrics: dict[str, Metric]) -> None:
    """Check all plugs of the user's own that a config names, except augmentations and networks.

    split: the training split. Raises ValueError, in one sentence that names the module.
    """
    named = list(own_names(config))
    if not named:
        return
    build = recipe.build
    outputs = build.outputs
    shape = (*outputs.logits.shape[:2], *split.shape)
    batch = abstract_batch(jax.ShapeDtypeStruct(shape, recipe.dtype), build, recipe.mixer, split)
    logits = jax.ShapeDtypeStruct(outputs.logits.shape[1:], outputs.logits.dtype)
    for own in named:
        if own.folder == "labels":
            check_source(own.name, build.part(own.name), batch, outputs, build.init)
        elif own.folder == "auxiliary":
            check_auxiliary(own.name, recipe.auxiliaries[own.name], batch, outputs)
        elif own.folder == "mixing":
            check_mixer(own.name, recipe.mixer, batch.image)
        elif own.folder == "losses":
            check_criterion(own.name, build.criterion, logits)
        elif own.folder == "metrics" and own.name in metrics:
            check_metric(own.name, metrics[own.name], logits)


def abstract_batch(image, build: Build, mixer: Mixer, split: Split) -> Batch:
    """The batch of a step as abstract arrays. image: abstract, [V, B, H, W, C]."""
    size = image.shape[1]

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype)

    given = {}
    for name, table in dict(split.given).items():
        given[name] = array(table.dtype, size, *table.shape[1:])
    return Batch(
        image=image,
        clean=array(image.dtype, *image.shape[1:]),
        index=array(jnp.int32, size),
        label=array(jnp.int32, size),
        given=given or (),
        partner=array(jnp.int32, size, mixer.ways),
        share=array(precision(image), size, mixer.ways),
        mask=array(jnp.float32, size),
        teacher=build.teachers,
        step=array(jnp.int32),
        key=_key(),
    )


def check_source(name: str, source: LabelSource, batch: Batch, outputs: Outputs, init) -> None:
    """Raise ValueError, naming the module, if a label source does not keep to its contract.

    init: (key) -> the network's variables.
    """
    variables = jax.eval_shape(init, _key())
    state = _traced(f"{name}: init()", source.init, _key(), variables)
    targets = _traced(f"{name}: targets()", source.targets, state, batch, outputs)
    is_list = type(targets) in (tuple, list)
    if not is_list or not all(isinstance(target, Target) for target in targets):
        raise ValueError(
            f"{name}: targets() must return a tuple of Targets, got {type(targets).__name__}"
        )
    for target in targets:
        _check_shape(f"{name}: targets(): probs", target.probs, outputs.logits.shape[1:])
    forward = Forward(
        outputs=outputs,
        targets=targets,
        clean_logits=jax.ShapeDtypeStruct(outputs.logits.shape[1:], outputs.logits.dtype),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        updated=jax.ShapeDtypeStruct((), jnp.bool_),
    )
    new = _traced(f"{name}: update()", source.update, state, batch, forward)
    _check_state(f"{name}: update()", new, state)
    _check_report(name, source.report, state)


def check_auxiliary(name: str, auxiliary: Auxiliary, batch: Batch, outputs: Outputs) -> None:
    """Raise ValueError, naming the module, if an auxiliary does not keep to its contract."""
    made = _traced(f"{name}: init()", auxiliary.init, _key())
    if not isinstance(made, tuple) or len(made) != 2:
        raise ValueError(f"{name}: init() must return (params, state), got {type(made).__name__}")
    params, state = made
    probs = jax.ShapeDtypeStruct(outputs.logits.shape[1:], outputs.logits.dtype)
    scalar = jax.ShapeDtypeStruct((), probs.dtype)
    targets = (Target(probs, scalar, scalar, mixed=True),)
    result = _traced(f"{name}: loss()", auxiliary.loss, params, state, batch, outputs, targets)
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"{name}: loss() must return (loss, state), got {type(result).__name__}")
    _check_shape(f"{name}: loss()", result[0], ())
    _check_state(f"{name}: loss()", result[1], state)
    _check_report(name, auxiliary.report, state)


def check_mixer(name: str, mixer: Mixer, image) -> None:
    """Raise ValueError, naming the module, if a mixer does not keep to its contract.

    image: abstract, [V, B, H, W, C].
    """
    if not isinstance(mixer.probability, int | float) or not 0 <= mixer.probability <= 1:
        raise ValueError(f"{name}: probability must be in [0, 1], got {mixer.probability!r}")
    result = _traced(f"{name}: mix()", mixer.mix, _key(), image)
    if not isinstance(result, tuple) or len(result) != 3:
        raise ValueError(
            f"{name}: mix() must return (image, partner, share), got {type(result).__name__}"
        )
    mixed, partner, share = result
    ways = (image.shape[1], mixer.ways)
    _check_shape(f"{name}: mix(): image", mixed, image.shape)
    _check_shape(f"{name}: mix(): partner", partner, ways)
    _check_shape(f"{name}: mix(): share", share, ways)


def check_criterion(name: str, criterion, logits) -> None:
    """Raise ValueError, naming the module, if a loss is not [B] for abstract logits [B, K]."""
    loss = _traced(f"{name}: the loss", criterion, logits, logits)
    _check_shape(f"{name}: the loss of each example", loss, logits.shape[:1])


def check_operation(name: str, operation, shape: tuple[int, int, int]) -> None:
    """Raise ValueError, naming the module, if an augmentation changes the shape of an image."""
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    augmented = _traced(f"{name}: the operation", operation, _key(), image)
    _check_shape(f"{name}: the augmented image", augmented, image.shape)


def check_metric(name: str, metric: Metric, logits) -> None:
    """Raise ValueError, naming the module, if a metric's sums or figures cannot be computed."""
    seen = Seen(
        jax.ShapeDtypeStruct(logits.shape[:1], jnp.int32),
        jax.ShapeDtypeStruct(logits.shape[:1], jnp.float32),
    )
    _traced(f"{name}: sums()", metric.sums, logits, seen)


def check_rows(source, auxiliaries, build: Build) -> None:
    """Check that every entry called `rows` in a plug's state has `build.rows` rows.

    These entries are sharded over the devices by their first axis.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = {
        "labels": jax.eval_shape(lambda key: source.init(key, build.init(key)), key),
        "auxiliary": {},
    }
    for name, auxiliary in auxiliaries.items():
        state["auxiliary"][name] = jax.eval_shape(auxiliary.init, key)[1]
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if mesh.is_rows(path) and leaf.shape[:1] != (build.rows,):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"{name} must have build.rows = {build.rows} rows; got the shape {list(leaf.shape)}"
            )
