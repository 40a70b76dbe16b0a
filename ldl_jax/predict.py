"""The command that predicts images with a finished run: class names and probabilities.

python -m ldl_jax.predict RUN IMAGES [IMAGES ...] [--out=STEM]
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import log_softmax, softmax
from tqdm import tqdm

from ldl_jax import cli, escape, files, workdir
from ldl_jax.calibrate import describe
from ldl_jax.calibrate.base import Calibrator
from ldl_jax.config.options import make_plug
from ldl_jax.config.trust import ASK, Consent
from ldl_jax.data.readers.base import IMAGE_ENDINGS
from ldl_jax.errors import Failed, Usage, say, warn
from ldl_jax.evaluation.images import Images, find
from ldl_jax.evaluation.load import (
    load_calibrator,
    load_model,
    load_weights,
    shorter_side,
    turns_by_exif,
)

DESCRIPTION = "Predict images with a finished run: class names and probabilities."
TOP = 3  # classes shown for each image
MOST_LINES = 50  # images shown in the terminal; the files have all


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = cli.Parser(prog="python -m ldl_jax.predict", description=DESCRIPTION)
    line.add_argument("run", metavar="RUN", help="directory of a finished run")
    line.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help=f"image files ({', '.join(IMAGE_ENDINGS)}), folders of them at any depth, or an .npz "
        "file with images u8[N, H, W, C]",
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
    line.add_argument("--trust", action="store_true", help=cli.TRUST)
    return line


def logits(
    path: Path, shown: Images, *, batch_size: int, skip: bool, consent: Consent = ASK
) -> tuple[np.ndarray, np.ndarray]:
    """(logits f32[n, K], positions i64[n] among the images) of the images that can be read.

    Raises ValueError naming an image that cannot be read, or warns of it with `skip`; also if none
    can be read.
    """
    apply, variables = load_model(path, consent)
    batch_size = min(batch_size, len(shown.names))
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


def _readable(shown: Images, skip: bool) -> Iterator[tuple[int, np.ndarray]]:
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


def calibrated(path: Path, values: np.ndarray, consent: Consent = ASK) -> np.ndarray:
    """Log-probabilities f64[n, K] by the calibrator fitted on the run's holdout; the logits if it
    has none.

    A temperature at a limit of its search, or fitted on few errors, is applied with a warning,
    since the run's own metrics use it too.
    """
    fitted = load_calibrator(path, consent)
    if fitted is None:
        return values
    file = path / workdir.CALIBRATION
    name, options, params = fitted
    if name == "temperature" and params.get("at_bound"):
        _warn_of_limit(file, params["temperature"])
    elif describe.is_temperature(name):
        for doubt in describe.doubts(params, "the holdout"):
            warn(f"{file}: {doubt} (--raw writes the raw predictions)")
    calibrator = make_plug("calibrate", name, Calibrator, **options)
    return calibrator.apply(params, values)


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
    """CSV: name of the image, predicted class, its probability, and the probability per class.

    Names are safe to open in a spreadsheet and to show in a terminal.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [escape.csv(f"p({name})") for name in classes]
    writer.writerow(["image", "predicted", "confidence", *heads])
    for name, row in zip(names, probs, strict=True):
        best = int(row.argmax())
        texts = [escape.csv(name), escape.csv(classes[best])]
        writer.writerow([*texts, f"{row[best]:.6g}", *(f"{p:.6g}" for p in row)])
    return text.getvalue()


class Predicted(NamedTuple):
    """What was predicted, and where it is written."""

    names: list[str]  # of n images
    classes: list[str]
    logits: np.ndarray  # f[n, K]
    label: np.ndarray | None  # i32[n], if known
    stem: Path  # of its files

    @property
    def probs(self) -> np.ndarray:
        """The probabilities f64[n, K]."""
        return softmax(self.logits.astype(np.float64), -1)

    @property
    def paths(self) -> list[Path]:
        """The files: the .npz and the .csv."""
        return [Path(f"{self.stem}.npz"), Path(f"{self.stem}.csv")]

    def write(self) -> None:
        """Write the files. Raises OSError."""
        # Compute the table before writing, so that a fault leaves no file behind.
        text = table(self.names, self.classes, self.probs)
        npz, csv_file = self.paths
        files.write_npz(
            npz,
            logits=log_softmax(self.logits, -1).astype(np.float32),
            name=np.array(self.names),
            classes=np.array(self.classes, np.str_),
            **({} if self.label is None else {"label": self.label}),
        )
        files.write(csv_file, text)

    def lines(self, most: int | None = MOST_LINES) -> list[str]:
        """For a person: the likeliest classes of each image, and the accuracy if labels are known.

        most: largest number of images; None: all of them.
        """
        classes = list(map(escape.line, self.classes))
        shown = list(map(escape.line, self.names[:most]))
        probs = self.probs
        width = max(map(len, shown))
        lines = []
        for name, row in zip(shown, probs, strict=False):
            best = np.argsort(-row, kind="stable")[:TOP]
            text = "  ".join(f"{classes[number]} {row[number]:.3f}" for number in best)
            lines.append(f"{name:<{width}}  {text}")
        if len(self.names) > len(shown):
            more = len(self.names) - len(shown)
            lines.append(f"... and {more:,} more images in {escape.line(self.paths[1])}")
        if self.label is not None:
            accuracy = (probs.argmax(1) == self.label).mean()
            lines.append(
                f"accuracy {100 * accuracy:.2f} % of {len(self.names):,} images, by the classes "
                "given with them"
            )
        return lines


class Job(NamedTuple):
    """What is to be predicted."""

    run: Path
    classes: list[str]
    shown: Images
    stem: Path  # of the files to write
    consent: Consent


def prepare(path: Path, source, out: Path | None = None, *, trust: bool = False) -> Job:
    """Find the images of a prediction; the arguments are those of `predicted`."""
    path = files.home(path)
    sources = source if isinstance(source, list | tuple) else [source]
    consent = Consent(trust)
    spec = load_weights(path, consent=consent)[0]
    shown = find(sources, spec, shorter_side(path), turns_by_exif(path))
    if out:
        stem = files.home(out)
    else:
        files.refuse_links(path / workdir.PREDICTED)
        stem = path / workdir.PREDICTED / _stem(sources)
    return Job(path, spec["classes"], shown, stem, consent)


def compute(job: Job, *, raw: bool, skip: bool, batch_size: int) -> Predicted:
    """Predict; nothing is written. The options are those of `predicted`."""
    values, positions = logits(
        job.run, job.shown, batch_size=batch_size, skip=skip, consent=job.consent
    )
    if not raw:
        values = calibrated(job.run, values, job.consent)
    names = [job.shown.names[position] for position in positions]
    label = None if job.shown.label is None else job.shown.label[positions]
    return Predicted(names, job.classes, values, label, job.stem)


def predict(path: Path, source, **options) -> list[Path]:
    """`predicted`, of which only the paths of the files are returned, .npz and .csv."""
    return predicted(path, source, **options).paths


def predicted(
    path: Path,
    source,
    *,
    out: Path | None = None,
    raw=False,
    skip=False,
    batch_size=256,
    trust=False,
) -> Predicted:
    """Predict the images of `source` with the run at `path`, and write them as .npz and .csv.

    source: an image file, a folder, an .npz, or a list of image files and folders. The .npz can be
    read by `ldl_jax.evaluate`: logits f32[n, K] (log-probabilities, recalibrated unless `raw`), name
    str[n], classes str[K] and, if known, label i32[n]. trust: run modules that the run names and that
    are not part of the package. Raises ValueError with one sentence if the run or the images cannot
    be used.
    """
    job = prepare(path, source, out, trust=trust)
    files.check_writable(job.stem.parent)
    result = compute(job, raw=raw, skip=skip, batch_size=batch_size)
    result.write()
    return result


def _stem(sources: Sequence) -> str:
    """The name of the files of a prediction: that of its folder or file, if there is only one."""
    if len(sources) > 1:
        return "images"
    source = files.home(sources[0]).resolve()
    return source.name if source.is_dir() else source.stem


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 for success, 1 if the results cannot be written,
    2 if the input is wrong.
    """
    return cli.status(lambda: _run_command(parser().parse_args(argv)), memory="lower --batch")


def _run_command(arguments: argparse.Namespace) -> None:
    """Predict, write the files and print the predictions, all of them if they cannot be written."""
    if arguments.batch < 1:
        raise Usage(f"--batch must be at least 1, got {arguments.batch}")
    job = prepare(Path(arguments.run), arguments.images, arguments.out, trust=arguments.trust)
    can_write = cli.writable(job.stem.parent)
    result = compute(job, raw=arguments.raw, skip=arguments.skip, batch_size=arguments.batch)
    try:
        if not can_write:
            raise Failed("")
        result.write()
    except (OSError, Failed):
        say("\n".join(result.lines(None)))
        raise
    wrote = [f"wrote {escape.line(path)}" for path in result.paths]
    say("\n".join([*result.lines(), *wrote]))


if __name__ == "__main__":
    sys.exit(main())
