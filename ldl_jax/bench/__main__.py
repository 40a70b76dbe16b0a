"""Benchmarks: ratios of programs that take turns in one process.

python -m ldl_jax.bench step [--config=FILE] [--rounds=7] [--seconds=1]
python -m ldl_jax.bench step --model=resnet18 --set=cifar100 [--batch=128] [--dtype=bfloat16] [--torch]
python -m ldl_jax.bench step --model=resnet50 --synthetic [--batch=256] [--dtype=bfloat16] [--torch] [--trace=DIR]
python -m ldl_jax.bench input --root=DIR [--size=224] [--cores=1] [--no-antialias] [--torch] [--seconds=5]
python -m ldl_jax.bench metrics [--examples=50000] [--classes=1000]
"""

import argparse
import sys
from pathlib import Path

from ldl_jax.bench import input, memory, metrics, step

CONFIG = Path(__file__).parents[2] / "configs" / "digits_online.py"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m ldl_jax.bench", description=__doc__.split("\n")[0])
    made.add_argument("what", choices=("step", "input", "metrics"), help="train step, input, or figures")
    made.add_argument("--config", default=CONFIG, help="whose step is measured; digits_online unless given")
    made.add_argument("--model", help="instead of a config: a network with its depth, as resnet18 or cifar_resnet20")
    made.add_argument("--set", choices=tuple(step.SHAPES), default="cifar100", help="whose image shape and classes")
    made.add_argument("--synthetic", action="store_true", help="ImageNet's shape and number of images: --set=imagenet")
    made.add_argument("--batch", type=int, default=128, help="images a step")
    made.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of activations")
    made.add_argument("--peak-tflops", type=float, help="the device's peak for that type, to show the share reached")
    made.add_argument("--torch", action="store_true", help="PyTorch's step beside it (extra `peers`)")
    made.add_argument("--kinds", default="", help="of what is added, only these, separated by commas; all unless given")
    made.add_argument("--trace", help="folder for a profiler trace of the step with a memory")
    made.add_argument("--root", default="", help="of input: an image folder with train/<class>/*.JPEG")
    made.add_argument("--size", type=int, default=224, help="of input: pixels of a side")
    made.add_argument("--cores", type=int, help="of input: how many may be used; all unless given")
    made.add_argument("--no-antialias", action="store_true", help="of input: plain bilinear interpolation")
    made.add_argument("--examples", type=int, default=50_000, help="of metrics: how many")
    made.add_argument("--classes", type=int, default=1000, help="of metrics: how many")
    made.add_argument("--rounds", type=int, default=7, help="alternations")
    made.add_argument("--seconds", type=float, default=1.0, help="seconds of a turn")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run a benchmark by name and print its table; returns the exit status."""
    chosen = parser().parse_args(argv)
    turns = {"rounds": chosen.rounds, "seconds": chosen.seconds}
    try:
        if chosen.what == "input":
            made = {"size": chosen.size, "batch": chosen.batch, "antialias": not chosen.no_antialias}
            print(input.measure(chosen.root, **turns, **made, cores=chosen.cores, peers=chosen.torch))
        elif chosen.what == "metrics":
            print(metrics.measure(examples=chosen.examples, classes=chosen.classes, **turns))
        elif chosen.model:
            name = "imagenet" if chosen.synthetic else chosen.set
            c = step.settings(chosen.model, batch=chosen.batch, dtype=chosen.dtype, name=name)
            beside = {"peak": chosen.peak_tflops, "peers": chosen.torch, "trace": chosen.trace}
            beside["only"] = tuple(filter(None, chosen.kinds.split(",")))
            print(step.measure_kinds(c, name, **beside, **turns))
        else:
            print(step.measure(chosen.config, **turns), memory.measure(**turns), sep="\n\n")
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
