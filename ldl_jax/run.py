"""The run directory: what a run keeps of its settings, its versions and its weights."""

import json
import os
import platform
import shlex
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax import config, files
from ldl_jax.contract import PyTree

CONFIG, NETWORK, VERSIONS, SUMMARY = "config.json", "network.json", "versions.json", "summary.json"
WEIGHTS, BEST = "model.npz", "best.npz"
PACKAGES = ("ldl-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "chex", "numpy")
EXTENDABLE = ("train.epochs", "train.max_steps")


def network_sources(c: ConfigDict, dataset, mean, std) -> dict:
    """What a network is made from, as JSON values: classes, image shape, pixel statistics, and its config block."""
    name = c.model.name
    options = c.model.options if "." in name else c.model[name]
    model = {"name": name, "dtype": c.model.dtype, "options": options.to_dict()}
    return json.loads(
        json.dumps(
            {
                "num_classes": len(dataset.classes), "classes": list(dataset.classes),
                "shape": list(dataset.train.shape), "mean": list(mean), "std": list(std), "model": model,
            }
        )
    )  # fmt: skip


def claim(workdir, c: ConfigDict, sources: dict, inputs: dict[str, str], *, extend: bool) -> None:
    """Make `workdir` the directory of this config, or see that it is already.

    inputs: SHA-256 of the teachers' weights and of the files of labels and tables, by their paths. With `extend` the
    run may be longer than the one before; the change is recorded. Raises ValueError where the directory holds another
    run, naming the fields that differ, or imported weights, or cannot be written.
    """
    workdir = Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files.write(workdir / ".writable", "")
        (workdir / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"--workdir {workdir} cannot be written: {error.strerror or error}") from None
    before = read_config(workdir)
    if (workdir / NETWORK).exists() and "imported" in _read_json(workdir / NETWORK):
        raise ValueError(f"--workdir {workdir} holds imported weights; allowed for training is another directory")
    history = []
    if before is not None:
        history = _read_json(workdir / VERSIONS).get("starts", [])
        changed = config.differences(before, c)
        longer = {name: both for name, both in changed.items() if name in EXTENDABLE}
        if extend:
            changed = {name: both for name, both in changed.items() if name not in longer}
        if changed:
            hint = " (a longer run goes on with --extend)" if longer and not extend else ""
            raise ValueError(
                f"--workdir {workdir} holds another run: {sentence(changed)}{hint}; allowed is the same config"
            )
        before = history[-1]["inputs"] if history else inputs
        if list(before.values()) != list(inputs.values()):
            raise ValueError(
                f"--workdir {workdir} was begun with {list(before)} (teachers, labels and tables) and what they held "
                f"then; {list(inputs)} hold something else, and allowed is the same"
            )
    files.write_json(workdir / VERSIONS, {"starts": [*history, {**versions(), "inputs": inputs}]})
    files.write_json(workdir / NETWORK, sources)
    files.write(workdir / CONFIG, config.to_json(c) + "\n")


def sentence(changed: dict[str, tuple]) -> str:
    """The fields in which two configs differ, as text."""
    return "; ".join(f"{name} was {was!r}, is {now!r}" for name, (was, now) in changed.items())


def _read_json(path) -> dict:
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON; it was changed since the run wrote it") from None


def read_config(workdir) -> ConfigDict | None:
    """The config of a run directory; None where there is none. Raises ValueError for a file that is not JSON."""
    path = Path(workdir) / CONFIG
    if not path.exists():
        return None
    try:
        return config.from_json(path.read_text())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as a config ({error})") from None


def versions() -> dict:
    """What ran: versions of the packages, the machine, the command."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    device = jax.devices()[0]
    return {
        "python": platform.python_version(), "packages": found, "backend": jax.default_backend(),
        "devices": jax.device_count(), "device": device.device_kind, "cores": os.cpu_count(),
        "platform": platform.platform(terse=True), "command": sys.argv,
    }  # fmt: skip


def save_weights(path, variables: PyTree, **notes: float) -> Path:
    """Write a network's variables, and numbers to remember with them, as one .npz file."""
    flat = traverse_util.flatten_dict({"notes": notes, **variables}, sep="/")
    return files.write_npz(path, **{name: np.asarray(leaf) for name, leaf in flat.items()})


def read_weights(path) -> tuple[PyTree, dict[str, float]]:
    """The variables and notes of `save_weights`. Raises ValueError where the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            tree = traverse_util.unflatten_dict({name: file[name] for name in file.files}, sep="/")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read as the weights of a network ({error})") from None
    notes = {name: value.item() for name, value in tree.pop("notes", {}).items()}
    return {"params": tree.get("params", {}), "batch_stats": tree.get("batch_stats", {})}, notes


def load_weights(path, made_from: str = "") -> tuple[dict, PyTree, str]:
    """(sources, variables, SHA-256 of the weights' file) of a finished run.

    Raises ValueError where the run is missing or unfinished, with the command that makes or finishes it: that of its
    last start, or one with the arguments `made_from`.
    """
    path = Path(path)
    weights = path / WEIGHTS
    if not (weights.is_file() and (path / NETWORK).is_file()):
        state = "is not finished" if (path / CONFIG).is_file() else "is no run directory"
        arguments = _last_arguments(path) or f"{made_from or '--config=CONFIG'} --workdir={path}"
        raise ValueError(f"{path} {state}: it has no {WEIGHTS}; make it with python -m ldl_jax.main {arguments}")
    return _read_json(path / NETWORK), read_weights(weights)[0], files.sha256(weights)


def _last_arguments(path: Path) -> str:
    """The arguments of the command that last worked on a run directory; '' where that is not known."""
    try:
        command = _read_json(path / VERSIONS)["starts"][-1]["command"]
    except (ValueError, KeyError, IndexError):
        return ""
    return shlex.join(command[1:]) if command and command[0].endswith("main.py") else ""
