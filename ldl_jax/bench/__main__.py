"""Benchmarks: compare programs that take turns in one process.

python -m ldl_jax.bench step [--config=FILE] [--rounds=7] [--seconds=1]
python -m ldl_jax.bench step --model=resnet18 --set=cifar100 [--batch=128] [--dtype=bfloat16]
    [--torch]
python -m ldl_jax.bench step --model=resnet50 --synthetic [--batch=256] [--dtype=bfloat16] [--torch]
    [--trace=DIR]
python -m ldl_jax.bench input --root=DIR [--size=224] [--cores=1] [--no-antialias] [--torch]
    [--seconds=5]
python -m ldl_jax.bench metrics [--examples=50000] [--classes=1000]
"""

import argparse
import sys

from ldl_jax import cli
from ldl_jax.bench import input, memory, metrics, step
from ldl_jax.errors import Usage, say

CONFIG = "digits_online"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = cli.Parser(
        prog="python -m ldl_jax.bench",
        description="Compare programs that take turns in one process.",
    )
    line.add_argument(
        "what",
        choices=("step", "input", "metrics"),
        help="what to measure: training step, input pipeline or metrics",
    )
    # All options are in one parser; the help of each begins with the benchmarks that read it.
    line.add_argument(
        "--config", default=CONFIG, help="step: config to measure (default: digits_online.py)"
    )
    line.add_argument(
        "--model",
        help="step: network and depth, such as resnet18 or cifar_resnet20, instead of a config",
    )
    line.add_argument(
        "--set",
        choices=tuple(step.SHAPES),
        default="cifar100",
        help="step: data set whose image shape and number of classes to use",
    )
    line.add_argument(
        "--synthetic",
        action="store_true",
        help="step: same as --set=imagenet",
    )
    line.add_argument("--batch", type=int, default=128, help="step, input: images per batch")
    line.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16"),
        help="step: type of the activations",
    )
    line.add_argument(
        "--peak-tflops",
        type=float,
        help="step: peak TFLOP/s of the device for this type, to show the share reached",
    )
    line.add_argument(
        "--torch", action="store_true", help="step, input: compare with PyTorch (extra `peers`)"
    )
    line.add_argument(
        "--kinds",
        default="",
        help="step: kinds to measure beside the bare step, separated by commas, such as randaugment "
        "(default: all without operations of augment/)",
    )
    line.add_argument("--trace", help="step: folder for a profiler trace of the step with a memory")
    line.add_argument("--root", default="", help="input: an image folder with train/<class>/*.JPEG")
    line.add_argument("--size", type=int, default=224, help="input: side of an image in pixels")
    line.add_argument("--cores", type=int, help="input: number of cores to use (default: all)")
    line.add_argument(
        "--no-antialias", action="store_true", help="input: plain bilinear interpolation"
    )
    line.add_argument("--examples", type=int, default=50_000, help="metrics: number of examples")
    line.add_argument("--classes", type=int, default=1000, help="metrics: number of classes")
    line.add_argument("--rounds", type=int, default=7, help="number of turns of each program")
    line.add_argument("--seconds", type=float, default=1.0, help="length of a turn in seconds")
    return line


def main(argv: list[str] | None = None) -> int:
    """Run a benchmark and print its table.

    Returns the exit status: 0 for success, 2 if the input is wrong.
    """
    return cli.status(lambda: say(_measured(parser().parse_args(argv))))


def _measured(arguments: argparse.Namespace) -> str:
    """The table of the benchmark that a command line names."""
    measures = {"input": _input, "metrics": _metrics, "step": _step}
    turns = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    try:
        return measures[arguments.what](arguments, turns)
    except ImportError as error:  # of a package that only some comparisons need
        raise Usage(str(error)) from error


def _input(arguments: argparse.Namespace, turns: dict) -> str:
    return input.measure(
        arguments.root,
        size=arguments.size,
        batch=arguments.batch,
        antialias=not arguments.no_antialias,
        cores=arguments.cores,
        peers=arguments.torch,
        **turns,
    )


def _metrics(arguments: argparse.Namespace, turns: dict) -> str:
    return metrics.measure(examples=arguments.examples, classes=arguments.classes, **turns)


def _step(arguments: argparse.Namespace, turns: dict) -> str:
    # Without a network, measure what a config does, and the label memory on its own.
    if not arguments.model:
        return "\n\n".join([step.measure(arguments.config, **turns), memory.measure(**turns)])
    name = "imagenet" if arguments.synthetic else arguments.set
    c = step.settings(arguments.model, batch=arguments.batch, dtype=arguments.dtype, name=name)
    return step.measure_kinds(
        c,
        name,
        peak=arguments.peak_tflops,
        peers=arguments.torch,
        trace=arguments.trace,
        only=tuple(filter(None, arguments.kinds.split(","))),
        **turns,
    )


if __name__ == "__main__":
    sys.exit(main())
