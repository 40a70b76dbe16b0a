"""Network specs: everything needed to build a network, as JSON values, and building it.

A run directory stores its spec as network.json, so that the network can be rebuilt without its
config or its data.
"""

import json
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax.config.options import make_plug
from ldl_jax.models.base import Network, param_dtype

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}


def network_spec(c: ConfigDict, dataset, mean, std) -> dict:
    """The spec of a config's network: classes, image shape, pixel statistics and the options of
    `config.model`.

    mean, std: mean and standard deviation of the pixels in [0, 1], per channel.
    """
    name = c.model.name
    options = c.model.options if "." in name else c.model[name]
    model = {
        "name": name,
        "dtype": c.model.dtype,
        "norm_group": c.model.norm_group,
        "options": options.to_dict(),
    }
    spec = {
        "num_classes": len(dataset.classes),
        "classes": list(dataset.classes),
        "shape": list(dataset.train.shape),
        "num_examples": dataset.train.num_examples,
        "mean": list(mean),
        "std": list(std),
        "model": model,
    }
    # Round-tripped, so that it equals the spec read from a file (tuples become lists).
    return json.loads(json.dumps(spec))


def spec_dtype(spec: dict):
    """The type of a spec's parameters, images, losses and logits: float64 for float64, otherwise
    float32.
    """
    return param_dtype(DTYPES[spec["model"]["dtype"]])


def make_network(spec: dict) -> tuple[Callable, Callable]:
    """(init, apply) of the network of a spec (see `network_spec`).

    init(key) -> {'params', 'batch_stats'}, float32 or better whatever the type of the activations.
    apply(variables, image[B, H, W, C] in [0, 1], *, train, key=None) -> (Outputs, batch_stats).
    Raises ValueError if float64 is asked for without x64, or if the network cannot be made.
    """
    dtype = DTYPES[spec["model"]["dtype"]]
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            "config.model.dtype 'float64' needs 64-bit JAX; set the environment variable "
            "JAX_ENABLE_X64=1"
        )
    network = Network(
        num_classes=spec["num_classes"],
        mean=tuple(spec["mean"]),
        std=tuple(spec["std"]),
        dtype=dtype,
        # Specs written before the field was added do not have it.
        norm_group=spec["model"].get("norm_group", 0),
    )
    module = _make_module(spec["model"], network)
    kind = param_dtype(dtype)

    def init(key):
        variables = module.init(key, jnp.zeros((1, *spec["shape"]), kind), False)
        collections = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
        return jax.tree.map(lambda leaf: leaf.astype(kind), collections)

    def apply(variables, image, *, train, key=None):
        if not train:
            return module.apply(variables, image, False), variables["batch_stats"]
        keys = {} if key is None else {"dropout": key}
        outputs, changed = module.apply(variables, image, True, mutable=["batch_stats"], rngs=keys)
        # A network without BatchNorm changes nothing.
        return outputs, changed.get("batch_stats", {})

    return init, apply


def head_axes(spec: dict) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The head of a spec's network: {path of a leaf: its axes whose length depends on the number of
    classes}.

    A path starts with the collection, as in ('params', 'fc', 'kernel').
    """

    def leaves(num_classes):
        init, _ = make_network({**spec, "num_classes": num_classes})
        return traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0)))

    axes = {}
    larger = leaves(spec["num_classes"] + 1)
    for path, leaf in leaves(spec["num_classes"]).items():
        pairs = zip(leaf.shape, larger[path].shape, strict=True)
        changed = tuple(axis for axis, (one, other) in enumerate(pairs) if one != other)
        if changed:
            axes[path] = changed
    return axes


def _make_module(settings: dict, network: Network) -> nn.Module:
    """The linen module that `config.model` names: a file of ldl_jax/models, or a dotted name of the
    user's own module.

    Raises ValueError if the user's module cannot be imported, has no `make`, or makes no network.
    """
    name = settings["name"]
    # The fields of a linen module must be hashable, and JSON made lists of tuples.
    options = {}
    for key, value in settings["options"].items():
        options[key] = tuple(value) if isinstance(value, list) else value
    return make_plug("models", name, nn.Module, network, **options)
