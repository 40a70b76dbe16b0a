"""The command that stores label distributions: a teacher's for augmented views of the training
images, or those that a run's memory has learned.

python -m ldl_jax.store RUN --out=FILE.npz [--views=V] [--topk=k]
python -m ldl_jax.store RUN --out=FILE.npz --memory
"""

import argparse
import math
import sys
from pathlib import Path

from ldl_jax import cli, escape, files
from ldl_jax.config.trust import Consent
from ldl_jax.data import stored_rows
from ldl_jax.errors import Usage, say
from ldl_jax.training import storing

DESCRIPTION = (
    "Store the distributions that a finished run gives augmented views of its training images, to "
    "train on without it (labels.name=stored, data.train_store=FILE)."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = cli.Parser(prog="python -m ldl_jax.store", description=DESCRIPTION)
    add = line.add_argument
    add("run", metavar="RUN", help="directory of a finished run")
    add("--out", metavar="FILE", required=True, help="file to write, an .npz")
    add("--views", type=int, default=1, metavar="V", help="views of each image (1)")
    add("--topk", type=int, metavar="k", help="most probable classes to keep (default: all)")
    add(
        "--remainder",
        choices=stored_rows.REMAINDERS,
        default="spread",
        help="probability of the other classes: 'spread' over them evenly (default), or given to "
        "the 'top' k",
    )
    add(
        "--dtype",
        choices=tuple(stored_rows.SCALES),
        default="float16",
        help="type of the probabilities (float16); uint8 is in units of 1/255",
    )
    add("--temperature", type=float, default=1.0, metavar="T", help="of the network (1)")
    add("--seed", type=int, metavar="N", help="seed of the augmentation (default: the run's)")
    add(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        dest="fields",
        help="field of the run's config to replace, such as data.root=DIR or augment.pad=4; may be "
        "repeated",
    )
    add("--memory", action="store_true", help="store the run's label memory, as a table")
    add("--batch", type=int, default=256, metavar="N", help="number of images per batch (256)")
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    add("--trust", action="store_true", help=cli.TRUST)
    return line


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 for success, 1 if the file cannot be written, 2 if
    the input is wrong.
    """
    return cli.status(lambda: _run_command(parser().parse_args(argv)), memory="lower --batch")


def _run_command(arguments: argparse.Namespace) -> None:
    for name, least in (("views", 1), ("topk", 1), ("batch", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise Usage(f"--{name} must be at least {least}, got {value}")
    if not 0 < arguments.temperature < math.inf:
        raise Usage(f"--temperature must be finite and above 0, got {arguments.temperature}")
    out = files.home(arguments.out)
    if out.suffix != ".npz":
        raise Usage(f"--out must end in .npz, got {arguments.out}")
    if out.exists() and not arguments.overwrite:
        raise Usage(f"--out {out} exists already; pass --overwrite to replace it")
    # Before the work, which may take hours.
    files.check_writable(out.parent)
    options = {
        "fields": cli.set_fields(arguments.fields),
        "consent": Consent(arguments.trust),
    }
    if arguments.memory:
        written = storing.store_memory(Path(arguments.run), out, **options)
        say(_of_memory(written))
        return
    choice = storing.Choice(
        views=arguments.views,
        topk=arguments.topk,
        remainder=arguments.remainder,
        dtype=arguments.dtype,
        temperature=arguments.temperature,
        seed=arguments.seed,
    )
    written = storing.store(Path(arguments.run), out, choice, batch_size=arguments.batch, **options)
    say(_of_views(written, choice))


def _of_memory(written: storing.Written) -> str:
    return (
        f"wrote {escape.line(written.path)} ({written.size:,} bytes): the memory's rows of "
        f"{written.images:,} images ({written.facts['written']:,} written, the others hard labels)\n"
        f"train on it with --config.labels.name=table --config.data.train_table={written.path} "
        "--config.data.table_name=probs"
    )


def _of_views(written: storing.Written, choice: storing.Choice) -> str:
    per_view = written.size / (written.images * choice.views)
    facts = written.facts
    return (
        f"wrote {escape.line(written.path)} ({written.size:,} bytes, {per_view:.1f} per view): "
        f"{choice.views} view{'s' * (choice.views != 1)} of {written.images:,} images, "
        f"{facts['topk']} classes each\n"
        f"KL divergence of the stored from the full distributions: mean {facts['kl']:.2e} nat, "
        f"highest {facts['kl_highest']:.2e}\n"
        f"train on it with --config.labels.name=stored --config.data.train_store={written.path}"
    )


if __name__ == "__main__":
    sys.exit(main())
