"""Predict images with a finished run: class names and probabilities.

python -m ldl_jax.predict RUN IMAGES [--out=STEM]
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import log_softmax, softmax
from tqdm import tqdm

from ldl_jax import cli, files, workdir
from ldl_jax.calibrate import base as calibrate
from ldl_jax.calibrate import describe
from ldl_jax.config.options import plug
from ldl_jax.data.arrays import read_images
from ldl_jax.data.readers import pillow
from ldl_jax.data.readers.base import IMAGE_ENDINGS
from ldl_jax.errors import Usage, warn
from ldl_jax.evaluation.load import load, load_weights, shorter_side


class Shown(NamedTuple):
    """Images to predict."""

    names: list[str]  # a path below the folder, or a position in the file
    label: np.ndarray | None  # i32[n], if known
    pixels: Iterator[np.ndarray | str]  # u8[H, W, C] each, or what is wrong with it, as text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = cli.Parser(prog="python -m ldl_jax.predict", description=__doc__.split("\n")[0])
    line.add_argument("run", metavar="RUN", help="directory of a finished run")
    line.add_argument(
        "images",
        metavar="IMAGES",
        help="a folder of JPEG and PNG files, or an .npz file with images u8[N, H, W, C]",
    )
    line.add_argument(
        "--out",
        metavar="STEM",
        help="write STEM.npz and STEM.csv (default: RUN/predicted/IMAGES)",
    )
    # The calibrator is applied by default, since that is how the run is meant to be used.
    line.add_argument(
        "--raw",
        action="store_true",
        help="write raw predictions, without the calibrator fitted on the run's holdout",
    )
    line.add_argument(
        "--skip",
        action="store_true",
        help="skip images that cannot be read instead of stopping",
    )
    line.add_argument(
        "--batch", type=int, default=256, metavar="N", help="number of images per batch (256)"
    )
    return line


def folder(path: Path, sources: dict, shorter: int) -> Shown:
    """The images of a folder and its subfolders, sorted by path, as evaluation shows them.

    If every image is in a folder named like one of the run's classes, that is its label. Raises
    ValueError if there are no images.
    """
    height, width, channels = sources["shape"]
    paths = sorted(file for file in path.rglob("*") if _is_image(file))
    if not paths:
        raise ValueError(f"{path} must hold images ({', '.join(IMAGE_ENDINGS)}), got none")
    if height != width or channels not in pillow.MODES:
        shape = ", ".join(map(str, sources["shape"]))
        raise ValueError(
            f"{path}: to predict a folder, the run's images must be square, grey or RGB, got "
            f"[{shape}]"
        )
    number = {name: index for index, name in enumerate(sources["classes"])}
    labels = [number.get(file.parent.name, -1) for file in paths]
    # Labels of some images only could not be told from wrong ones, so it is all or none.
    label = None if min(labels) < 0 else np.array(labels, np.int32)
    pixels = (pillow.decode(file, height, shorter=shorter, channels=channels) for file in paths)
    return Shown([str(file.relative_to(path)) for file in paths], label, pixels)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")


def arrays(path: Path, sources: dict) -> Shown:
    """The images of an .npz: `images` u8[N, H, W, C] of the run's shape, and `labels` i[N] if
    present.

    Raises ValueError naming the file and what is wrong with it.
    """
    images, label = read_images(path, sources["shape"], sources["num_classes"])
    names = list(map(str, range(len(images))))
    return Shown(names, label, iter(images))


def logits(
    path: Path, shown: Shown, *, batch_size: int, skip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(logits f32[n, K], positions i64[n] among the images) of the images that can be read.

    Raises ValueError naming an image that cannot be read, or warns of it with `skip`; also if none
    can be read.
    """
    apply, variables = load(path)
    step = jax.jit(lambda variables, image: apply(variables, image).logits)
    outputs = []
    positions = []
    for batch_positions, images in _batches(_readable(shown, skip), batch_size):
        # Pad the last batch with copies, so that there is one shape and one compilation.
        padded = np.stack(images + images[-1:] * (batch_size - len(images)))
        outputs.append(np.asarray(step(variables, padded), np.float32)[: len(images)])
        positions += batch_positions
    if not positions:
        raise ValueError(f"none of the {len(shown.names)} images can be read")
    return np.concatenate(outputs), np.array(positions)


def _readable(shown: Shown, skip: bool) -> Iterator[tuple[int, np.ndarray]]:
    """(position, image) of each image that can be read."""
    bar = tqdm(
        shown.pixels, "predicting", len(shown.names), unit="image", leave=False, disable=None
    )
    for position, image in enumerate(bar):
        if not isinstance(image, str):
            yield position, image
        elif skip:
            warn(f"{shown.names[position]}: {image}; skipped (--skip)")
        else:
            raise ValueError(
                f"{shown.names[position]}: {image}; repair or remove it, or pass --skip to skip it"
            )


def _batches(
    examples: Iterable[tuple[int, np.ndarray]], size: int
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """(positions, images) of at most `size` examples at a time."""
    positions = []
    images = []
    for position, image in examples:
        positions.append(position)
        images.append(image)
        if len(images) == size:
            yield positions, images
            positions = []
            images = []
    if images:
        yield positions, images


def calibrated(path: Path, values: np.ndarray) -> np.ndarray:
    """Log-probabilities f64[n, K] by the calibrator fitted on the run's holdout; the logits if it
    has none.

    A temperature at a limit of its search, or fitted on few errors, is applied with a warning,
    since the run's own metrics use it too.
    """
    file = path / workdir.CALIBRATION
    if not file.is_file():
        return values
    name, options, params = calibrate.load(file)
    if name == "temperature" and params.get("at_bound"):
        _warn_of_limit(file, params["temperature"])
    elif describe.is_temperature(name):
        for doubt in describe.doubts(params, "the holdout"):
            warn(f"{file}: {doubt} (--raw writes the raw predictions)")
    return plug("calibrate", name).make(**options).apply(params, values)


def _warn_of_limit(file: Path, temperature: float) -> None:
    if temperature < 1:
        limit = "lower"
        cause = "the holdout contains no errors"
        effect = "close to 0 or 1"
    else:
        limit = "upper"
        cause = "the logits say nothing about the labels of the holdout"
        effect = "nearly equal"
    warn(
        f"{file}: the fitted temperature hit its {limit} limit ({temperature:.4g}): {cause}, so no "
        f"temperature can be estimated, and all probabilities become {effect} (--raw writes the "
        "raw ones)"
    )


def table(names: list[str], classes: list[str], probs: np.ndarray) -> str:
    """CSV: name of the image, predicted class, its probability, and the probability per class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "predicted", "confidence", *(f"p({name})" for name in classes)])
    for name, row in zip(names, probs, strict=True):
        best = int(row.argmax())
        writer.writerow([name, classes[best], f"{row[best]:.6g}", *(f"{p:.6g}" for p in row)])
    return text.getvalue()


def predict(
    path: Path, source: Path, *, out: Path | None = None, raw=False, skip=False, batch_size=256
) -> list[Path]:
    """Predict the images at `source` with the run at `path`; returns the files written, .npz and
    .csv.

    The .npz can be read by `ldl_jax.evaluate`: logits f32[n, K] (log-probabilities, recalibrated
    unless `raw`), name str[n], classes str[K] and, if known, label i32[n]. Raises ValueError with
    one sentence if the run or the images cannot be used.
    """
    sources = load_weights(path)[0]
    shown = _shown(path, source, sources)
    values, positions = logits(path, shown, batch_size=batch_size, skip=skip)
    if not raw:
        values = calibrated(path, values)
    names = [shown.names[position] for position in positions]
    labels = {} if shown.label is None else {"label": shown.label[positions]}
    stem = out or path / workdir.PREDICTED / source.stem
    # Compute the table before writing, so that a fault leaves no file behind.
    text = table(names, sources["classes"], softmax(values.astype(np.float64), -1))
    npz = files.write_npz(
        Path(f"{stem}.npz"),
        logits=log_softmax(values, -1).astype(np.float32),
        name=np.array(names),
        classes=np.array(sources["classes"], np.str_),
        **labels,
    )
    return [npz, files.write(Path(f"{stem}.csv"), text)]


def _shown(path: Path, source: Path, sources: dict) -> Shown:
    """The images at `source`, shown to the run at `path` as its own test images were."""
    if source.is_dir():
        return folder(source, sources, shorter_side(path))
    if source.is_file():
        return arrays(source, sources)
    raise ValueError(
        f"IMAGES must be a folder of images or an .npz file, got {source}, which does not exist"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 for success, 1 if the results cannot be written,
    2 if the input is wrong.
    """
    return cli.status(lambda: print(_run_command(parser().parse_args(argv))))


def _run_command(arguments: argparse.Namespace) -> str:
    """Predict; returns the lines to print."""
    if arguments.batch < 1:
        raise Usage(f"--batch must be at least 1, got {arguments.batch}")
    paths = predict(
        Path(arguments.run),
        Path(arguments.images),
        out=None if arguments.out is None else Path(arguments.out),
        raw=arguments.raw,
        skip=arguments.skip,
        batch_size=arguments.batch,
    )
    return "\n".join(f"wrote {path}" for path in paths)


if __name__ == "__main__":
    sys.exit(main())
