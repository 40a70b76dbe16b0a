"""Network specs: all that a network is made from, as JSON values, and the network that a spec
stands for.

A run directory keeps its spec as network.json, so that the network can be made again without its
config or its data.
"""

import importlib
import json
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ldl_jax.config.options import plug
from ldl_jax.models.base import Network, param_dtype

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}


def network_spec(c: ConfigDict, dataset, mean, std) -> dict:
    """The spec of a config's network: classes, image shape, pixel statistics, and its block of
    `config.model`.

    mean, std: of the pixels in [0, 1], one number for each channel.
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
    # As it reads back from a file, tuples as lists, so that specs can be compared.
    return json.loads(json.dumps(spec))


def spec_dtype(spec: dict):
    """The type of a spec's parameters, images, losses and logits: float64 for float64, float32
    otherwise.
    """
    return param_dtype(DTYPES[spec["model"]["dtype"]])


def make_network(spec: dict) -> tuple[Callable, Callable]:
    """(init, apply) of the network of a spec (see `network_spec`).

    init(key) -> {'params', 'batch_stats'}, float32 or better whatever the activations are.
    apply(variables, image[B, H, W, C] in [0, 1], *, train, key=None) -> (Outputs, batch_stats).
    """
    dtype = DTYPES[spec["model"]["dtype"]]
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            "config.model.dtype is 'float64', which needs the environment variable JAX_ENABLE_X64=1"
        )
    network = Network(
        num_classes=spec["num_classes"],
        mean=tuple(spec["mean"]),
        std=tuple(spec["std"]),
        dtype=dtype,
        # specs from before there was the field have none
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
        return outputs, changed.get("batch_stats", {})

    return init, apply


def _make_module(settings: dict, network: Network) -> nn.Module:
    """The linen module that `config.model` names: a file of ldl_jax/models, or a dotted name of the
    user's own.

    Raises ValueError where a dotted name cannot be imported or has no `make`.
    """
    name = settings["name"]
    options = {
        key: tuple(v) if isinstance(v, list) else v for key, v in settings["options"].items()
    }
    if "." not in name:
        return plug("models", name).make(network, **options)
    try:
        module = importlib.import_module(name)
    except (ImportError, TypeError, ValueError) as error:  # '..x' and the like are no names
        raise ValueError(
            f"config.model.name is {name!r}, which cannot be imported ({error})"
        ) from None
    if not hasattr(module, "make"):
        raise ValueError(
            f"config.model.name is {name!r}; that module has no function make(network, **options)"
        )
    return module.make(network, **options)
