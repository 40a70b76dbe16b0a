"""The command that predicts: images go through a finished run, class names and probabilities come
out.

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
from ldl_jax.config.options import plug
from ldl_jax.data.arrays import read_images
from ldl_jax.data.readers import pillow
from ldl_jax.data.readers.base import IMAGE_ENDINGS
from ldl_jax.errors import Usage, warn
from ldl_jax.evaluation.load import load, load_weights


class Shown(NamedTuple):
    """Images to predict."""

    names: list[str]  # a path below the folder, or a position in the file
    label: np.ndarray | None  # i32[n], where it is known
    pixels: Iterator[np.ndarray | str]  # u8[H, W, C] each, or what is wrong with it, as text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = cli.Parser(prog="python -m ldl_jax.predict", description=__doc__.split("\n")[0])
    line.add_argument("run", metavar="RUN", help="the directory of a finished run")
    line.add_argument(
        "images",
        metavar="IMAGES",
        help="a folder of JPEG and PNG files, or an .npz with images u8[N, H, W, C]",
    )
    line.add_argument(
        "--out",
        metavar="STEM",
        help="STEM.npz and STEM.csv are written; RUN/predicted/IMAGES unless given",
    )
    line.add_argument(
        "--raw",
        action="store_true",
        help="leave the temperature out that the run was calibrated with",
    )
    line.add_argument(
        "--skip",
        action="store_true",
        help="leave images out that cannot be read, instead of stopping",
    )
    line.add_argument("--batch", type=int, default=256, metavar="N", help="images at a time (256)")
    return line


def folder(path: Path, sources: dict, shorter: int) -> Shown:
    """The images of a folder in the order of their paths, deeper ones included, as evaluation shows
    them.

    Where each lies in a folder named like one of the run's classes, that is its label. Raises
    ValueError where there is no image.
    """
    height, width, channels = sources["shape"]
    paths = sorted(file for file in path.rglob("*") if _is_image(file))
    if not paths:
        raise ValueError(
            f"{path}: holds no image; allowed are files that end in {', '.join(IMAGE_ENDINGS)}"
        )
    if height != width or channels not in pillow.MODES:
        shape = ", ".join(map(str, sources["shape"]))
        raise ValueError(
            f"{path}: the run's images are {shape}; allowed for a folder are squares, grey or RGB"
        )
    number = {name: index for index, name in enumerate(sources["classes"])}
    labels = [number.get(file.parent.name, -1) for file in paths]
    label = None if min(labels) < 0 else np.array(labels, np.int32)
    pixels = (pillow.decode(file, height, shorter=shorter, channels=channels) for file in paths)
    return Shown([str(file.relative_to(path)) for file in paths], label, pixels)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")


def arrays(path: Path, sources: dict) -> Shown:
    """The images of an .npz: `images` u8[N, H, W, C], of the run's shape, and `labels` i[N] if
    there are such.

    Raises ValueError naming the file and what is wrong with it.
    """
    images, label = read_images(path, sources["shape"], sources["num_classes"])
    return Shown([str(number) for number in range(len(images))], label, iter(images))


def logits(
    path: Path, shown: Shown, *, batch_size: int, skip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(logits f32[n, K], positions i64[n] among the images) of those that can be read.

    Raises ValueError naming an image that cannot be read, or with `skip` warns of it; and where
    none can.
    """
    apply, variables = load(path)
    step = jax.jit(lambda variables, image: apply(variables, image).logits)
    outputs, kept = [], []
    for positions, images in _batches(_readable(shown, skip), batch_size):
        # one shape, one compilation
        padded = np.stack(images + images[-1:] * (batch_size - len(images)))
        outputs.append(np.asarray(step(variables, padded), np.float32)[: len(images)])
        kept += positions
    if not kept:
        raise ValueError(f"of {len(shown.names)} images none can be read")
    return np.concatenate(outputs), np.array(kept)


def _readable(shown: Shown, skip: bool) -> Iterator[tuple[int, np.ndarray]]:
    """(position, image) of each image that can be read."""
    bar = tqdm(
        shown.pixels, "predicting", len(shown.names), unit="image", leave=False, disable=None
    )
    for position, image in enumerate(bar):
        if not isinstance(image, str):
            yield position, image
        elif skip:
            warn(f"{shown.names[position]}: {image}; left out")
        else:
            raise ValueError(
                f"{shown.names[position]}: {image}; mend or remove it (--skip leaves such images out)"
            )


def _batches(
    examples: Iterable[tuple[int, np.ndarray]], size: int
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """(positions, images) of at most `size` examples at a time."""
    positions, images = [], []
    for position, image in examples:
        positions.append(position)
        images.append(image)
        if len(images) == size:
            yield positions, images
            positions, images = [], []
    if images:
        yield positions, images


def calibrated(path: Path, values: np.ndarray) -> np.ndarray:
    """Log-probabilities f64[n, K] by the calibrator that was fitted on the run's holdout; without
    one, the logits.

    A temperature at a bound of its search is applied, as the run's own figures are at it, and
    warned of.
    """
    file = path / workdir.CALIBRATION
    if not file.is_file():
        return values
    name, options, params = calibrate.load(file)
    if name == "temperature" and params.get("at_bound"):
        _warn_of_bound(file, params["temperature"])
    return plug("calibrate", name).make(**options).apply(params, values)


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


def predict(
    path: Path, source: Path, *, out: Path | None = None, raw=False, skip=False, batch_size=256
) -> list[Path]:
    """Predict the images at `source` with the run at `path`; returns the files written, .npz and
    .csv.

    The .npz is what `ldl_jax.evaluate` reads: logits f32[n, K] (log-probabilities, the run's
    calibrator already in them), name str[n], classes str[K] and, where they are known, label
    i32[n]. Raises ValueError in one sentence where something is not right.
    """
    sources = load_weights(path)[0]
    shown = _shown(path, source, sources)
    values, kept = logits(path, shown, batch_size=batch_size, skip=skip)
    if not raw:
        values = calibrated(path, values)
    names = [shown.names[position] for position in kept]
    labels = {} if shown.label is None else {"label": shown.label[kept]}
    stem = out or path / workdir.PREDICTED / source.stem
    text = table(names, sources["classes"], softmax(values.astype(np.float64), -1))
    return [
        files.write_npz(
            Path(f"{stem}.npz"),
            logits=log_softmax(values, -1).astype(np.float32),
            name=np.array(names),
            classes=np.array(sources["classes"], np.str_),
            **labels,
        ),
        files.write(Path(f"{stem}.csv"), text),
    ]


def _shown(path: Path, source: Path, sources: dict) -> Shown:
    """The images at `source`, as the run at `path` was shown its test images."""
    c = workdir.read_config(path)
    if source.is_dir():
        streamed = c is not None and not c.data.resident
        options = c.data.get(c.data.name, {}) if streamed else {}
        return folder(source, sources, options.get("eval_resize", 0))
    if source.is_file():
        return arrays(source, sources)
    raise ValueError(f"{source} is not there; needed is a folder of images, or an .npz file")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 the results cannot be written, 2 the
    input is not right.
    """
    return cli.status(
        lambda: print("\n".join(f"wrote {path}" for path in _predict(parser().parse_args(argv))))
    )


def _predict(chosen: argparse.Namespace) -> list[Path]:
    if chosen.batch < 1:
        raise Usage(f"--batch is {chosen.batch}; allowed are numbers from 1")
    out = None if chosen.out is None else Path(chosen.out)
    options = {"out": out, "raw": chosen.raw, "skip": chosen.skip, "batch_size": chosen.batch}
    return predict(Path(chosen.run), Path(chosen.images), **options)


if __name__ == "__main__":
    sys.exit(main())
