"""The results of a run: weights, predictions, plots, report and summary."""

import shlex
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from ldl_jax import escape, files, mesh, optimizer, workdir
from ldl_jax.calibrate import base as calibrators
from ldl_jax.calibrate import describe
from ldl_jax.config import trust
from ldl_jax.config.options import options_of
from ldl_jax.errors import warn
from ldl_jax.evaluation import evaluation, fitting
from ldl_jax.evaluation.fitting import Fit
from ldl_jax.evaluation.passes import reduce
from ldl_jax.evaluation.predictions import Predictions
from ldl_jax.report import figure_tables, recorded
from ldl_jax.report.conclusion import conclusions
from ldl_jax.report.result import Evaluation
from ldl_jax.report.tables import as_text
from ldl_jax.training.experiment import Experiment, own_metrics
from ldl_jax.training.measure import Measured
from ldl_jax.training.steps import TrainState
from ldl_jax.workdir import finished


def measured_weights(state: TrainState, weights: str) -> dict:
    """The network's variables to evaluate: weights is 'raw', or 'ema' for their average."""
    if weights == "ema":
        return state.ema
    params = optimizer.evaluated(state.opt_state, state.params)
    return {"params": params["model"], "batch_stats": state.batch_stats}


def write(
    experiment: Experiment, folder: Path, state: TrainState, measured: dict[str, Measured], log
) -> dict:
    """Write a run's results to `folder`, print their table, and return the summary.

    measured: each split's scores and predictions. The results replace earlier ones as a whole: see
    `finished.replacing`. The weights are written only if the run is finished, because a run with
    weights can be used as a teacher.
    """
    # All processes take part in fetching the weights; process 0 alone writes.
    weights = jax.device_get(measured_weights(state, experiment.config.eval.weights))
    if not mesh.is_main():
        return {}
    step = int(state.step)
    # One evaluation of the test images is the source of all results.
    settings = experiment.config.eval
    splits = {}
    for name, part in measured.items():
        splits[name] = _predictions(experiment, name, part)
    fitted = fit_calibrator(splits, settings, folder)
    test = evaluation.measure(
        splits["test"],
        fitted=fitted,
        human=_human_labels(experiment, measured["test"]),
        full=settings.report,
        metrics=own_metrics(experiment.config),
    )
    summary = _summary(experiment, step, measured, _floors(splits, test), fitted, test)
    rows = workdir.read_log(folder / workdir.METRICS)

    # Nothing that was there before is replaced until all of this is written.
    with finished.replacing(folder, optional=finished.OPTIONAL) as new:
        paths = []
        if summary["finished"]:
            paths.append(workdir.save_weights(new / workdir.WEIGHTS, weights, step=step))
        paths += write_predictions(new, measured, experiment.dataset.classes)
        if fitted:
            calibrators.save(
                new / workdir.CALIBRATION, fitted.calibrator, fitted.options, fitted.params
            )
            paths.append(new / workdir.CALIBRATION)
        paths += draw(experiment, new, test, rows)
        if settings.report:
            paths += report(experiment, new, test, rows)
        summary[finished.DIGESTS] = _digests(folder, new)
        paths.append(files.write_json(new / workdir.SUMMARY, summary))
    written = [folder / path.relative_to(new) for path in paths]
    # Without the intervals of the report, nothing can be said about chance.
    found = conclusions(test, "images") if settings.report else {}
    written.append(folder / workdir.METRICS)
    _print_results(log, summary, fitted, found, written)
    _print_baseline(log, summary, settings.baseline)
    return summary


def _digests(folder: Path, new: Path) -> dict[str, str]:
    """{file: digest} of what the summary was made of. Raises OSError if the run's network is gone."""
    network = finished.digests(folder, [workdir.NETWORK])
    names = [f"{workdir.PREDICTIONS}/{path.name}" for path in (new / workdir.PREDICTIONS).iterdir()]
    if (new / workdir.WEIGHTS).is_file():
        names.append(workdir.WEIGHTS)
    elif workdir.is_imported(folder):
        network |= finished.digests(folder, [workdir.WEIGHTS])
    return network | finished.digests(new, sorted(names))


def _predictions(experiment: Experiment, name: str, part: Measured) -> Predictions:
    """The predictions for a split, in the type of stored predictions."""
    arrays = part.predictions
    return Predictions(
        name,
        arrays["logits"],
        arrays["label"],
        "logits",
        arrays["index"],
        ("logits of this run",),
        tuple(experiment.dataset.classes),
    )


def fit_calibrator(
    splits: dict[str, Predictions], settings: ConfigDict, folder: Path
) -> Fit | None:
    """Fit the calibrator that `config.eval` names on the holdout; None without a holdout.

    folder: the run's, whose calibrator may be a module that this user trusts.
    """
    if "holdout" not in splits:
        return None
    name = settings.calibrator
    fitted = fitting.fit(splits["holdout"], name, options_of(settings, name))
    if "." in name:
        content, _ = trust.calibrator(fitted.calibrator, fitted.options)
        trust.remember(folder / workdir.CALIBRATION, content, [name])
    return fitted


def _floors(splits: dict[str, Predictions], test: Evaluation) -> dict[str, float]:
    """{split: noise floor of its ECE}."""
    # The floor of the test split is part of its evaluation, and slow to simulate again.
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
    """The contents of summary.json."""
    build = experiment.recipe.build
    splits = {}
    for name, part in measured.items():
        splits[name] = {**part.scores, "ece_floor": floors[name]}
    recalibrated = {}
    if fitted is not None:
        names = _score_names(experiment, measured["test"])
        recalibrated["test"] = _recalibrated_scores(test, names)
    # Studies and older versions read these keys; do not rename them.
    return {
        "data": experiment.config.data.name,
        "labels": experiment.config.labels.name,
        "step": step,
        "finished": step >= build.total_steps,
        "epochs": step / build.steps_per_epoch,
        "weights": experiment.config.eval.weights,
        "splits": splits,
        "temperature": _temperature(fitted),
        "scaled": recalibrated,
        "teachers": experiment.teachers,
        **changed_labels(experiment),
    }


def _recalibrated_scores(test: Evaluation, names: list[str]) -> dict[str, float]:
    """The scores that training logs, for the recalibrated predictions."""
    figures = test.scaled.figures
    scores = {}
    for name in names:
        scores[name] = float(test.examples) if name == "n" else figures[name].value
    scores["ece_floor"] = figures["ece"].floor
    return scores


def _score_names(experiment: Experiment, part: Measured) -> list[str]:
    """The scores that training logs: metric by metric, those of a metric in alphabetical order."""
    names = []
    for name, metric in experiment.metrics.items():
        names += sorted(metric.value(part.sums[name]))
    # Several metrics may report the same score, such as `n`.
    return list(dict.fromkeys(names))


def _temperature(fitted: Fit | None) -> dict | None:
    """The numbers of a fitted temperature; None without one."""
    return None if fitted is None or fitted.temperature is None else fitted.params


def _print_results(
    log, summary: dict, fitted: Fit | None, found: dict[str, str], paths: list[Path]
) -> None:
    """Print the table of the run's scores, the calibrator, what was found, and the files that were
    written.
    """
    log.message("")
    log.message(as_text(figure_tables.summary(summary)))
    log.message(_calibrator_text(fitted))
    for state, sentence in found.items():
        log.message(f"test, {state}: {sentence}")
    log.message("\n".join(["wrote:", *(f"  {escape.line(path)}" for path in paths)]))


def _print_baseline(log, summary: dict, name: str) -> None:
    """Print the run's scores beside those of the recorded runs that `eval.baseline` names."""
    try:
        baseline = recorded.read(name)
    except ValueError as error:  # it was there when the run began
        warn(str(error))
        return
    if baseline is not None:
        log.message("\n" + as_text(figure_tables.beside(summary, baseline)))


def _calibrator_text(fitted: Fit | None) -> str:
    """The calibrator that was fitted, and below it what to be wary of."""
    if fitted is None:
        return "no temperature was fitted, because there is no holdout (config.data.holdout is 0)"
    line = f"recalibrated by {fitted.calibrator}, fitted on the holdout"
    if fitted.temperature is not None:
        line += f": {describe.temperature(fitted.params)}"
    notes = describe.notes(fitted.calibrator, fitted.params, "the holdout")
    return "\n".join([line, *(f"note: {note}" for note in notes)])


def _human_labels(experiment: Experiment, part: Measured) -> np.ndarray | None:
    """The rows of `data.test_table` for the predictions f32[n, K]; None without a table."""
    given = experiment.dataset.test.given or {}
    return given["table"][part.predictions["index"]] if "table" in given else None


def report(experiment: Experiment, folder: Path, test: Evaluation, rows: list[dict]) -> list[Path]:
    """Write the evaluation of the test images with intervals, as JSON and as an HTML page.

    rows: of metrics.jsonl.
    """
    # matplotlib is slow to import, and runs without a report do not need it.
    from ldl_jax.report import page

    suites = {"seed": test.seed, "suites": [test.to_json()]}
    evaluation_path = files.write_json(folder / workdir.EVALUATION, suites)
    page_path = page.write(
        folder / workdir.REPORT,
        [test],
        title=_title(experiment),
        facts=_facts(experiment),
        rows=rows,
        noun="images",
    )
    return [evaluation_path, page_path]


def _facts(experiment: Experiment) -> dict[str, str]:
    """{name: value} of how the run was made, for its report."""
    versions = workdir.versions()
    return {
        "command": shlex.join(["python", *versions["command"]]),
        "seed": str(experiment.config.seed),
        "weights": experiment.config.eval.weights,
        "device": f"{versions['devices']} x {versions['device']} ({versions['backend']})",
        "python": versions["python"],
    }


def changed_labels(experiment: Experiment) -> dict[str, float]:
    """The share of training examples whose label `data.labels_file` or `data.noise` changes; {}
    without them.
    """
    split = experiment.dataset.train
    if "label" not in split.given or split.labels is None:
        return {}
    is_changed = split.given["label"] != split.labels
    return {"labels_changed": float(is_changed[experiment.train].mean())}


def write_predictions(folder: Path, measured: dict[str, Measured], classes) -> list[Path]:
    """Write predictions/<split>.npz for each split; returns the paths.

    The arrays are those of `workdir.predictions_file`.
    """
    names = np.array(classes, np.str_)
    paths = []
    for split, part in measured.items():
        path = workdir.predictions_file(folder, split)
        paths.append(files.write_npz(path, **part.predictions, classes=names))
    return paths


def draw(experiment: Experiment, folder: Path, test: Evaluation, rows: list[dict]) -> list[Path]:
    """Draw the reliability diagram of the test images and the training curves.

    rows: of metrics.jsonl.
    """
    # matplotlib is slow to import, and nothing else here needs it.
    from ldl_jax.report import run_plots

    title = _title(experiment)
    reliability = run_plots.reliability(
        folder / workdir.RELIABILITY,
        test.raw.curves["reliability"],
        title=title,
        floor=test.raw.figures["ece"].floor,
    )
    curves = run_plots.curves(folder / workdir.CURVES, rows, title=title)
    return [reliability, curves]


def _title(experiment: Experiment) -> str:
    c = experiment.config
    return f"{c.model.name} on {c.data.name}, labels: {c.labels.name}"
