"""The command that predicts: images go through a finished run, class names and probabilities come out.

python -m ldl_jax.predict RUN IMAGES [--out=STEM]
"""

import argparse
import csv
import io
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import log_softmax, softmax
from tqdm import tqdm

from ldl_jax import files
from ldl_jax import workdir as run
from ldl_jax.calibrate import base as calibrators
from ldl_jax.cli import Parser, status
from ldl_jax.config.options import plug
from ldl_jax.data.readers import pillow as images
from ldl_jax.errors import Usage, one_line, warn
from ldl_jax.evaluation.load import load, load_weights

ENDINGS = (".jpg", ".jpeg", ".png")
KEYS = ("images", "test_images")  # of an .npz of images; the first that is there
# What numpy and zipfile raise for files of another kind, bare arrays, and archives that are broken or encrypted.
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, AttributeError, TypeError, RuntimeError)


class Shown(NamedTuple):
    """Images to predict."""

    names: list[str]  # a path below the folder, or a position in the file
    label: np.ndarray | None  # i32[n], where it is known
    pixels: Iterator[np.ndarray | str]  # u8[H, W, C] each, or what is wrong with it, as text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(prog="python -m ldl_jax.predict", description=__doc__.split("\n")[0])
    made.add_argument("run", metavar="RUN", help="the directory of a finished run")
    made.add_argument(
        "images", metavar="IMAGES", help="a folder of JPEG and PNG files, or an .npz with images u8[N, H, W, C]"
    )
    made.add_argument(
        "--out", metavar="STEM", help="STEM.npz and STEM.csv are written; RUN/predicted/IMAGES unless given"
    )
    made.add_argument("--raw", action="store_true", help="leave the temperature out that the run was calibrated with")
    made.add_argument("--skip", action="store_true", help="leave images out that cannot be read, instead of stopping")
    made.add_argument("--batch", type=int, default=256, metavar="N", help="images at a time (256)")
    return made


def folder(path: Path, sources: dict, shorter: int) -> Shown:
    """The images of a folder in the order of their paths, deeper ones included, as evaluation shows them.

    Where each lies in a folder named like one of the run's classes, that is its label. Raises ValueError where there
    is no image.
    """
    height, width, channels = sources["shape"]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    if not found:
        raise ValueError(f"{path}: holds no image; allowed are files that end in {', '.join(ENDINGS)}")
    if height != width or channels not in images.MODES:
        raise ValueError(
            f"{path}: the run's images are {_shape(sources)}; allowed for a folder are squares, grey or RGB"
        )
    number = {name: place for place, name in enumerate(sources["classes"])}
    labels = [number.get(p.parent.name, -1) for p in found]
    label = None if min(labels) < 0 else np.array(labels, np.int32)
    pixels = (images.decode(p, height, shorter=shorter, channels=channels) for p in found)
    return Shown([str(p.relative_to(path)) for p in found], label, pixels)


def arrays(path: Path, sources: dict) -> Shown:
    """The images of an .npz: `images` u8[N, H, W, C], of the run's shape, and `labels` i[N] if there are such.

    Raises ValueError naming the file and what is wrong with it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            name = next((name for name in KEYS if name in file.files), None)
            if name is None:
                raise ValueError(f"it has no {' or '.join(KEYS)}")
            labels = name.replace("images", "labels")
            found, label = file[name], file[labels] if labels in file.files else None
    except UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as an .npz file of images ({one_line(error)})") from None
    if found.dtype != np.uint8 or found.shape[1:] != tuple(sources["shape"]) or not len(found):
        raise ValueError(
            f"{path}: {name} is {found.dtype}{list(found.shape)}; allowed is uint8 [N, {_shape(sources)}], N above 0"
        )
    if label is not None:
        if label.shape != found.shape[:1] or label.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: labels are {label.dtype}{list(label.shape)}; allowed are integers [{len(found)}]"
            )
        if label.min() < 0 or label.max() >= sources["num_classes"]:
            raise ValueError(
                f"{path}: labels range from {label.min()} to {label.max()}; allowed are 0 to "
                f"{sources['num_classes'] - 1}"
            )
        label = label.astype(np.int32)
    return Shown([str(number) for number in range(len(found))], label, iter(found))


def _shape(sources: dict) -> str:
    return ", ".join(map(str, sources["shape"]))


def logits(path: Path, shown: Shown, *, batch_size: int, skip: bool) -> tuple[np.ndarray, np.ndarray]:
    """(logits f32[n, K], positions i64[n] among the images) of those that can be read.

    Raises ValueError naming an image that cannot be read, or with `skip` warns of it; and where none can.
    """
    apply, variables = load(path)
    step = jax.jit(lambda variables, image: apply(variables, image).logits)
    said, kept, batch = [], [], []

    def flush():
        padded = np.stack(batch + batch[-1:] * (batch_size - len(batch)))  # one shape, one compilation
        said.append(np.asarray(step(variables, padded), np.float32)[: len(batch)])
        batch.clear()

    bar = tqdm(shown.pixels, "predicting", len(shown.names), unit="image", leave=False, disable=None)
    for place, image in enumerate(bar):
        if isinstance(image, str):
            if not skip:
                raise ValueError(f"{shown.names[place]}: {image}; mend or remove it (--skip leaves such images out)")
            warn(f"{shown.names[place]}: {image}; left out")
            continue
        kept.append(place)
        batch.append(image)
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()
    if not kept:
        raise ValueError(f"of {len(shown.names)} images none can be read")
    return np.concatenate(said), np.array(kept)


def calibrated(path: Path, said: np.ndarray) -> np.ndarray:
    """Log-probabilities f64[n, K] by the calibrator that was fitted on the run's holdout; without one, the logits.

    A temperature at a bound of its search is applied, as the run's own figures are at it, and warned of.
    """
    file = path / run.CALIBRATION
    if not file.is_file():
        return said
    name, options, params = calibrators.load(file)
    if name == "temperature" and params.get("at_bound"):
        _warn_of_bound(file, params["temperature"])
    return plug("calibrate", name).make(**options).apply(params, said)


def _warn_of_bound(file: Path, temperature: float) -> None:
    low = "all of its images are predicted rightly", "0 or 1"
    where, near = low if temperature < 1 else ("the logits say nothing of its labels", "equal")
    warn(
        f"{file}: the temperature {temperature:.4g} is a bound of the search: no temperature is best on the holdout, "
        f"as where {where}; it makes the probabilities all but {near} (--raw leaves it out)"
    )


def table(names: list[str], classes: list[str], probs: np.ndarray) -> str:
    """CSV: name of the image, predicted class, its probability, and the probability of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "predicted", "confidence", *(f"p({name})" for name in classes)])
    for name, row in zip(names, probs, strict=True):
        best = int(row.argmax())
        writer.writerow([name, classes[best], f"{row[best]:.6g}", *(f"{p:.6g}" for p in row)])
    return text.getvalue()


def predict(path: Path, source: Path, *, out: Path | None = None, raw=False, skip=False, batch_size=256) -> list[Path]:
    """Predict the images at `source` with the run at `path`; returns the files written, .npz and .csv.

    The .npz is what `ldl_jax.evaluate` reads: logits f32[n, K] (log-probabilities, the run's calibrator already in
    them), name str[n], classes str[K] and, where they are known, label i32[n]. Raises ValueError in one sentence where
    something is not right.
    """
    sources = load_weights(path)[0]
    c = run.read_config(path)
    if source.is_dir():
        options = c.data.get(c.data.name, {}) if c is not None and not c.data.resident else {}
        shown = folder(source, sources, options.get("eval_resize", 0))
    elif source.is_file():
        shown = arrays(source, sources)
    else:
        raise ValueError(f"{source} is not there; needed is a folder of images, or an .npz file")
    said, kept = logits(path, shown, batch_size=batch_size, skip=skip)
    said = said if raw else calibrated(path, said)
    names = [shown.names[place] for place in kept]
    stem = out or path / run.PREDICTED / source.stem
    beside = {"name": np.array(names), "classes": np.array(sources["classes"], np.str_)}
    beside |= {} if shown.label is None else {"label": shown.label[kept]}
    text = table(names, sources["classes"], softmax(said.astype(np.float64), -1))
    return [
        files.write_npz(Path(f"{stem}.npz"), logits=log_softmax(said, -1).astype(np.float32), **beside),
        files.write(Path(f"{stem}.csv"), text),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 the results cannot be written, 2 the input is not right."""
    return status(lambda: print("\n".join(f"wrote {path}" for path in _predict(parser().parse_args(argv)))))


def _predict(chosen: argparse.Namespace) -> list[Path]:
    if chosen.batch < 1:
        raise Usage(f"--batch is {chosen.batch}; allowed are numbers from 1")
    out = None if chosen.out is None else Path(chosen.out)
    options = {"out": out, "raw": chosen.raw, "skip": chosen.skip, "batch_size": chosen.batch}
    return predict(Path(chosen.run), Path(chosen.images), **options)


if __name__ == "__main__":
    sys.exit(main())
