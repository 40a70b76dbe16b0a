"""Benchmarks: ratios of programs that take turns in one process.

python -m ldl_jax.bench step [--config=FILE] [--rounds=7] [--seconds=1] python -m ldl_jax.bench step
--model=resnet18 --set=cifar100 [--batch=128] [--dtype=bfloat16] [--torch] python -m ldl_jax.bench
step --model=resnet50 --synthetic [--batch=256] [--dtype=bfloat16] [--torch] [--trace=DIR] python -m
ldl_jax.bench input --root=DIR [--size=224] [--cores=1] [--no-antialias] [--torch] [--seconds=5]
python -m ldl_jax.bench metrics [--examples=50000] [--classes=1000]
"""

import argparse
import sys
from pathlib import Path

from ldl_jax import cli
from ldl_jax.bench import input, memory, metrics, step
from ldl_jax.errors import Usage

CONFIG = Path(__file__).parents[2] / "configs" / "digits_online.py"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = cli.Parser(prog="python -m ldl_jax.bench", description=__doc__.split("\n")[0])
    line.add_argument(
        "what", choices=("step", "input", "metrics"), help="train step, input, or figures"
    )
    line.add_argument(
        "--config", default=CONFIG, help="whose step is measured; digits_online unless given"
    )
    line.add_argument(
        "--model",
        help="instead of a config: a network with its depth, as resnet18 or cifar_resnet20",
    )
    line.add_argument(
        "--set",
        choices=tuple(step.SHAPES),
        default="cifar100",
        help="whose image shape and classes",
    )
    line.add_argument(
        "--synthetic",
        action="store_true",
        help="ImageNet's shape and number of images: --set=imagenet",
    )
    line.add_argument("--batch", type=int, default=128, help="images a step")
    line.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of activations"
    )
    line.add_argument(
        "--peak-tflops",
        type=float,
        help="the device's peak for that type, to show the share reached",
    )
    line.add_argument(
        "--torch", action="store_true", help="PyTorch's step beside it (extra `peers`)"
    )
    line.add_argument(
        "--kinds",
        default="",
        help="of what is added, only these, separated by commas; all unless given",
    )
    line.add_argument("--trace", help="folder for a profiler trace of the step with a memory")
    line.add_argument(
        "--root", default="", help="of input: an image folder with train/<class>/*.JPEG"
    )
    line.add_argument("--size", type=int, default=224, help="of input: pixels of a side")
    line.add_argument("--cores", type=int, help="of input: how many may be used; all unless given")
    line.add_argument(
        "--no-antialias", action="store_true", help="of input: plain bilinear interpolation"
    )
    line.add_argument("--examples", type=int, default=50_000, help="of metrics: how many")
    line.add_argument("--classes", type=int, default=1000, help="of metrics: how many")
    line.add_argument("--rounds", type=int, default=7, help="alternations")
    line.add_argument("--seconds", type=float, default=1.0, help="seconds of a turn")
    return line


def main(argv: list[str] | None = None) -> int:
    """Run a benchmark by name and print its table; returns the exit status: 0 done, 2 the input is
    not right.
    """
    return cli.status(lambda: print(_measured(parser().parse_args(argv))))


def _measured(chosen: argparse.Namespace) -> str:
    """The table of the benchmark that a command line names."""
    measures = {"input": _input, "metrics": _metrics, "step": _step}
    try:
        return measures[chosen.what](chosen, {"rounds": chosen.rounds, "seconds": chosen.seconds})
    except ImportError as error:  # of a package that only some comparisons need
        raise Usage(str(error)) from error


def _input(chosen: argparse.Namespace, turns: dict) -> str:
    options = {"size": chosen.size, "batch": chosen.batch, "antialias": not chosen.no_antialias}
    return input.measure(chosen.root, **turns, **options, cores=chosen.cores, peers=chosen.torch)


def _metrics(chosen: argparse.Namespace, turns: dict) -> str:
    return metrics.measure(examples=chosen.examples, classes=chosen.classes, **turns)


def _step(chosen: argparse.Namespace, turns: dict) -> str:
    if not chosen.model:
        return "\n\n".join([step.measure(chosen.config, **turns), memory.measure(**turns)])
    name = "imagenet" if chosen.synthetic else chosen.set
    c = step.settings(chosen.model, batch=chosen.batch, dtype=chosen.dtype, name=name)
    only = tuple(filter(None, chosen.kinds.split(",")))
    options = {
        "peak": chosen.peak_tflops,
        "peers": chosen.torch,
        "trace": chosen.trace,
        "only": only,
    }
    return step.measure_kinds(c, name, **options, **turns)


if __name__ == "__main__":
    sys.exit(main())
