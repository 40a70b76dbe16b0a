"""What a finished run leaves: predictions, weights, pictures and a summary."""

import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax import files, mesh
from ldl_jax import workdir as run
from ldl_jax.calibrate import base as calibrators
from ldl_jax.config.options import plug
from ldl_jax.evaluation import bootstrap as uncertainty
from ldl_jax.evaluation.curves import divided
from ldl_jax.evaluation.predictions import Predictions, streamed
from ldl_jax.report import figure_tables
from ldl_jax.report.tables import as_text
from ldl_jax.training import log as logs
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.measure import Measured
from ldl_jax.training.steps import TrainState


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
    paths += write_predictions(workdir, found, made.dataset.classes)
    fitted = fit_temperature(workdir, found)
    splits = {split: {**part.scores, "ece_floor": noise_floor(part)} for split, part in found.items()}
    scaled = {"test": scores_at(made, found["test"], fitted["temperature"])} if fitted else {}
    summary = {
        "data": made.config.data.name, "labels": made.config.labels.name, "step": int(state.step), "finished": finished,
        "epochs": int(state.step) / made.recipe.build.steps_per_epoch, "weights": made.config.eval.weights,
        "splits": splits, "temperature": fitted, "scaled": scaled, "teachers": made.teachers, **changed_labels(made),
    }  # fmt: skip
    paths += [workdir / run.CALIBRATION] if fitted else []
    paths += draw(made, workdir, found, splits["test"]["ece_floor"])
    paths += report(made, workdir, found) if made.config.eval.report else []
    paths.append(files.write_json(workdir / run.SUMMARY, summary))
    log.message("")
    columns = splits | {f"{split} at T": scores for split, scores in scaled.items()}
    log.message(as_text(figure_tables.splits(columns)))
    log.message(_of_temperature(fitted))
    log.message("\n".join(["wrote:", *(f"  {path}" for path in paths), f"  {workdir / logs.METRICS}"]))
    return summary


def fit_temperature(workdir: Path, found: dict[str, Measured]) -> dict | None:
    """The temperature that the holdout's predictions ask for, which is written as the run's calibrator.

    None where nothing is held out; a calibrator of an earlier measurement is then removed.
    """
    if "holdout" not in found:
        (workdir / run.CALIBRATION).unlink(missing_ok=True)
        return None
    said = found["holdout"].predictions
    params = plug("calibrate", "temperature").make().fit(said["logits"], said["label"])
    calibrators.save(workdir / run.CALIBRATION, "temperature", {}, params)
    return params


def _of_temperature(fitted: dict | None) -> str:
    if fitted is None:
        return "no temperature: nothing is held out to fit it on (config.data.holdout)"
    bound = ", a bound of the search: no temperature is best" if fitted["at_bound"] else ""
    return f"T: the temperature {fitted['temperature']:.4g}, fitted on the holdout{bound}"


def scores_at(made: Experiment, part: Measured, temperature: float) -> dict[str, float]:
    """What the network scores once its logits are divided by a temperature."""
    said, true = part.predictions, _true(made, part)
    given = {} if true is None else {"table": true}
    whole = Predictions("test", said["logits"], said["label"], "logits")
    found = streamed(whole, made.metrics, divided(temperature), given=given)
    cooler = part._replace(predictions={**said, "logits": said["logits"] / np.float32(temperature)})
    return {**{name: float(value) for name, value in found.items()}, "ece_floor": noise_floor(cooler)}


def _true(made: Experiment, part: Measured) -> np.ndarray | None:
    """The rows of `data.test_table` that belong to the predictions, where there is one."""
    given = made.dataset.test.given or {}
    return given["table"][part.predictions["index"]] if "table" in given else None


def report(made: Experiment, workdir: Path, found: dict[str, Measured]) -> list[Path]:
    """The figures of the test images with their intervals, as JSON and as a page to look at."""
    from ldl_jax.evaluation import evaluation as suite
    from ldl_jax.report import page  # matplotlib, which nothing else needs
    from ldl_jax.report.result import Evaluation

    splits = {
        split: Predictions(split, part.predictions["logits"], part.predictions["label"], "logits",
                           part.predictions["index"], ("logits of this run",), tuple(made.dataset.classes))
        for split, part in found.items()
    }  # fmt: skip
    measured = suite.measure(splits["test"], val=splits.get("holdout"), human=_true(made, found["test"]))
    evaluation = Evaluation.from_json(measured)  # until `measure` gives one
    return [
        files.write_json(workdir / "evaluation.json", {"seed": measured["seed"], "suites": [measured]}),
        page.write(workdir / "report.html", [evaluation], title=_name(made), facts=_facts(made)),
    ]


def _facts(made: Experiment) -> dict[str, str]:
    """How the run was made, for its report."""
    ran = run.versions()
    return {
        "command": shlex.join(["python", *ran["command"]]), "seed": str(made.config.seed),
        "weights": made.config.eval.weights, "device": f"{ran['devices']} x {ran['device']} ({ran['backend']})",
        "python": ran["python"],
    }  # fmt: skip


def changed_labels(made: Experiment) -> dict[str, float]:
    """The share of the examples trained on whose label `data.labels_file` changed; nothing where there is none."""
    split = made.dataset.train
    if "label" not in split.given or split.labels is None:
        return {}
    return {"labels_changed": float((split.given["label"] != split.labels)[made.train].mean())}


def write_predictions(workdir: Path, found: dict[str, Measured], classes) -> list[Path]:
    """One predictions/<split>.npz each: logits f32[n, K], label i32[n], index i32[n], classes str[K]."""
    folder, names = workdir / "predictions", np.array(classes, np.str_)
    return [
        files.write_npz(folder / f"{split}.npz", **part.predictions, classes=names) for split, part in found.items()
    ]


def noise_floor(part: Measured) -> float:
    """The ECE expected of a calibrated model with these predictions' confidences."""
    confidence = jnp.max(jax.nn.softmax(jnp.asarray(part.predictions["logits"])), -1)
    return uncertainty.noise_floor(jax.random.key(0), confidence)[0]


def draw(made: Experiment, workdir: Path, found: dict[str, Measured], floor: float) -> list[Path]:
    """The reliability diagram of the test images, and the curves of the training."""
    from ldl_jax.report import run_plots

    name, bins = _name(made), found["test"].sums["calibration"]
    return [
        run_plots.reliability(workdir / "reliability.png", bins, title=name, floor=floor),
        run_plots.curves(workdir / "curves.png", logs.read(workdir / logs.METRICS), title=name),
    ]


def _name(made: Experiment) -> str:
    return f"{made.config.model.name} on {made.config.data.name}, labels: {made.config.labels.name}"
