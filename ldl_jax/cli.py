"""What the commands share: command lines whose faults are one sentence, flags of a config, and the
exit status.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from ldl_jax.errors import Failed, Usage, one_line

HELP = frozenset({"--help", "-h", "-help", "--helpfull"})
PROGRAM = "ldl_jax"  # absl expects the program's name before the arguments


class Parser(argparse.ArgumentParser):
    """A command line that raises Usage in one sentence where it is not understood; options are not
    abbreviated.
    """

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


class CommandLine(NamedTuple):
    """What a command line with `--config` says, beside the flags of the command's own."""

    words: list[str]  # those that are no flags
    config: ConfigDict | None  # with its overrides; None without --config
    file: str | None  # the config's FILE or FILE:ARGUMENT


def read_flags(
    values: flags.FlagValues,
    argv: list[str],
    *,
    read: Callable[[str], ConfigDict],
    unknown_field: Callable[[str], str | None],
) -> CommandLine:
    """Read `argv`, without the program's name, into `values`: `--config`, its overrides and the
    command's own flags.

    read: the config of FILE or FILE:ARGUMENT; called once. unknown_field: a sentence about a dotted
    field that is not there, or None. Raises Usage in one sentence that names the field or the file.
    """
    config_flag = flags.FlagValues()
    flags.DEFINE_string("config", None, "a config file", flag_values=config_flag)
    for flag_values in (config_flag, values):
        flag_values.set_gnu_getopt(True)  # flags may come after words
    rest = [PROGRAM, *argv]
    try:
        # The file comes first, wherever it is named: its fields are the flags that may override
        # them.
        rest = config_flag(rest, known_only=True)
        file, config = config_flag.config, None
        if file is not None:
            config = read(file)
            config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
        return CommandLine(values(rest)[1:], config, file)
    except (AttributeError, KeyError) as error:
        raise Usage(_unknown(rest, unknown_field) or str(error)) from None
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise Usage(one_line(error)) from None


def _unknown(argv: list[str], unknown_field: Callable[[str], str | None]) -> str | None:
    """The sentence about the first override of a field that is not there."""
    names = [
        arg.partition("=")[0].lstrip("-")
        for arg in argv
        if arg.startswith(("--config.", "-config."))
    ]
    sentences = [unknown_field(name.removeprefix("config.")) for name in names]
    sentences += [
        _unknown_option(name) for name in names if name.startswith("config.model.options.")
    ]
    return next(filter(None, sentences), None)


def _unknown_option(field: str) -> str:
    block, _, name = field.rpartition(".")
    return f"{block} has no field {name!r}; there are those that the config file sets, for a module of yours"


def folder(path: Path) -> Path:
    """A folder that may be written to, there or not. Raises ValueError where a file has its name."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path} is a file; allowed is a folder")
    return path


def reason(error: OSError) -> str:
    """What the system said, after the name of the file where there is one."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def status(work: Callable[[], object]) -> int:
    """Do the work of a command; returns the exit status.

    0 done, 1 a result cannot be written, 2 the input is not right; that of a `Failed` where one is
    raised. Each fault is one sentence on stderr. A pipe that was closed, as by `head`, ends the
    command with status 1 and no sentence.
    """
    try:
        work()
        # here, where a closed pipe can be answered, and not when the interpreter ends
        sys.stdout.flush()
    except (Usage, ValueError) as error:
        return _fail(error, 2)
    except Failed as error:
        return _fail(error, error.status)
    except BrokenPipeError:
        _close_output()
        return 1
    except OSError as error:
        return _fail(reason(error), 1)
    return 0


def _fail(why: object, code: int) -> int:
    print(f"error: {why}", file=sys.stderr)
    return code


def _close_output() -> None:
    """Send to nowhere what is left to print: at its end the interpreter would try again, and
    complain.
    """
    with contextlib.suppress(OSError, ValueError):  # where the output is no file, as in a notebook
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
