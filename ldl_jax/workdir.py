"""The run directory: names of its files, its lock, checks before a start, weights and logs."""

import contextlib
import json
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax import config, files, mesh
from ldl_jax.contract import PyTree
from ldl_jax.errors import Busy

try:
    import fcntl
except ImportError:  # Windows, where a run directory cannot be locked
    fcntl = None

# Written at the start of a run.
LOCK = ".lock"
CONFIG = "config.json"
NETWORK = "network.json"  # the network spec
VERSIONS = "versions.json"
SPLIT = "split.json"  # how the test images were drawn, if the data have no test split
# Written during training.
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
EVENTS = "tensorboard"
PROFILE = "profile"
BEST = "best.npz"
SPENT = "spent.txt"  # seconds spent on a run of a study
# Written at the end of a run.
WEIGHTS = "model.npz"
PREDICTIONS = "predictions"  # a folder: see `predictions_file`
CALIBRATION = "calibration.json"
RELIABILITY = "reliability.png"
CURVES = "curves.png"
EVALUATION = "evaluation.json"
REPORT = "report.html"
SUMMARY = "summary.json"
MEMORY = "memory"  # a folder, if asked for: see `training.recording`
PREDICTED = "predicted"  # a folder: predictions for further images, made after the run

PACKAGES = (
    "ldl-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ml-collections",
    "chex",
    "numpy",
)
EXTENDABLE = ("train.epochs", "train.max_steps")
IMAGES = "data.root"  # the input with the images


def predictions_file(workdir, split: str = "test") -> Path:
    """The file with the predictions for a split.

    Its arrays: logits f32[n, K], label i32[n], index i32[n], classes str[K].
    """
    return Path(workdir) / PREDICTIONS / f"{split}.npz"


def is_finished(workdir) -> bool:
    """Whether a run directory has the weights and the summary of a finished run."""
    return all((Path(workdir) / name).is_file() for name in (WEIGHTS, SUMMARY))


def is_measured(workdir) -> bool:
    """Whether a run directory has a summary and test predictions, of a finished run or a partial one."""
    return (Path(workdir) / SUMMARY).is_file() and predictions_file(workdir).is_file()


@contextlib.contextmanager
def locked(workdir):
    """Lock a run directory for this process, creating it if necessary.

    Raises ValueError if it cannot be written, Busy if another process has locked it.
    """
    workdir = Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / LOCK).touch()
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir} cannot be written: {error.strerror or error}"
        ) from None
    with open(workdir / LOCK, "a") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"--workdir {workdir} is in use by another process; wait for it or pass another --workdir"
            ) from None
        except OSError:
            # Some network file systems have no locks; running without one is better than failing.
            pass
        yield


def check(
    workdir, c: ConfigDict, spec: dict, inputs: dict[str, str], *, extend: bool, saved: bool
) -> None:
    """Check that `workdir` is free or holds this very run; writes nothing.

    inputs: {'<field> = <path>': SHA-256} of what the run reads (images, teachers, labels, tables).
    extend: allow the run to be longer than before. saved: whether there is a checkpoint. Raises
    ValueError if the directory holds a run with a different config (naming the fields), imported
    weights, or a finished run without checkpoints.
    """
    workdir = Path(workdir)
    before = read_config(workdir)
    if before is None:
        return
    if "imported" in read_json(workdir / NETWORK):
        raise ValueError(
            f"--workdir {workdir} holds imported weights; pass another --workdir to train"
        )
    _check_config(workdir, before, c, extend=extend)
    check_data(workdir, spec, inputs)
    # Without a checkpoint, the run would start again from step 0 and overwrite the finished one.
    if not saved and is_finished(workdir):
        step = read_weights(workdir / WEIGHTS)[1]["step"]
        raise ValueError(
            f"--workdir {workdir} holds a run that finished at step {step} and has no checkpoints left; evaluate it "
            "with --mode=eval, or pass another --workdir"
        )


def claim(workdir, c: ConfigDict, spec: dict, inputs: dict[str, str], *, total: int) -> None:
    """Make `workdir`, after `check`, the directory of this run of `total` steps; record the start.

    If it holds the results of a shorter run, its weights and summary are deleted. Raises ValueError
    if the directory cannot be written.
    """
    workdir = Path(workdir)
    history = read_json(workdir / VERSIONS).get("starts", []) if (workdir / CONFIG).exists() else []
    try:
        # An extended run is not finished before its new end; `is_finished` looks at these files.
        if _is_shorter(workdir, total):
            for name in (SUMMARY, WEIGHTS):
                (workdir / name).unlink(missing_ok=True)
        # The config comes last: a directory without one counts as free.
        files.write_json(workdir / NETWORK, spec)
        starts = [*history, {**versions(), "inputs": inputs}]
        files.write_json(workdir / VERSIONS, {"starts": starts})
        files.write(workdir / CONFIG, config.to_json(c) + "\n")
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir} cannot be written: {error.strerror or error}"
        ) from None


def _is_shorter(workdir: Path, total: int) -> bool:
    """Whether the weights were trained for fewer than `total` steps, or are unreadable."""
    try:
        return (workdir / WEIGHTS).is_file() and read_weights(workdir / WEIGHTS)[1]["step"] < total
    except (ValueError, KeyError):
        return True


def check_data(workdir, spec: dict, inputs: dict[str, str]) -> list[dict]:
    """Check that a run directory was made with this data and these teachers; returns its starts.

    spec: the network spec; its `model` block is checked with the config. Imported weights may have
    any number of examples and, if imported without a data set, any class names. Raises ValueError
    naming what differs.
    """
    stored = read_json(Path(workdir) / NETWORK)
    history = read_json(Path(workdir) / VERSIONS).get("starts", [])
    imported = "imported" in stored
    unchecked = {"model"}
    if imported:
        unchecked.add("num_examples")
        if not stored["num_examples"]:
            unchecked.add("classes")
    for name in spec:
        if name not in unchecked and stored.get(name) != spec[name]:
            origin = "imported for" if imported else "started with"
            raise ValueError(
                f"--workdir {workdir} was {origin} other data: {name} was {_short(stored.get(name))}, is now "
                f"{_short(spec[name])}; use the same data or another --workdir"
            )

    # Imported weights were trained elsewhere, so there are no inputs to compare with.
    known = history[-1]["inputs"] if history and not imported else inputs
    before = _by_field(known)
    now = _by_field(inputs)
    # Older versions did not record the images of data.name='arrays'.
    before.setdefault(IMAGES, now.get(IMAGES))
    if any(before.get(field) != now.get(field) for field in {**before, **now}):
        raise ValueError(
            f"--workdir {workdir} was started with {list(known)}; the contents of {list(inputs)} are different, so "
            "use the original ones or pass another --workdir"
        )
    return history


def _short(value) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _by_field(inputs: dict[str, str]) -> dict[str, str]:
    """{field: SHA-256}, without the paths: a file may move, but its contents must stay the same."""
    return {name.partition(" = ")[0]: digest for name, digest in inputs.items()}


def _check_config(workdir, before: ConfigDict, c: ConfigDict, *, extend: bool) -> None:
    """Raise ValueError if the config of a run is a different one; with `extend` it may be longer."""
    changed = config.differences(before, c)
    durations = {name: values for name, values in changed.items() if name in EXTENDABLE}
    if extend:
        for name, (was, now) in durations.items():
            if was is not None and now is not None and now < was:
                raise ValueError(
                    f"--extend can only make a run longer: config.{name} was {was}, got {now}"
                )
            del changed[name]
    if changed:
        # Suggest --extend only if it was not passed already.
        way_out = "--extend to make the run longer, or " if durations and not extend else ""
        raise ValueError(
            f"--workdir {workdir} already holds a run with a different config: "
            f"{sentence(config.telling(changed))}; pass {way_out}--workdir="
            f"{config.beside(workdir, changed)} to start a new run"
        )


def sentence(changed: dict[str, tuple]) -> str:
    """The fields that differ between two configs, with both values, as text."""
    return "; ".join(f"{name} was {was!r}, is now {now!r}" for name, (was, now) in changed.items())


def read_json(path) -> dict:
    """The contents of a JSON file of a run directory. Raises ValueError if it cannot be read."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise ValueError(f"{path} is not valid JSON; it was edited or damaged") from None


def read_config(workdir) -> ConfigDict | None:
    """The config of a run directory, or None if there is none.

    Raises ValueError if the file is not a config.
    """
    path = Path(workdir) / CONFIG
    if not path.exists():
        return None
    try:
        return config.from_json(path.read_text())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as a config ({error})") from None


def versions() -> dict:
    """The environment of a start: package versions, devices, machine and command."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "python": platform.python_version(),
        "packages": packages,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "processes": mesh.processes(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "platform": platform.platform(terse=True),
        "command": sys.argv,
    }


def save_weights(path, variables: PyTree, **notes: float) -> Path:
    """Write a network's variables, and numbers that belong to them, as one .npz file."""
    leaves = traverse_util.flatten_dict({"notes": notes, **variables}, sep="/")
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    return files.write_npz(path, **arrays)


def read_weights(path) -> tuple[PyTree, dict[str, float]]:
    """The variables and notes of `save_weights`. Raises ValueError if the file is damaged."""
    tree = traverse_util.unflatten_dict(files.read_npz(path, "the weights of a network"), sep="/")
    notes = {name: value.item() for name, value in tree.pop("notes", {}).items()}
    # A network without parameters or statistics leaves no leaf behind in the file.
    variables = {"params": tree.get("params", {}), "batch_stats": tree.get("batch_stats", {})}
    return variables, notes


def read_log(path) -> list[dict]:
    """The rows of metrics.jsonl or timing.jsonl, with nulls as NaN.

    A last line that was only partly written is ignored. Raises ValueError for any other broken line.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parse_row(line)
        if row is not None:
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        # A complete line ends in a newline, so at least "" follows it.
        elif line and number < len(lines):
            raise ValueError(
                f"{path}, line {number}: not a JSON object with a 'step': {line[:80]!r}"
            )
    return rows


def cut_log_back(workdir, step: int) -> None:
    """Remove the rows after `step` and broken lines from a run's logs; other lines stay unchanged."""
    for path in (Path(workdir) / METRICS, Path(workdir) / TIMING):
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        valid_lines = []
        for line in text.split("\n"):
            row = _parse_row(line)
            if row is not None and row["step"] <= step:
                valid_lines.append(line + "\n")
        shortened = "".join(valid_lines)
        if shortened != text:
            files.write(path, shortened)


def _parse_row(line: str) -> dict | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None
