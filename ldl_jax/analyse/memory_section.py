"""The section of the page about label memories."""

from collections.abc import Sequence

import numpy as np

from ldl_jax.analyse import memory
from ldl_jax.analyse.networks import Snapshot, read_images
from ldl_jax.analyse.runs import Run
from ldl_jax.analyse.sections import Section, text
from ldl_jax.report import analysis_plots, html
from ldl_jax.report.tables import simple

SHOWN = 8  # images whose rows moved most
TOP = 2  # classes shown of a row
PERCENTILES = (10, 50, 90)
CAPTION = (
    "Each row of a memory is the distribution that an image is trained with, beside its label. The "
    "matrices show the mean row by label, in per cent, on a scale of the entries off the diagonal; "
    "the entropies are the median over rows, with a band from the 10th to the 90th percentile. Top: "
    "share of the rows whose largest entry is the label; entry: the label's mean entry. Published "
    "labels are those of the data set; given labels and votes are those of data.labels_file and "
    "data.train_table, if set."
)
MOVED = (
    "The images whose rows moved farthest in all, in total variation from one evaluation to the "
    "next: those on which the network changed its mind most often. Below each, the likeliest classes "
    "half-way and at the end."
)
NONE = (
    "None of these runs recorded a label memory. Sources with one are online and classwise; train "
    "with --config.eval.memory_examples=N, or, while checkpoints are kept, add the last state by "
    "python -m ldl_jax.main --workdir=RUN --mode=eval --config.eval.memory_examples=N."
)


def label_memory(runs: Sequence[Run]) -> Section:
    """Matrices, entropies by epoch, agreement with labels, and the rows that moved most."""
    matrices = []
    bands = {}
    rows = []
    moving = []
    numbers = {}
    for run in runs:
        for entry in run.snapshots[-1].rows if run.snapshots else ():
            states = [s for s in run.snapshots if entry in s.rows]
            name = run.name if entry in ("rows", "table") else f"{run.name}, {entry}"
            found = _measured(run, states, entry)
            numbers[name] = found
            rows.append(_line(name, found))
            bands[name] = _band(states, entry)
            classes = run.network.spec["classes"]
            figure = analysis_plots.matrix(
                np.array(found["matrix"]), classes, title=name, axis="mean entry, %"
            )
            matrices.append(html.plot(f"memory-{len(matrices)}", figure, f"{name}: mean rows"))
            if not _by_class(entry):
                moving += _moved(run, states, entry, name, len(moving))
    if not rows:
        return html.section("Label memory", html.text(NONE, "quiet")), {}
    head = ["", "rows", "entropy (first)", "entropy (last)", "top (published, %)"]
    head += ["entry (published, %)", "top (given, %)", "top (votes, %)", "KL (votes)"]
    head += ["entropies (correlation)"]
    entropies = analysis_plots.spread_by_epoch(bands, label="entropy of the rows, nat")
    drawn = [*matrices, html.plot("memory-entropy", entropies, "entropy of the rows by epoch")]
    parts = [html.text(CAPTION, "quiet"), html.many(drawn), html.table(simple(head, rows))]
    return html.section("Label memory", *parts, *moving), numbers


def _by_class(entry: str) -> bool:
    return entry.split("/")[-1] == "table"


def _measured(run: Run, states: Sequence[Snapshot], entry: str) -> dict:
    """The numbers of a memory."""
    last = states[-1]
    after = last.rows[entry]
    classes = after.shape[1]
    found: dict = {"rows": int((~np.isnan(after[:, 0])).sum())}
    first = next((s for s in states if not np.isnan(s.rows[entry]).all()), last)
    for name, state in (("first", first), ("last", last)):
        found[f"entropy_{name}"] = _mean(memory.entropy(state.rows[entry]))
        found[f"epoch_{name}"] = state.epoch
    if _by_class(entry):
        found["matrix"] = after
        found["published"] = memory.agreement(after, np.arange(classes))
        return found
    published = _published(run, last.index)
    found["matrix"] = memory.class_matrix(after, published, classes)
    found["published"] = memory.agreement(after, published)
    given = run.dataset.train.given or {}
    if "label" in given:
        found["given"] = memory.agreement(after, given["label"][last.index])
    if "table" in given:
        found["votes"] = memory.agreement_with_votes(after, given["table"][last.index])
    return found


def _mean(values: np.ndarray) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def _published(run: Run, index: np.ndarray) -> np.ndarray:
    labels = run.dataset.train.labels
    if labels is not None:
        return np.asarray(labels[index], np.int64)
    return read_images(run.dataset.train, index)[1]


def _line(name: str, found: dict) -> list[str]:
    votes = found.get("votes", {})
    nothing = float("nan")
    return [
        name,
        f"{found['rows']:,}",
        text(found["entropy_first"]),
        text(found["entropy_last"]),
        text(found["published"]["top"], 1, 100),
        text(found["published"]["probability"], 1, 100),
        text(found.get("given", {}).get("top", nothing), 1, 100),
        text(votes.get("top", nothing), 1, 100),
        text(votes.get("kl", nothing)),
        text(votes.get("entropies", nothing)),
    ]


def _band(states: Sequence[Snapshot], entry: str) -> tuple:
    """(epochs, low, median, high) of the entropies of the rows that are written."""
    epochs = []
    bands = []
    for state in states:
        values = memory.entropy(state.rows[entry])
        values = values[~np.isnan(values)]
        if len(values):
            epochs.append(state.epoch)
            bands.append(np.percentile(values, PERCENTILES))
    low, median, high = np.array(bands, float).reshape(-1, 3).T
    return np.array(epochs), low, median, high


def _moved(run: Run, states: Sequence[Snapshot], entry: str, name: str, number: int) -> list[str]:
    """The images whose rows moved most on the way from snapshot to snapshot."""
    last = states[-1]
    half = states[len(states) // 2]
    distance = memory.path([state.rows[entry] for state in states])
    most = np.argsort(-distance, kind="stable")[:SHOWN]
    most = most[distance[most] > 0]
    if not len(most):
        return []
    images, labels = read_images(run.dataset.train, last.index[most])
    classes = run.network.spec["classes"]
    texts = []
    for row, label in zip(most, labels, strict=True):
        lines = [f"label {classes[label]}"]
        lines += [f"epoch {half.epoch:g}: {_top(half.rows[entry][row], classes)}"]
        lines += [f"epoch {last.epoch:g}: {_top(last.rows[entry][row], classes)}"]
        lines += [f"moved {distance[row]:.2f} in all"]
        texts.append("\n".join(lines))
    figure = analysis_plots.images(list(images), texts)
    heading = html.heading(f"Rows that moved most, {name}") + html.text(MOVED, "quiet")
    label = f"{name}: images whose rows moved most"
    return [heading, html.plot(f"moved-{number}", figure, label, "full")]


def _top(row: np.ndarray, classes: Sequence[str]) -> str:
    """The likeliest classes of a distribution f[K]."""
    order = np.argsort(-row, kind="stable")[:TOP]
    return ", ".join(f"{analysis_plots.short(classes[k], 12)} {row[k]:.2f}" for k in order)
