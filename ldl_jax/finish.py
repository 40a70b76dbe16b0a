"""What a finished run leaves: predictions, weights, pictures and a summary."""

from pathlib import Path

import jax
import jax.numpy as jnp

from ldl_jax import files, mesh, run
from ldl_jax.build import Experiment
from ldl_jax.measure import Measured
from ldl_jax.metrics import calibration
from ldl_jax.report import log as logs
from ldl_jax.report.table import table
from ldl_jax.steps import TrainState


def measured_weights(state: TrainState, weights: str) -> dict:
    """The network's variables that `eval.weights` names: 'raw', or the average 'ema'."""
    if weights == "ema":
        return state.ema
    return {"params": state.params["model"], "batch_stats": state.batch_stats}


def write(made: Experiment, workdir: Path, state: TrainState, found: dict[str, Measured], log) -> dict:
    """Write a run's results below `workdir`, print its table, and return the summary.

    The weights are written where the run is finished, so that no teacher is one that was measured half-way.
    """
    weights = jax.device_get(measured_weights(state, made.config.eval.weights))
    if not mesh.is_main():
        return {}
    finished = int(state.step) >= made.recipe.build.total_steps
    paths = [run.save_weights(workdir / run.WEIGHTS, weights, step=int(state.step))] if finished else []
    paths += write_predictions(workdir, found)
    floors = {split: noise_floor(part) for split, part in found.items()}
    summary = {
        "data": made.config.data.name, "labels": made.config.labels.name, "step": int(state.step), "finished": finished,
        "epochs": int(state.step) / made.recipe.build.steps_per_epoch, "weights": made.config.eval.weights,
        "splits": {split: {**part.scores, "ece_floor": floors[split]} for split, part in found.items()},
        "teachers": made.teachers, **changed_labels(made),
    }  # fmt: skip
    paths += draw(made, workdir, found, floors)
    paths.append(files.write_json(workdir / run.SUMMARY, summary))
    log.message("")
    log.message(table({split: part.scores for split, part in found.items()}, floors))
    log.message("\n".join(["wrote:", *(f"  {path}" for path in paths), f"  {workdir / logs.METRICS}"]))
    return summary


def changed_labels(made: Experiment) -> dict[str, float]:
    """The share of the examples trained on whose label `data.labels_file` changed; nothing where there is none."""
    split = made.dataset.train
    if "label" not in split.given or split.labels is None:
        return {}
    return {"labels_changed": float((split.given["label"] != split.labels)[made.train].mean())}


def write_predictions(workdir: Path, found: dict[str, Measured]) -> list[Path]:
    """One predictions/<split>.npz each: logits f32[n, K], label i32[n], index i32[n]."""
    return [
        files.write_npz(workdir / "predictions" / f"{split}.npz", **part.predictions) for split, part in found.items()
    ]


def noise_floor(part: Measured) -> float:
    """The ECE expected of a calibrated model with these predictions' confidences."""
    confidence = jnp.max(jax.nn.softmax(jnp.asarray(part.predictions["logits"])), -1)
    return float(jax.jit(calibration.noise_floor)(jax.random.key(0), confidence))


def draw(made: Experiment, workdir: Path, found: dict[str, Measured], floors: dict[str, float]) -> list[Path]:
    """The reliability diagram of the test images, and the curves of the training."""
    from ldl_jax.report import figures  # matplotlib, which nothing else needs

    name = f"{made.config.model.name} on {made.config.data.name}, labels: {made.config.labels.name}"
    bins = found["test"].sums["calibration"]
    return [
        figures.reliability(workdir / "reliability.png", bins, title=name, floor=floors["test"]),
        figures.curves(workdir / "curves.png", logs.read(workdir / logs.METRICS), title=name),
    ]
