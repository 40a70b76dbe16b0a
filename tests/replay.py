"""What official PyTorch code computes, step by step, and what our one step makes of the same start
and batches.

python -m tests.replay --data DIR prints a Markdown table; DIR holds CIFAR-100. The vectors were
recorded from the official functions in float64 (torch 2.13.0, CPU): `hard` and `kd` from
HobbitLong/RepDistiller, `pskd` from lgcnsai/PS-KD-Pytorch, `sl` from vision01234/8511. All start
from the same ResNet-8 and see the first 1,024 training images of CIFAR-100 in the same order, four
epochs of eight steps of 128. `kd` and `sl` have a frozen ResNet-14. Differences are the largest of
all steps and entries, each relative to its own entry. Memory, parameters and statistics were
recorded rounded to float32, which is 6e-8; the running variances are compared as PyTorch keeps them
(`unbiased`).
"""

import argparse
import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ldl_jax import config, convert
from ldl_jax.contract import LabelSource
from ldl_jax.data import cifar100
from ldl_jax.data.base import Dataset, Request, Split
from ldl_jax.evaluation.load import Teacher
from ldl_jax.models.spec import make_network, network_spec
from ldl_jax.training import experiment as build
from ldl_jax.training import steps

VECTORS = Path(__file__).parent / "vectors"
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
COUNT, BATCH, SHAPE = 1024, 128, (32, 32, 3)
COMMON = {
    "data.batch_size": BATCH, "train.epochs": 4.0, "optimizer.schedule": "constant", "optimizer.learning_rate": 0.05,
    "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-4, "model.cifar_resnet.depth": 8,
    "model.cifar_resnet.width": 16, "model.cifar_resnet.stem": 16,
}  # fmt: skip
METHODS = {
    "hard": {},
    "pskd": {"labels.name": "online", "labels.online.alpha": 0.8, "optimizer.nesterov": True},
    "kd": {
        "labels.name": "blend", "labels.blend.parts": ("hard", "teacher"), "labels.blend.weights": (0.1, 0.9),
        "labels.teacher.temperature": 4.0, "labels.teacher.soft": True,
    },
    "sl": {"labels.name": "teacher"},
}  # fmt: skip


class Problem(NamedTuple):
    """What a network and a step are made for."""

    num_classes: int  # K
    num_examples: int  # N
    shape: tuple[int, int, int]  # H, W, C
    dtype: str  # of the network: 'float64' or 'float32'


class Watched(NamedTuple):
    """One method replayed: the state at the end, and what was seen at every step, stacked over
    steps.
    """

    state: steps.TrainState
    # scalars of the step [S], and 'logits' [S, B, K] of its forward pass
    seen: dict[str, np.ndarray]
    kept: list  # what `keep` took from each new state


def arrays(name: str) -> dict[str, np.ndarray]:
    """The vectors of one .npz file below tests/vectors."""
    with np.load(VECTORS / name, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def under(prefix: str, vectors: dict) -> dict[str, np.ndarray]:
    """The entries whose names begin with `prefix`, named by the rest."""
    return {
        name.removeprefix(prefix): value
        for name, value in vectors.items()
        if name.startswith(prefix)
    }


def from_torch(weights: dict[str, np.ndarray], init: Callable) -> dict:
    """PyTorch's tensors as the variables {'params', 'batch_stats'} that `init` would make."""
    return convert.from_state_dict(
        weights, jax.eval_shape(init, jax.random.key(0)), "the start weights"
    )


def to_torch(variables: dict, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our variables under PyTorch's names and in its layouts: the tensors named in `like`."""
    found = convert.to_state_dict(
        {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    )
    return {name: found[name] for name in like}


def unbiased(name: str, ours: np.ndarray, start: np.ndarray, pixels: int, count: int) -> np.ndarray:
    """A running variance as PyTorch keeps it, from ours after `count` steps.

    PyTorch averages the batch's variance times n / (n - 1), we the variance itself; the average is
    linear in both. `pixels`: examples of a batch times pixels of an image; a stage's maps have a
    quarter of the one's before.
    """
    n = pixels / 4 ** (int(name[5]) - 1 if name.startswith("layer") else 0)
    kept = 0.9**count * start.astype(np.float64)
    return kept + n / (n - 1) * (ours - kept)


def relative(ours, theirs) -> float:
    """The largest |ours - theirs| / |theirs| of all entries; where theirs is 0, ours must be."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    gap = np.abs(ours - theirs)
    return float(
        np.max(
            np.where(gap > 0, gap / np.where(theirs == 0, np.finfo(float).tiny, np.abs(theirs)), 0)
        )
    )


def settings(overrides: dict, problem: Problem):
    """(config, data set, network spec): identity normalisation, as the vectors' images are
    normalised.
    """
    c = config.default()
    c.update_from_flattened_dict({**COMMON, "model.dtype": problem.dtype, **overrides})
    config.check(c)
    split = Split(problem.num_examples, problem.shape)
    channels = problem.shape[-1]
    classes = tuple(map(str, range(problem.num_classes)))
    dataset = Dataset(split, split, classes, (0.0,) * channels, (1.0,) * channels)
    return c, dataset, network_spec(c, dataset, dataset.mean, dataset.std)


def teacher(overrides: dict, problem: Problem, weights: dict[str, np.ndarray]) -> Teacher:
    """A frozen network with given weights."""
    init, apply = make_network(settings(overrides, problem)[2])
    return Teacher(lambda v, image: apply(v, image, train=False)[0], from_torch(weights, init), "")


def make(overrides: dict, problem: Problem, teachers=()) -> steps.Recipe:
    """The recipe of a config with these settings, made as a run makes its own."""
    c, dataset, spec = settings(overrides, problem)
    return build.make_recipe(c, spec, list(teachers), dataset, problem.num_examples)


def begin(recipe: steps.Recipe, weights: dict[str, np.ndarray]) -> steps.TrainState:
    """The state at step 0 with given weights."""
    variables = from_torch(weights, recipe.build.init)
    given = recipe._replace(build=recipe.build._replace(init=lambda key: variables))
    return jax.jit(partial(steps.init_state, given))(jax.random.key(0))


def watch(
    recipe: steps.Recipe, state, frozen, batches, *, keep: Callable = lambda state: None, name="", options=None
) -> Watched:  # fmt: skip
    """Take one step for each batch, and look at the logits of its own forward pass; `options` are
    XLA's.
    """
    step = steps.make_train_step(recipe._replace(source=_showing(recipe.source)))
    step = jax.jit(step, compiler_options=options)
    logits = jnp.zeros((len(batches[0]["index"]), recipe.build.num_classes), recipe.dtype)
    state, data, seen, kept = (
        state.replace(labels=(state.labels, logits)),
        {"key": jax.random.key(0)},
        [],
        [],
    )
    for batch in tqdm(batches, desc=name, disable=not name):
        state, scalars = step(state, frozen, data, batch)
        plain = state.replace(labels=state.labels[0])
        seen.append(jax.device_get({**scalars, "logits": state.labels[1]}))
        kept.append(keep(plain))
    return Watched(
        jax.device_get(plain), {key: np.stack([one[key] for one in seen]) for key in seen[0]}, kept
    )


def _showing(source: LabelSource) -> LabelSource:
    """The same source, whose state also holds the logits of the last forward pass: (state, logits
    [B, K]).
    """

    def update(state, batch, forward):
        return source.update(state[0], batch, forward), forward.outputs.logits[0]

    return source._replace(
        targets=lambda state, batch, outputs: source.targets(state[0], batch, outputs),
        update=update,
    )


def cifar_images(root) -> np.ndarray:
    """The first 1,024 training images of CIFAR-100 below `root`, uint8 [1024, 32, 32, 3]."""
    return cifar100.make(Request(str(root))).train.images[:COUNT]


def normalised(images: np.ndarray, common: dict) -> np.ndarray:
    """The images as the official code fed them, float32 [N, H, W, C]. Raises ValueError where they
    are others.
    """
    x = (images.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    for field, value in (("images_sha256", images), ("x_sha256", x.transpose(0, 3, 1, 2))):
        found = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        if found != common[field]:
            raise ValueError(
                f"the images' {field} is {found}; allowed is {common[field]}, that of the recorded run"
            )
    return x


def replay(
    method: str, root, dtype: str = "float64", *, steps: int | None = None, quiet: bool = False
) -> tuple[Watched, dict, dict]:
    """(what our step did, the official vectors, the common vectors) of a recorded method, for so
    many steps.
    """
    common, theirs, frozen = (
        arrays("replay/common.npz"),
        arrays(f"replay/{method}_f64.npz"),
        arrays("replay/teacher.npz"),
    )
    x = normalised(cifar_images(root), common).astype(dtype)
    problem = Problem(100, COUNT, SHAPE, dtype)
    teachers = []
    if method in ("kd", "sl"):
        teachers = [teacher({"model.cifar_resnet.depth": 14}, problem, under("p/", frozen))]
    recipe = make(METHODS[method], problem, teachers)
    batches = [
        {"index": index, "image": x[index], "label": common["labels"][index]}
        for index in common["order"].reshape(-1, BATCH)[:steps]
    ]
    done = watch(
        recipe, begin(recipe, under("init/", common)), tuple(t.variables for t in teachers), batches,
        keep=lambda state: (jax.device_get(state.params), state.labels), name="" if quiet else f"{method} {dtype}",
        options={"xla_backend_optimization_level": 3},  # whatever the tests compile with
    )  # fmt: skip
    return done, theirs, common


def gaps(done: Watched, theirs: dict, common: dict) -> dict[str, float]:
    """The largest relative differences of one method: of each quantity that was recorded."""
    final = under("p/", theirs)
    variables = {"params": done.state.params["model"], "batch_stats": done.state.batch_stats}
    ours = to_torch(variables, final)
    start = under("init/", common)
    for name in ours:
        if name.endswith("running_var"):
            ours[name] = unbiased(
                name, ours[name], start[name], BATCH * SHAPE[0] * SHAPE[1], len(done.kept)
            )
    first = under("p1/", theirs)
    params = to_torch({"params": done.kept[0][0]["model"]}, first)
    sums = {
        name: [value.sum(dtype=np.float64), np.linalg.norm(value.astype(np.float64))]
        for name, value in ours.items()
    }
    found = {
        "loss": relative(done.seen["loss"], theirs["loss"]),
        "logits": relative(done.seen["logits"][theirs["logits_steps"], :4], theirs["logits"]),
        "grad_norm": relative(done.seen["grad_norm"], theirs["grad_norm"]),
        "first_step": max(relative(params[name], first[name]) for name in first),
        "parameters": max(
            relative(ours[name], final[name]) for name in final if "running" not in name
        ),
        "statistics": max(relative(ours[name], final[name]) for name in final if "running" in name),
        "sums": max(relative(sums[name], theirs[f"psum64/{name}"]) for name in final),
    }
    if "memory" in theirs:
        rows = [np.asarray(labels["rows"][:COUNT]) for _, labels in done.kept[7::8]]
        found["memory"] = relative(np.stack(rows), theirs["memory"])
    return found


TABLES = {
    "float64": ("loss", "logits", "grad_norm", "memory", "parameters", "statistics"),
    "float32": ("loss of steps 0-1", "loss to step 7", "loss of all steps"),
}


def figures(method: str, dtype: str, root) -> list[float | None]:
    """One row of a table: the largest relative differences of a method, over its steps."""
    done, theirs, common = replay(method, root, dtype)
    if dtype == "float64":
        found = gaps(done, theirs, common)
        return [found.get(name) for name in TABLES[dtype]]
    return [
        relative(done.seen["loss"][:count], theirs["loss"][:count])
        for count in (2, 8, len(theirs["loss"]))
    ]


def main(arguments=None) -> None:
    """Replay the methods asked for and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.replay", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--data", default=os.environ.get("LDL_DATA_DIR"), help="holds CIFAR-100")
    parser.add_argument(
        "--method", action="append", choices=tuple(METHODS), help="may be repeated; default: all"
    )
    parser.add_argument(
        "--dtype", action="append", choices=("float64", "float32"), help="may be repeated"
    )
    chosen = parser.parse_args(arguments)
    if not chosen.data:
        parser.error("--data is missing, and so is the environment variable LDL_DATA_DIR")
    jax.config.update("jax_enable_x64", True)
    for dtype in chosen.dtype or ["float64"]:
        columns = ("method", f"steps in {dtype}", *TABLES[dtype])
        print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
        for method in chosen.method or METHODS:
            try:
                numbers = [
                    "" if x is None else f"{x:.0e}" for x in figures(method, dtype, chosen.data)
                ]
            except (OSError, ValueError) as error:
                parser.error(f"--data {chosen.data}: {error}")
            print(f"| {method} | 32 | " + " | ".join(numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
