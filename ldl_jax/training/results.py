"""What a finished run leaves: predictions, weights, plots and a summary."""

import shlex
from pathlib import Path

import jax
import numpy as np

from ldl_jax import files, mesh, workdir
from ldl_jax.calibrate import base as calibrators
from ldl_jax.evaluation import evaluation, fitting
from ldl_jax.evaluation.fitting import Fit
from ldl_jax.evaluation.passes import reduce
from ldl_jax.evaluation.predictions import Predictions
from ldl_jax.report import figure_tables
from ldl_jax.report.result import Evaluation
from ldl_jax.report.tables import as_text
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.measure import Measured
from ldl_jax.training.steps import TrainState


def measured_weights(state: TrainState, weights: str) -> dict:
    """The network's variables that `eval.weights` names: 'raw', or the average 'ema'."""
    if weights == "ema":
        return state.ema
    return {"params": state.params["model"], "batch_stats": state.batch_stats}


def write(
    experiment: Experiment, folder: Path, state: TrainState, measured: dict[str, Measured], log
) -> dict:
    """Write a run's results below `folder`, print its table, and return the summary.

    measured: each split's scores and predictions. The weights are written where the run is
    finished, so that no teacher is one that was measured half-way.
    """
    weights = jax.device_get(measured_weights(state, experiment.config.eval.weights))
    if not mesh.is_main():
        return {}
    # What the network learned and said.
    step = int(state.step)
    finished = step >= experiment.recipe.build.total_steps
    paths = [workdir.save_weights(folder / workdir.WEIGHTS, weights, step=step)] if finished else []
    paths += write_predictions(folder, measured, experiment.dataset.classes)
    # What is measured of it: one evaluation of the test images, from which all that follows is
    # taken.
    splits = {name: _predictions(experiment, name, part) for name, part in measured.items()}
    fitted = fit_temperature(folder, splits)
    human, full = _true(experiment, measured["test"]), experiment.config.eval.report
    test = evaluation.measure(splits["test"], fitted=fitted, human=human, full=full)
    summary = _summary(experiment, step, measured, _floors(splits, test), fitted, test)
    # The pictures and the report; the summary comes last, since a run that has one is finished.
    paths += [folder / workdir.CALIBRATION] if fitted else []
    paths += draw(experiment, folder, test)
    paths += report(experiment, folder, test) if full else []
    paths.append(files.write_json(folder / workdir.SUMMARY, summary))
    _tell(log, summary, [*paths, folder / workdir.METRICS])
    return summary


def _predictions(experiment: Experiment, name: str, part: Measured) -> Predictions:
    """What the network said of a split, as stored predictions are held."""
    rows = part.predictions
    notes, classes = ("logits of this run",), tuple(experiment.dataset.classes)
    return Predictions(name, rows["logits"], rows["label"], "logits", rows["index"], notes, classes)


def fit_temperature(folder: Path, splits: dict[str, Predictions]) -> Fit | None:
    """The temperature that the holdout's predictions ask for, which is written as the run's
    calibrator.

    None where nothing is held out; a calibrator of an earlier measurement is then removed.
    """
    if "holdout" not in splits:
        (folder / workdir.CALIBRATION).unlink(missing_ok=True)
        return None
    fitted = fitting.fit(splits["holdout"])
    calibrators.save(folder / workdir.CALIBRATION, fitted.calibrator, fitted.options, fitted.params)
    return fitted


def _floors(splits: dict[str, Predictions], test: Evaluation) -> dict[str, float]:
    """The noise floor of each split's ECE; that of the test images is known."""
    floors = {}
    for name, predictions in splits.items():
        if name == "test":
            floors[name] = test.raw.figures["ece"].floor
        else:
            floors[name], _ = evaluation.ece_floor(reduce(predictions))
    return floors


def _summary(
    experiment: Experiment,
    step: int,
    measured: dict[str, Measured],
    floors: dict,
    fitted: Fit | None,
    test: Evaluation,
) -> dict:
    """The run in numbers, as summary.json keeps it."""
    build = experiment.recipe.build
    return {
        "data": experiment.config.data.name,
        "labels": experiment.config.labels.name,
        "step": step,
        "finished": step >= build.total_steps,
        "epochs": step / build.steps_per_epoch,
        "weights": experiment.config.eval.weights,
        "splits": {
            name: {**part.scores, "ece_floor": floors[name]} for name, part in measured.items()
        },
        "temperature": None if fitted is None else fitted.params,
        "scaled": {}
        if fitted is None
        else {"test": _at_temperature(test, _names(experiment, measured["test"]))},
        "teachers": experiment.teachers,
        **changed_labels(experiment),
    }


def _at_temperature(test: Evaluation, names: list[str]) -> dict[str, float]:
    """What the network scores once its logits are divided by the temperature: the figures that
    training logs.
    """
    figures = test.scaled.figures
    scores = {name: float(test.examples) if name == "n" else figures[name].value for name in names}
    return {**scores, "ece_floor": figures["ece"].floor}


def _names(experiment: Experiment, part: Measured) -> list[str]:
    """The figures that training logs, metric by metric, each one's in alphabetical order."""
    by_metric = (metric.value(part.sums[name]) for name, metric in experiment.metrics.items())
    return list(dict.fromkeys(name for figures in by_metric for name in sorted(figures)))


def _tell(log, summary: dict, paths: list[Path]) -> None:
    """The table of the run's figures, and what was written."""
    scaled = {f"{split} at T": scores for split, scores in summary["scaled"].items()}
    log.message("")
    log.message(as_text(figure_tables.splits(summary["splits"] | scaled)))
    log.message(_of_temperature(summary["temperature"]))
    log.message("\n".join(["wrote:", *(f"  {path}" for path in paths)]))


def _of_temperature(temperature: dict | None) -> str:
    if temperature is None:
        return "no temperature: nothing is held out to fit it on (config.data.holdout)"
    bound = ", a bound of the search: no temperature is best" if temperature["at_bound"] else ""
    return f"T: the temperature {temperature['temperature']:.4g}, fitted on the holdout{bound}"


def _true(experiment: Experiment, part: Measured) -> np.ndarray | None:
    """The rows of `data.test_table` that belong to the predictions, where there is one."""
    given = experiment.dataset.test.given or {}
    return given["table"][part.predictions["index"]] if "table" in given else None


def report(experiment: Experiment, folder: Path, test: Evaluation) -> list[Path]:
    """The figures of the test images with their intervals, as JSON and as a page to look at."""
    from ldl_jax.report import page  # matplotlib, which nothing else needs

    return [
        files.write_json(
            folder / workdir.EVALUATION, {"seed": test.seed, "suites": [test.to_json()]}
        ),
        page.write(
            folder / workdir.REPORT, [test], title=_name(experiment), facts=_facts(experiment)
        ),
    ]


def _facts(experiment: Experiment) -> dict[str, str]:
    """How the run was made, for its report."""
    versions = workdir.versions()
    return {
        "command": shlex.join(["python", *versions["command"]]),
        "seed": str(experiment.config.seed),
        "weights": experiment.config.eval.weights,
        "device": f"{versions['devices']} x {versions['device']} ({versions['backend']})",
        "python": versions["python"],
    }


def changed_labels(experiment: Experiment) -> dict[str, float]:
    """The share of the examples trained on whose label `data.labels_file` changed; nothing where
    there is none.
    """
    split = experiment.dataset.train
    if "label" not in split.given or split.labels is None:
        return {}
    return {
        "labels_changed": float((split.given["label"] != split.labels)[experiment.train].mean())
    }


def write_predictions(folder: Path, measured: dict[str, Measured], classes) -> list[Path]:
    """One predictions/<split>.npz each: logits f32[n, K], label i32[n], index i32[n], classes
    str[K].
    """
    names = np.array(classes, np.str_)
    return [
        files.write_npz(workdir.predictions_file(folder, split), **part.predictions, classes=names)
        for split, part in measured.items()
    ]


def draw(experiment: Experiment, folder: Path, test: Evaluation) -> list[Path]:
    """The reliability diagram of the test images, and the curves of the training."""
    from ldl_jax.report import run_plots  # matplotlib, which nothing else needs

    name, floor = _name(experiment), test.raw.figures["ece"].floor
    rows = workdir.read_log(folder / workdir.METRICS)
    return [
        run_plots.reliability(
            folder / workdir.RELIABILITY, test.raw.curves["reliability"], title=name, floor=floor
        ),
        run_plots.curves(folder / workdir.CURVES, rows, title=name),
    ]


def _name(experiment: Experiment) -> str:
    return f"{experiment.config.model.name} on {experiment.config.data.name}, labels: {experiment.config.labels.name}"
