"""Network specs: everything needed to build a network, as JSON values, and building it.

A run directory stores its spec as network.json, so that the network can be rebuilt without its
config or its data.
"""

import json
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax.config import checks, fields
from ldl_jax.config.options import block, make_plug, plugs
from ldl_jax.files import reading
from ldl_jax.models.base import Network, param_dtype

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}
# Entries of a spec and of its model, with their types; those of lists with the types of items.
ENTRIES = {"num_classes": int, "num_examples": int, "model": dict}
LISTS = {"classes": str, "shape": int, "mean": float, "std": float}
MODEL = {"name": str, "dtype": str, "options": dict}
LARGEST = 2**26  # numbers in an image, as in 4,096 x 4,096 pixels of four channels


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


def read_spec(path) -> dict:
    """The spec in a network.json, which may be anybody's.

    Raises ValueError, naming the file and the entry, if no network can have it.
    """
    spec = reading.read_block(path, "the spec of a network")
    for name, kind in ENTRIES.items():
        reading.item(path, name, spec.get(name), kind)
    for name, kind in LISTS.items():
        reading.items(path, name, spec.get(name), kind)
    model = spec["model"]
    for name, kind in MODEL.items():
        reading.item(path, f"model.{name}", model.get(name), kind)
    group = reading.item(path, "model.norm_group", model.get("norm_group", 0), int)
    channels = spec["shape"][-1] if spec["shape"] else 0
    conditions = {
        "num_classes must be the number of classes": spec["num_classes"] == len(spec["classes"]),
        "classes must have names": len(spec["classes"]) > 0,
        "num_examples must be a count": 0 <= spec["num_examples"] <= checks.COUNTER,
        f"shape must be three lengths of at most {LARGEST:,} numbers together": (
            len(spec["shape"]) == 3
            and min(spec["shape"]) > 0
            and math.prod(spec["shape"]) <= LARGEST
        ),
        "mean must have a number for each channel": len(spec["mean"]) == channels,
        "std must have a positive number for each channel": (
            len(spec["std"]) == channels and min(spec["std"]) > 0
        ),
        "model.norm_group must be a count": 0 <= group <= checks.COUNTER,
        f"model.dtype must be one of {', '.join(DTYPES)}": model["dtype"] in DTYPES,
    }
    for condition, holds in conditions.items():
        if not holds:
            name = condition.partition(" ")[0]
            value = model.get(name[6:]) if name.startswith("model.") else spec[name]
            raise ValueError(f"{path}: {condition}, got {reading.shown(value)}")
    _check_options(path, model)
    return spec


def _check_options(path, model: dict) -> None:
    """Raise ValueError if a network of the package has no such option, or none of such a type."""
    name = model["name"]
    for option, value in model["options"].items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                raise ValueError(
                    f"{path}: model.options.{option} must be a value or list of values"
                )
    # The options of a user's own network are checked by that network.
    if "." in name:
        return
    if name not in plugs("models"):
        known = ", ".join(plugs("models"))
        raise ValueError(f"{path}: model.name must be one of {known}; got {name[:40]!r}")
    usual = block(f"models/{name}.py")
    unknown = [option for option in model["options"] if option not in usual]
    if unknown:
        raise ValueError(f"{path}: model.options has no option {unknown[0][:40]!r} of {name}")
    defaults = fields.flatten(usual)
    given = {option: defaults[option] for option in model["options"]}
    optional = {}
    for option, value in given.items():
        if value is None:
            optional[option] = usual.get_ref(option).get_type()
    try:
        checks.types(model["options"], given, optional)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


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
