"""Make the golden fixtures: what the commands write for fixed inputs, to hold later versions
against.

python tests/golden/make.py [--only=runs,study,imported,evaluation,comparison,texts]

A change that alters a figure on purpose runs it again, in a commit of its own that says why. The
commands run as the tests do (8 fake devices, float64), from this folder, so that no path of a
machine is written down.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ENVIRONMENT = {
    **os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "PYTHONPATH": str(ROOT),
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
}  # fmt: skip
RUNS = {
    "online": "online",
    "holdout": "classwise",
    "hard-0": "hard",
    "hard-1": "hard",
    "smooth-0": "smooth",
}
COMPARED = ("hard-0", "hard-1", "smooth-0")  # of which no weights or checkpoints are kept
DROPPED = ("*.png", "*.html", "tensorboard", "timing.jsonl", ".lock", "best.npz", "profile")
CASES = ("plain", "beside")  # of evaluation


def command(*words: str) -> str:
    """The output of a command of the package, run in this folder."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=HERE,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")
    return done.stdout


def clean(folder: Path) -> None:
    """Keep of a run what a later version has to read or write again; its command without this
    machine's paths.
    """
    for pattern in DROPPED:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    file = folder / "versions.json"
    versions = json.loads(file.read_text())
    for start in versions["starts"]:
        start["command"][0] = "ldl_jax/main.py"
        start["platform"] = "Linux"
    file.write_text(json.dumps(versions, indent=2) + "\n")
    if (folder / "checkpoints").is_dir():  # hundreds of small files as one
        with tarfile.open(folder / "checkpoints.tar.xz", "w:xz") as archive:
            archive.add(folder / "checkpoints", "checkpoints", filter=_anonymous)
        shutil.rmtree(folder / "checkpoints")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def runs() -> None:
    """Run directories: one with checkpoints and a label memory, one with a holdout and a report,
    three to compare.
    """
    for name, argument in RUNS.items():
        folder = HERE / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        seed = name.rpartition("-")[2] if name in COMPARED else "0"
        said = command(
            "ldl_jax.main",
            f"--config=digits.py:{argument}",
            f"--config.seed={seed}",
            f"--workdir=runs/{name}",
        )
        files = sorted(path.name for path in folder.iterdir())
        clean(folder)
        if name in COMPARED:
            (folder / "checkpoints.tar.xz").unlink()
            (folder / "model.npz").unlink()
        else:
            (folder / "files.txt").write_text("\n".join(files) + "\n")
            (folder / "output.txt").write_text(said.partition("\n\n")[2])


def study() -> None:
    """The cards of a small study with teachers, and what is collected from them."""
    folder = HERE / "study"
    shutil.rmtree(folder, ignore_errors=True)
    command("ldl_jax.study", "studies/golden.py", "--workdir=study", "--no-report")
    for name in ("runs", "logs", ".locks"):
        shutil.rmtree(folder / name)
    (folder / "output.txt").write_text(
        command("ldl_jax.study", "studies/golden.py", "--workdir=study", "--collect")
    )
    (folder / "commands.txt").write_text(
        command("ldl_jax.study", "studies/golden.py", "--workdir=study", "--print")
    )
    (folder / "report.html").unlink()


def imported() -> None:
    """A run of weights that came from a PyTorch state_dict, and its figures."""
    folder = HERE / "runs" / "imported"
    shutil.rmtree(folder, ignore_errors=True)
    command("ldl_jax.convert", "export", "runs/online", "state.safetensors")
    words = ("--config=digits.py:hard", "--workdir=runs/imported")
    command("ldl_jax.convert", "import", "state.safetensors", *words)
    command("ldl_jax.main", *words, "--mode=eval")
    clean(folder)


def inputs() -> None:
    """Fixed predictions of two networks, of a validation set, of examples of no class, and human
    votes.
    """
    draw, folder = np.random.default_rng(20230131), HERE / "inputs"
    folder.mkdir(exist_ok=True)
    label = draw.integers(0, 10, 300)
    logits = draw.normal(size=(300, 10)) + 2.5 * np.eye(10)[label]
    index = draw.permutation(300)
    names = np.array([f"class {number}" for number in range(10)])
    np.savez(folder / "first.npz", logits=2 * logits, label=label, index=index, classes=names)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.savez(folder / "second.npz", probs=probs, label=label, index=index)
    other = draw.integers(0, 10, 200)
    np.savez(
        folder / "val.npz",
        logits=2 * draw.normal(size=(200, 10)) + 4 * np.eye(10)[other],
        label=other,
    )
    np.save(folder / "ood.npy", draw.normal(size=(100, 10)) * 2)
    votes = np.zeros((300, 10), np.int64)
    votes[index] = draw.multinomial(20, 0.8 * np.eye(10)[label] + 0.02)
    np.save(folder / "votes.npy", votes)


def evaluation() -> None:
    """What is measured of the fixed predictions, alone and with all that may stand beside them."""
    inputs()
    beside = ["--val=inputs/val.npz", "--ood=inputs/ood.npy", "--human=inputs/votes.npy"]
    for case, words in zip(CASES, ([], beside), strict=True):
        folder = HERE / "evaluation" / case
        shutil.rmtree(folder, ignore_errors=True)
        said = command(
            "ldl_jax.evaluate",
            "inputs/first.npz",
            "inputs/second.npz",
            *words,
            f"--out=evaluation/{case}",
        )
        (folder / "output.txt").write_text(said)
        (folder / "report.html").unlink()


def comparison() -> None:
    """Runs side by side."""
    folder = HERE / "comparison"
    shutil.rmtree(folder, ignore_errors=True)
    said = command("ldl_jax.compare", *(f"runs/{name}" for name in COMPARED), "--out=comparison")
    (folder / "output.txt").write_text(said)


def texts() -> None:
    """What the main command says of itself and of a run before it starts."""
    folder = HERE / "texts"
    folder.mkdir(exist_ok=True)
    text = command("ldl_jax.main", "--help")
    # The options of optax's optimizers, the last part, depend on its version.
    (folder / "help.txt").write_text(text.partition("\noptimizer.name, by their names in optax")[0])
    (folder / "dry_run.txt").write_text(
        command("ldl_jax.main", "--config=digits.py:online", "--dry-run")
    )
    planned = command("ldl_jax.main", "--config=digits.py:teacher", "--config.labels.name=peer", "--dry-run",
                      "--devices=32")  # fmt: skip
    (folder / "dry_run_32.txt").write_text(planned)


PARTS = (runs, study, imported, evaluation, comparison, texts)

if __name__ == "__main__":
    chosen = sys.argv[1].removeprefix("--only=").split(",") if len(sys.argv) > 1 else None
    for part in PARTS:
        if chosen is None or part.__name__ in chosen:
            print(part.__name__, flush=True)
            part()
    for left in HERE.rglob("state.safetensors"):
        left.unlink()
