"""Train with two versions of the package, in one environment, and compare every number bitwise.

python tests/golden/beside.py OLD NEW   (two checkouts; the environment's python runs both)

Each case is trained by OLD and by NEW, and OLD's run is cut back to a checkpoint and taken to the
end by NEW. Compared are metrics.jsonl, weights, predictions, the calibrator, and every leaf of the
last checkpoint, bitwise; and the figures of summary.json and evaluation.json, to FIGURES. The exit
status is 1 where a number differs.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CONFIG = Path(__file__).parent / "digits.py"
CASES = {
    "hard": (),
    "online": ("labels.name=online", "labels.online.write=clean", "mixing.name=cutmix", "optimizer.ema=0.9"),
    "classwise": ("labels.name=classwise", "labels.classwise.write=clean", "mixing.name=ricap",
                  "optimizer.accumulate=2"),
    "mean_teacher": ("labels.name=mean_teacher", "optimizer.clip_norm=1.0"),
    "peer": ("labels.name=peer", "optimizer.nesterov=True"),
    "kd": ("labels.name=blend", "labels.blend.parts=('hard','teacher')", "labels.blend.weights=(0.1,0.9)",
           "labels.teacher.soft=True", "labels.teacher.temperature=4.0", "teachers=('hard',)"),
    "hint": ("auxiliary.names=('hint',)", "teachers=('hard',)", "mixing.name=mixup"),
    "jsd": ("auxiliary.names=('jsd',)", "train.on_nonfinite=skip_step"),
    "folds": ("data.folds=5", "data.fold=2", "data.examples=1000", "model.dtype=bfloat16", "labels.name=smooth"),
    "chunks": ("train.chunk_steps=4", "data.resident=False", "labels.name=online"),
}  # fmt: skip
# relative: a figure may be summed in float32 by one version and in float64 by the other
FIGURES = 1e-6
COMMON = ("model.dtype=float32", "data.holdout=100", "eval.report=True", "train.max_steps=33")


def train(tree: Path, folder: Path, name: str, environment: dict) -> None:
    """Train a case, or take it to its end, with the package of `tree`; runs lie below `folder`."""
    fields = {field.partition("=")[0]: field for field in (*COMMON, *CASES[name])}
    words = [
        f"--config={CONFIG}",
        f"--workdir={name}",
        *(f"--config.{field}" for field in fields.values()),
    ]
    subprocess.run(
        [sys.executable, "-m", "ldl_jax.main", *words], cwd=folder, env={**environment, "PYTHONPATH": str(tree)},
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def numbers(run: Path) -> dict[str, np.ndarray]:
    """Everything that a run left, by name."""
    import orbax.checkpoint as ocp
    from jax.tree_util import keystr, tree_flatten_with_path

    everything = {}
    for path in sorted([*run.glob("*.npz"), *run.glob("predictions/*.npz")]):
        with np.load(path, allow_pickle=False) as file:
            everything |= {
                f"{path.relative_to(run)}:{member}": file[member] for member in file.files
            }
    last = max(
        (path for path in (run / "checkpoints").iterdir() if path.is_dir()),
        key=lambda path: int(path.name),
    )
    state = ocp.StandardCheckpointer().restore((last / "state").absolute())
    everything |= {
        keystr(path): np.asarray(leaf) for path, leaf in tree_flatten_with_path(state)[0]
    }
    for name in ("metrics.jsonl", "calibration.json"):
        everything[name] = np.array((run / name).read_text())
    return everything


def figures(run: Path) -> dict[str, object]:
    """Every value of the results, by its place in them."""
    values = {}

    def walk(place, value):
        if isinstance(value, dict | list):
            for name, part in value.items() if isinstance(value, dict) else enumerate(value):
                walk(f"{place}.{name}", part)
        else:
            values[place] = value

    for name in ("summary.json", "evaluation.json"):
        value = json.loads((run / name).read_text())
        value.pop("digests", None)  # of files that are compared one by one
        walk(name, value)
    return values


def unlike(one, other) -> bool:
    """Whether two figures differ by more than rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return not math.isclose(one, other, rel_tol=FIGURES, abs_tol=1e-7)  # fractions
    return one != other


def differences(one: Path, other: Path) -> list[str]:
    """The names of all that differs between two runs."""
    here, there = numbers(one), numbers(other)
    unequal = [name for name in {**here, **there} if name not in here or name not in there]
    unequal += [
        name for name in here if name in there and here[name].tobytes() != there[name].tobytes()
    ]
    ours, theirs = figures(one), figures(other)
    unequal += [name for name in {**ours, **theirs} if name not in ours or name not in theirs]
    return unequal + [name for name in ours if name in theirs and unlike(ours[name], theirs[name])]


def cut_back(run: Path) -> None:
    """Make a finished run one that was killed after its last checkpoint but one."""
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.is_dir())
    shutil.rmtree(run / "checkpoints" / str(steps[-1]))
    for name in (f"checkpoints/{steps[-1]}.sha256", "model.npz", "summary.json"):
        (run / name).unlink()


def main(old: Path, new: Path) -> int:
    """Compare all cases; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(work / "cache")}
        for part in ("old", "new", "resumed"):
            (work / part).mkdir()
        failed = []
        for name in CASES:
            train(old, work / "old", name, environment)
            train(new, work / "new", name, environment)
            shutil.copytree(work / "old" / name, work / "resumed" / name)
            if not (work / "resumed" / "hard").exists():
                shutil.copytree(work / "old" / "hard", work / "resumed" / "hard")
            cut_back(work / "resumed" / name)
            train(new, work / "resumed", name, environment)
            for part in ("new", "resumed"):
                unequal = differences(work / "old" / name, work / part / name)
                count = len(numbers(work / "old" / name))
                print(
                    json.dumps(
                        {"case": name, "by": part, "compared": count, "different": unequal[:5]}
                    ),
                    flush=True,
                )
                failed += unequal
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(*(Path(word).resolve() for word in sys.argv[1:3])))
