"""The command: train by a config, go on with a run, or measure it again.

python -m ldl_jax.main --config=configs/digits_online.py [--workdir=DIR] [--config.FIELD=VALUE ...]
"""

import os
import sys
import traceback
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from ldl_jax import cli, config
from ldl_jax.cli import CommandLine
from ldl_jax.errors import Failed, Usage, one_line

USAGE = """usage: python -m ldl_jax.main --config=FILE [options]

  --config=FILE        a config, such as configs/digits_online.py; FILE:ARGUMENT where it takes one (a schedule)
  --config.FIELD=VALUE overrides one of the fields below
  --workdir=DIR        the run's directory; runs/<config's name>-seed<seed> unless given
  --mode=train|eval    train (or go on where the run stopped), or measure the latest checkpoint again
  --dry-run            print sizes, build everything, start nothing
  --devices=N          with --dry-run: plan for so many devices; default those at hand
  --extend             let a run that is there become longer
  --profile=10:15      write a profiler trace of these steps
  --join-seconds=300   how long to wait, at the start, for all processes of a job that has several
"""

GONE = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "closed by peer",
    "Gloo",
    "NCCL",
    "heartbeat",
    "coordination",
)


def parse(argv: list[str]) -> tuple[flags.FlagValues, CommandLine]:
    """The flags of a command line, without the program's name. Raises Usage naming the field or
    file.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run's directory", flag_values=values)
    flags.DEFINE_enum("mode", "train", ("train", "eval"), "what to do", flag_values=values)
    flags.DEFINE_bool("dry-run", False, "print sizes, start nothing", flag_values=values)
    flags.DEFINE_integer(
        "devices", None, "with --dry-run: plan for so many devices", flag_values=values
    )
    flags.DEFINE_bool("extend", False, "let a run become longer", flag_values=values)
    flags.DEFINE_integer(
        "join-seconds", 300, "wait for the processes of the job", 1, flag_values=values
    )
    flags.DEFINE_string("profile", None, "steps of a trace, FIRST:LAST", flag_values=values)
    line = cli.read_flags(values, argv, read=config.read, unknown_field=config.unknown_field)
    if line.words:
        raise Usage(f"{line.words[0]!r} is not understood; options begin with --")
    return values, line


def settings(values: flags.FlagValues, line: CommandLine) -> tuple[ConfigDict, Path]:
    """The config and the run's directory. Raises Usage where one of them is missing."""
    c = line.config
    if c is None:
        c = _config_of_run(values)
    if values.workdir is not None:
        return c, Path(values.workdir)
    file, _, argument = line.file.partition(":")
    name = "-".join([Path(file).stem, *([argument] if argument else [])])
    return c, Path(f"runs/{name}-seed{c.seed}")


def _config_of_run(values: flags.FlagValues) -> ConfigDict:
    """The config of a run that is measured again, which its directory holds."""
    from ldl_jax import workdir

    if values.workdir is None or values.mode != "eval":
        raise Usage("--config is missing; name a config file, such as configs/digits_online.py")
    c = workdir.read_config(values.workdir)
    if c is None:
        raise Usage(
            f"--workdir {values.workdir} holds no run that could be measured; train one there first"
        )
    return c


def _steps(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise Usage(f"--profile is {text!r}; allowed are two steps, as in 10:15")
    return int(first), int(last)


def main(argv: list[str] | None = None, *, join: bool = False) -> int:
    """Run the command; returns the exit status.

    0 done, 1 the training failed, 2 the input is not right, 3 the other processes of the job did
    not come or went. join: become one of the processes of a job, where this one is started as such.
    """
    argv = sys.argv[1:] if argv is None else argv
    if cli.HELP & set(argv):
        return cli.status(lambda: print(USAGE + "\n" + config.describe()))
    return cli.status(lambda: _run(argv, join))


def _run(argv: list[str], join: bool) -> None:
    """Read the command line and do what it asks for."""
    values, line = parse(argv)
    c, workdir = settings(values, line)
    profile = _steps(values.profile)
    if values.devices is not None and not values["dry-run"].value:
        raise Usage(
            f"--devices is {values.devices} without --dry-run; a run takes the devices that are there"
        )
    config.check(c)
    # JAX is imported after these checks, so that a command line that is not right is answered at
    # once.
    from ldl_jax import mesh
    from ldl_jax.training import devices, dry_run, loop, remeasure

    try:
        devices.prepare(
            c, values["join-seconds"].value if join and not values["dry-run"].value else None
        )
        if values["dry-run"].value:
            print(dry_run.sizes(c, values.devices))
        elif values.mode == "eval":
            remeasure.measure_again(c, workdir)
        else:
            loop.train(c, workdir, extend=values.extend, profile=profile)
    except loop.NonFinite as error:
        raise Failed(error) from error
    except mesh.NotJoined as error:
        raise Failed(error, 3) from error
    except BrokenPipeError:  # whoever read the output has left; nothing is wrong with the run
        raise
    except OSError as error:
        raise Failed(
            f"{cli.reason(error)}; the same command goes on from the last checkpoint"
        ) from error


def command() -> None:
    """The command as a process: where it is one of several and fails, it leaves without waiting for
    the others.
    """
    import jax

    try:
        status = main(join=True)
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        reason = one_line(error, 300)
        if isinstance(error, jax.errors.JaxRuntimeError) and any(word in reason for word in GONE):
            print(
                f"error: a process of this job gives up, since another one does not answer ({reason}); start "
                "all of them again: the run goes on from its latest checkpoint",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        status = 3
    if status and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the usual way out waits for all processes
    sys.exit(status)


if __name__ == "__main__":
    command()
