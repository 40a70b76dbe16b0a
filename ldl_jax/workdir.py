"""The run directory: the names of its files, who may write to it, what it keeps of settings,
weights and the log.
"""

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
except ImportError:  # Windows: two processes in one directory are then not told apart
    fcntl = None

# Written at the start.
LOCK = ".lock"
CONFIG = "config.json"
NETWORK = "network.json"  # the network spec
VERSIONS = "versions.json"
# Written while training.
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
EVENTS = "tensorboard"
PROFILE = "profile"
BEST = "best.npz"
SPENT = "spent.txt"  # seconds, of a study's run
# Written at the end.
WEIGHTS = "model.npz"
PREDICTIONS = "predictions"  # a folder: see `predictions_file`
CALIBRATION = "calibration.json"
RELIABILITY = "reliability.png"
CURVES = "curves.png"
EVALUATION = "evaluation.json"
REPORT = "report.html"
SUMMARY = "summary.json"
PREDICTED = "predicted"  # a folder: of images that were predicted afterwards

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
IMAGES = "data.root"  # the input that the images come from


def predictions_file(workdir, split: str = "test") -> Path:
    """The file of a split's predictions: logits f32[n, K], label i32[n], index i32[n], classes
    str[K].
    """
    return Path(workdir) / PREDICTIONS / f"{split}.npz"


def is_finished(workdir) -> bool:
    """Whether a run directory has the weights and the summary of a run that came to its end."""
    return all((Path(workdir) / name).is_file() for name in (WEIGHTS, SUMMARY))


def is_measured(workdir) -> bool:
    """Whether a run directory has the summary and the test predictions of a run, which may have
    ended half-way.
    """
    return (Path(workdir) / SUMMARY).is_file() and predictions_file(workdir).is_file()


@contextlib.contextmanager
def locked(workdir):
    """Hold a run directory for this process, made where it is not there.

    Raises ValueError where it cannot be written, Busy where another process holds it.
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
                f"--workdir {workdir} is in use by another process; allowed is one at a time"
            ) from None
        except OSError:  # a file system without locks: two processes are then not told apart
            pass
        yield


def check(
    workdir, c: ConfigDict, spec: dict, inputs: dict[str, str], *, extend: bool, saved: bool
) -> None:
    """See that `workdir` is free for a run or holds this one; nothing is written.

    inputs: SHA-256 of what a run reads (images, teachers, labels, tables), by '<field> = <path>'.
    With `extend` the run may be longer than the one before. saved: whether there is a checkpoint.
    Raises ValueError where the directory holds another run, naming the fields that differ, imported
    weights, or a finished run without a checkpoint.
    """
    workdir = Path(workdir)
    before = read_config(workdir)
    if before is None:
        return
    if "imported" in read_json(workdir / NETWORK):
        raise ValueError(
            f"--workdir {workdir} holds imported weights; allowed for training is another directory"
        )
    _check_config(workdir, before, c, extend=extend)
    check_data(workdir, spec, inputs)
    if not saved and is_finished(workdir):
        step = read_weights(workdir / WEIGHTS)[1]["step"]
        raise ValueError(
            f"--workdir {workdir} holds a run that is finished at step {step}, and its checkpoints are gone; allowed "
            "are --mode=eval, or another --workdir"
        )


def claim(workdir, c: ConfigDict, spec: dict, inputs: dict[str, str], *, total: int) -> None:
    """Make `workdir`, which was checked, the directory of this run of `total` steps, and record the
    start.

    The weights and summary of a run that was shorter are removed: until the longer one ends, it is
    not finished. Raises ValueError where the directory cannot be written.
    """
    workdir = Path(workdir)
    history = read_json(workdir / VERSIONS).get("starts", []) if (workdir / CONFIG).exists() else []
    try:
        for name in (SUMMARY, WEIGHTS) if _is_shorter(workdir, total) else ():
            (workdir / name).unlink(missing_ok=True)
        files.write_json(workdir / NETWORK, spec)
        files.write_json(
            workdir / VERSIONS, {"starts": [*history, {**versions(), "inputs": inputs}]}
        )
        files.write(workdir / CONFIG, config.to_json(c) + "\n")
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir} cannot be written: {error.strerror or error}"
        ) from None


def _is_shorter(workdir: Path, total: int) -> bool:
    """Whether there are weights of fewer steps, or such as cannot be read, which are of no use
    either.
    """
    try:
        return (workdir / WEIGHTS).is_file() and read_weights(workdir / WEIGHTS)[1]["step"] < total
    except (ValueError, KeyError):
        return True


def check_data(workdir, spec: dict, inputs: dict[str, str]) -> list[dict]:
    """Raise ValueError where a run directory is of other data or teachers than these; returns its
    starts so far.

    Imported weights were not trained here: of them the number of examples may differ, and the
    classes' names where they were imported without a data set. The `model` block of a network is
    the config's.
    """
    there = read_json(Path(workdir) / NETWORK)
    history = read_json(Path(workdir) / VERSIONS).get("starts", [])
    imported = "imported" in there
    free = {"model"}
    if imported:
        free |= {"num_examples"} if there["num_examples"] else {"num_examples", "classes"}
    for name in spec:
        if name not in free and there.get(name) != spec[name]:
            raise ValueError(
                f"--workdir {workdir} was {'imported for' if imported else 'begun with'} other data: {name} was "
                f"{_short(there.get(name))}, is {_short(spec[name])}; allowed is the same"
            )
    known = history[-1]["inputs"] if history and not imported else inputs
    before = _by_field(known)
    now = _by_field(inputs)
    before.setdefault(IMAGES, now.get(IMAGES))  # runs of one's own arrays did not note it once
    if any(before.get(field) != now.get(field) for field in {**before, **now}):
        raise ValueError(
            f"--workdir {workdir} was begun with {list(known)} and what they held then; {list(inputs)} hold "
            "something else, and allowed is the same"
        )
    return history


def _short(value) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _by_field(inputs: dict[str, str]) -> dict[str, str]:
    """The same without paths: where a file lies may change, what it holds may not."""
    return {name.partition(" = ")[0]: digest for name, digest in inputs.items()}


def _check_config(workdir, before: ConfigDict, c: ConfigDict, *, extend: bool) -> None:
    """Raise ValueError where a run's config is another one; with `extend` it may be longer."""
    changed = config.differences(before, c)
    longer = {name: both for name, both in changed.items() if name in EXTENDABLE}
    if extend:
        for name, (was, now) in longer.items():
            if was is not None and now is not None and now < was:
                raise ValueError(f"--extend: config.{name} was {was}, is {now}; allowed is more")
        changed = {name: both for name, both in changed.items() if name not in longer}
    if changed:
        hint = " (a longer run goes on with --extend)" if longer and not extend else ""
        raise ValueError(
            f"--workdir {workdir} holds another run: {sentence(changed)}{hint}; allowed is the same config"
        )


def sentence(changed: dict[str, tuple]) -> str:
    """The fields in which two configs differ, as text."""
    return "; ".join(f"{name} was {was!r}, is {now!r}" for name, (was, now) in changed.items())


def read_json(path) -> dict:
    """What a JSON file of a run directory holds. Raises ValueError where it cannot be read."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON; it was changed since the run wrote it") from None


def read_config(workdir) -> ConfigDict | None:
    """The config of a run directory; None where there is none. Raises ValueError for a file that is
    not JSON.
    """
    path = Path(workdir) / CONFIG
    if not path.exists():
        return None
    try:
        return config.from_json(path.read_text())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as a config ({error})") from None


def versions() -> dict:
    """What ran: versions of the packages, the machine, the command."""
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
    """Write a network's variables, and numbers to remember with them, as one .npz file."""
    flat = traverse_util.flatten_dict({"notes": notes, **variables}, sep="/")
    return files.write_npz(path, **{name: np.asarray(leaf) for name, leaf in flat.items()})


def read_weights(path) -> tuple[PyTree, dict[str, float]]:
    """The variables and notes of `save_weights`. Raises ValueError where the file is damaged."""
    tree = traverse_util.unflatten_dict(files.read_npz(path, "the weights of a network"), sep="/")
    notes = {name: value.item() for name, value in tree.pop("notes", {}).items()}
    return {"params": tree.get("params", {}), "batch_stats": tree.get("batch_stats", {})}, notes


def read_log(path) -> list[dict]:
    """The rows of metrics.jsonl or timing.jsonl, nulls as NaN; a half-written last line is ignored.

    Raises ValueError for a broken line anywhere else.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parse_row(line)
        if row is not None:
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        # a whole line ends in a newline, so something, if only "", follows it
        elif line and number < len(lines):
            raise ValueError(
                f"{path}, line {number}: not a JSON object with a 'step': {line[:80]!r}"
            )
    return rows


def cut_log_back(workdir, step: int) -> None:
    """Forget what a run recorded after `step`, and lines that are no whole JSON object; kept lines
    stay as they are.
    """
    for path in (Path(workdir) / METRICS, Path(workdir) / TIMING):
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        kept = []
        for line in text.split("\n"):
            row = _parse_row(line)
            if row is not None and row["step"] <= step:
                kept.append(line + "\n")
        if "".join(kept) != text:
            files.write(path, "".join(kept))


def _parse_row(line: str) -> dict | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None
