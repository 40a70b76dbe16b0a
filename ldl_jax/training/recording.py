"""What a run records for `python -m ldl_jax.analyse` if it is asked to: figures of training images
in evaluation mode, and rows of the label memory.
"""

from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from ldl_jax import files, mesh, workdir
from ldl_jax.contract import Array, PyTree
from ldl_jax.errors import warn
from ldl_jax.evaluation import confidence
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.measure import Measured, measure_split
from ldl_jax.training.programs import Programs
from ldl_jax.training.steps import TrainState

SEED = 20230131  # of the choice of images, the same in all runs
TABLE = "table"  # entry of a label source's state with a distribution for each class


def chosen(train: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the training positions i64[n], rising.

    The same for every seed of a run; those of a smaller count are among those of a larger one.
    """
    shuffled = np.random.default_rng(SEED).permutation(len(train))
    return np.sort(train[shuffled[:count]])


def records(experiment: Experiment) -> bool:
    """Whether training images are measured at evaluations."""
    return experiment.config.eval.train_examples > 0


def measure_train(experiment: Experiment, programs: Programs, variables: PyTree) -> Measured:
    """The scores and predictions of a network on `eval.train_examples` of its training images, in
    evaluation mode and without augmentation.
    """
    return measure_split(
        programs.evaluate,
        variables,
        programs.train,
        experiment.dataset.train,
        chosen(experiment.train, experiment.config.eval.train_examples),
        metrics=experiment.metrics,
        mesh=experiment.mesh,
        batch_size=experiment.config.data.eval_batch_size,
        keep=True,
    )


def further_scores(measured: Measured) -> dict[str, float]:
    """The confidence of right and wrong predictions, and the parts of the NLL."""
    logits = measured.predictions["logits"]
    label = measured.predictions["label"]
    return confidence.right_and_wrong(logits, label) | confidence.parts(logits, label)


def memories(labels: PyTree, classes: int) -> dict[str, Array]:
    """The distributions in a label source's state by their names: `rows` f[rows, K] of examples,
    `table` f[K, K] of classes; with the number of the part before it in a blend, as in '0/rows'.
    """
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path({"labels": labels})[0]:
        name = jax.tree_util.keystr(path[1:], simple=True, separator="/")
        by_class = name.split("/")[-1] == TABLE and leaf.shape == (classes, classes)
        by_example = mesh.is_rows(path) and leaf.shape[1:] == (classes,)
        if by_class or by_example:
            found[name] = leaf
    return found


def save_memory(experiment: Experiment, directory: Path, state: TrainState, step: int) -> None:
    """Write the memory's rows of `eval.memory_examples` training images to memory/<step>.npz.

    Its arrays: step, epoch, index i64[n] and label i32[n] (published; if known) of the images, and
    the entries of `memories`, f16[n, K] or f16[K, K], as they are stored: a row of zeros is not
    written yet, and that of an average may not sum to 1. No file without such an entry. A full disk
    does not end the run.
    """
    count = experiment.config.eval.memory_examples
    held = memories(state.labels, experiment.spec["num_classes"]) if count else {}
    if not held:
        return
    index = chosen(experiment.train, count)
    arrays = {}
    for name, leaf in held.items():
        by_class = name.split("/")[-1] == TABLE
        part = (
            leaf
            if by_class
            else _rows(experiment.mesh)(
                leaf, mesh.put_replicated(index.astype(np.int32), experiment.mesh)
            )
        )
        # Every process takes part in fetching, process 0 alone writes.
        arrays[name] = mesh.fetch(part, experiment.mesh).astype(np.float16)
    if not mesh.is_main():
        return
    labels = experiment.dataset.train.labels
    if labels is not None:
        arrays["label"] = labels[index]
    epoch = step / experiment.recipe.build.steps_per_epoch
    path = directory / workdir.MEMORY / f"{step}.npz"
    try:
        files.write_npz(path, step=step, epoch=epoch, index=index, **arrays)
    except OSError as error:
        warn(f"{error.filename} cannot be written ({error.strerror}); this snapshot is left out")


@lru_cache(maxsize=1)
def _rows(device_mesh: Mesh):
    """(rows, index) -> rows[index], on every device."""
    return jax.jit(lambda rows, index: rows[index], out_shardings=mesh.replicated(device_mesh))
