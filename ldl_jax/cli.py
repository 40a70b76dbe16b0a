"""What the commands share: a command line whose faults are one sentence, and the exit status."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ldl_jax.errors import Usage


class Parser(argparse.ArgumentParser):
    """A command line that raises Usage in one sentence where it is not understood; options are not abbreviated."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        """Raise Usage instead of leaving the program."""
        raise Usage(f"{message}; --help shows what is allowed")


class Once(argparse.Action):
    """An option that may be given once."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Keep the value; raises Usage where there is one already."""
        if getattr(namespace, self.dest) is not None:
            raise Usage(f"{option_string} is given twice; allowed is once")
        setattr(namespace, self.dest, values)


def folder(path: Path) -> Path:
    """A folder that may be written to, there or not. Raises ValueError where a file has its name."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path} is a file; allowed is a folder")
    return path


def status(work: Callable[[], object]) -> int:
    """Do the work; the exit status: 0 done, 1 a result cannot be written, 2 the input is not right."""
    try:
        work()
    except (Usage, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}", file=sys.stderr)
        return 1
    return 0
