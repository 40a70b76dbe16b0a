"""Distributions to train on later: those of a finished run on augmented views, and what its label
memory has learned.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ldl_jax import config, files, workdir
from ldl_jax.checkpoint import Checkpoints
from ldl_jax.config.trust import Consent
from ldl_jax.contract import Stored
from ldl_jax.data import stored_rows
from ldl_jax.data.base import Split
from ldl_jax.data.loading import make_dataset
from ldl_jax.evaluation.load import load_weights
from ldl_jax.labels.base import dense_rows
from ldl_jax.models.spec import make_network, spec_dtype
from ldl_jax.training import recording
from ldl_jax.training.examples import draw_key, draw_views, scaled
from ldl_jax.training.experiment import augmentation, make_experiment
from ldl_jax.training.schedule import restore


class Choice(NamedTuple):
    """How distributions are stored."""

    views: int = 1  # V, augmented views of each image
    topk: int | None = None  # classes kept of each distribution; None: all
    remainder: str = "spread"  # of stored_rows.REMAINDERS
    dtype: str = "float16"  # of stored_rows.SCALES
    temperature: float = 1.0  # above 0
    seed: int | None = None  # of the augmentation; None: the run's


class Written(NamedTuple):
    """What was written."""

    path: Path
    size: int  # bytes
    images: int
    facts: dict[str, Any]  # of distributions: what `fidelity` says


def run_config(run: Path, fields: dict[str, str], consent: Consent) -> ConfigDict:
    """The config of a run with some fields replaced, as texts. Raises ValueError, also if it names
    modules without consent.
    """
    file = run / workdir.CONFIG
    if not file.is_file():
        raise ValueError(f"{run} is not a run directory of ldl_jax: it has no {workdir.CONFIG}")
    usual = config.default()
    given = {}
    for field in config.NAMES:
        if field in fields:
            given[field] = config.parsed(usual, field, fields[field])
    c = config.read(str(file), given=given, trust=consent.everything)
    for field in config.names_first(fields):
        config.set_field(c, field, config.parsed(c, field, fields[field]))
    config.check(config.add_options(c))
    return c


def store(
    run, out, choice: Choice, *, fields: dict[str, str], consent: Consent, batch_size: int = 256
) -> Written:
    """Write the distributions that a finished run gives views of its training images.

    fields: those of the run's config to replace, such as data.root, or augment.* for other views.
    Raises ValueError if the run, its data or the choice do not fit.
    """
    run = files.home(run)
    c = run_config(run, fields, consent)
    spec, variables, digest = load_weights(run, consent=consent)
    split = make_dataset(c.data).train
    if split.images is None:
        raise ValueError(
            "ldl_jax.store needs images in memory, whose augmentation can be repeated; this run's "
            "data set is streamed (--set data.resident=True, if it fits)"
        )
    number = spec["num_classes"]
    kept = number if choice.topk is None else choice.topk
    if not 1 <= kept <= number:
        raise ValueError(
            f"--topk must be between 1 and {number}, the number of classes, got {kept}"
        )
    seed = c.seed if choice.seed is None else choice.seed
    compute = _make_view(spec, augmentation(c.augment, spec), kept, choice)
    keys = [draw_key(jax.random.key(seed), view) for view in range(choice.views)]
    classes, probs, kl = _all_views(compute, variables, split, keys, batch_size, kept)
    size = np.min_scalar_type(number - 1)
    header = {
        "views": choice.views,
        "seed": seed,
        "remainder": choice.remainder,
        "temperature": choice.temperature,
        "classes": list(spec["classes"]),
        "mean": list(spec["mean"]),
        "augment": stored_rows.augment_settings(c),
        "images": stored_rows.images_digest(split.images),
        "data": c.data.name,
        "teacher": digest,
        "kl": float(kl.mean()),
    }
    stored_rows.write(out, classes.astype(size), probs, header)
    facts = {"kl": float(kl.mean()), "kl_highest": float(kl.max()), "topk": kept, "seed": seed}
    return Written(Path(out), Path(out).stat().st_size, len(classes), facts)


def _make_view(spec: dict, augment: Callable, kept: int, choice: Choice) -> Callable:
    """(key, variables, image u8[B, H, W, C], index i32[B]) -> (classes i32[B, k], probs [B, k], KL
    f32[B] from the distributions to the stored ones).
    """
    network = make_network(spec)[1]
    stored = _stored(choice)

    @jax.jit
    def view(key, variables, image, index):
        image = draw_views(key, augment, scaled(image, spec_dtype(spec)), index)[0]
        logits = network(variables, image, train=False, key=None)[0].logits
        log_p = jax.nn.log_softmax(logits / jnp.asarray(choice.temperature, logits.dtype))
        probs, classes = jax.lax.top_k(jnp.exp(log_p), kept)
        if choice.dtype == "uint8":
            # The largest stays above 0 for up to 510 classes.
            probs = jnp.maximum(jnp.round(probs * 255), jnp.zeros(kept).at[0].set(1))
        probs = probs.astype(choice.dtype)
        rows = dense_rows(classes, probs, stored, logits.shape[-1]).astype(log_p.dtype)
        log_rows = jnp.log(jnp.where(rows > 0, rows, 1))
        return classes, probs, jnp.sum(jnp.where(rows > 0, rows * (log_rows - log_p), 0), -1)

    return view


def _stored(choice: Choice) -> Stored:
    scale = stored_rows.SCALES[choice.dtype]
    return Stored(choice.views, 0, scale, choice.remainder == "spread")


def _all_views(
    compute: Callable, variables, split: Split, of_views: list, batch_size: int, kept: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(classes [N, V, k], probs [N, V, k], KL [N, V]) of all training images."""
    number = split.num_examples
    batch_size = min(batch_size, number)
    variables = jax.device_put(variables)
    shape = jax.eval_shape(
        compute,
        of_views[0],
        variables,
        jax.ShapeDtypeStruct((batch_size, *split.shape), np.uint8),
        jax.ShapeDtypeStruct((batch_size,), np.int32),
    )
    classes = np.zeros((number, len(of_views), kept), np.int32)
    probs = np.zeros((number, len(of_views), kept), shape[1].dtype)
    kl = np.zeros((number, len(of_views)), np.float64)
    total = number * len(of_views)
    with tqdm(desc="storing", total=total, unit="image", leave=False, disable=None) as bar:
        for view, key in enumerate(of_views):
            for begin in range(0, number, batch_size):
                # The last batch repeats images, so that there is one shape and one compilation.
                index = np.arange(begin, begin + batch_size, dtype=np.int32) % number
                rows = jax.device_get(compute(key, variables, split.images[index], index))
                real = min(batch_size, number - begin)
                for array, part in zip((classes, probs, kl), rows, strict=True):
                    array[begin : begin + real, view] = part[:real]
                bar.update(real)
    return classes, probs, kl


def store_memory(run, out, *, fields: dict[str, str], consent: Consent) -> Written:
    """Write the label memory of a run's latest checkpoint as a table for `data.train_table`.

    The file is an .npz with `probs` f32[N, K], rows that sum to 1: the memory's row of each training
    image, the hard label where none is written, or the row of its class. Raises ValueError if the
    run has no checkpoint, no memory, or labels that are not known without reading the images.
    """
    run = files.home(run)
    c = run_config(run, fields, consent)
    experiment = make_experiment(c, jax.devices()[:1], consent=consent)
    with contextlib.ExitStack() as stack:
        stack.enter_context(workdir.locked(run))
        checkpoints = Checkpoints(run / workdir.CHECKPOINTS, every_steps=1, keep=c.train.keep)
        stack.enter_context(contextlib.closing(checkpoints))
        if not checkpoints.steps():
            raise ValueError(f"{run} has no checkpoint, which the label memory is part of")
        state = restore(experiment, checkpoints)[0]
    held = recording.memories(state.labels, experiment.spec["num_classes"])
    if not held:
        raise ValueError(f"{run} has no label memory (config.labels.name is {c.labels.name!r})")
    name = min(held, key=lambda name: (name.split("/")[-1] == recording.TABLE, name))
    split = experiment.dataset.train
    labels = dict(split.given).get("label", split.labels)
    if labels is None:
        raise ValueError(
            f"the labels of data.name={c.data.name!r} are not known without its images"
        )
    rows = np.asarray(held[name], np.float32)
    if name.split("/")[-1] == recording.TABLE:
        rows = rows[labels]
    rows = rows[: split.num_examples]
    total = rows.sum(1, keepdims=True)
    hard = np.eye(rows.shape[1], dtype=np.float32)[labels]
    probs = np.where(total > 0, rows / np.where(total > 0, total, 1), hard)
    files.write_npz(out, probs=probs, classes=np.array(experiment.spec["classes"], np.str_))
    facts = {"memory": name, "written": int((total > 0).sum())}
    return Written(Path(out), Path(out).stat().st_size, len(probs), facts)
