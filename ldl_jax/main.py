"""The command that trains a config, resumes a run, or evaluates it again.

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

  --config=FILE         config file, such as configs/digits_online.py; FILE:ARGUMENT if it takes an argument
  --config.FIELD=VALUE  override one of the fields below
  --workdir=DIR         run directory (default: runs/<config name>-seed<seed>)
  --mode=train|eval     train (or resume) a run, or evaluate its latest checkpoint again
  --dry-run             print durations, memory use and communication, without training
  --devices=N           number of devices to plan for, with --dry-run (default: those available)
  --timed-steps=N       train N steps with --dry-run and discard them, to measure speed and peak memory (default: 20 on
                        a GPU or TPU, 0 on a CPU or with --devices)
  --extend              allow an existing run to become longer
  --profile=10:15       write a profiler trace of steps 10 to 15
  --join-seconds=300    time to wait at startup for all processes of a multi-process job
"""

# Parts of JAX's messages when another process of the job is lost.
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
    """Parse a command line, without the program's name. Raises Usage, naming the field or file."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "run directory", flag_values=values)
    flags.DEFINE_enum("mode", "train", ("train", "eval"), "train or evaluate", flag_values=values)
    flags.DEFINE_bool("dry-run", False, "print sizes without training", flag_values=values)
    flags.DEFINE_integer("devices", None, "devices to plan for, with --dry-run", flag_values=values)
    flags.DEFINE_integer(
        "timed-steps", None, "steps to time, with --dry-run", 0, flag_values=values
    )
    flags.DEFINE_bool("extend", False, "allow a run to become longer", flag_values=values)
    flags.DEFINE_integer(
        "join-seconds", 300, "time to wait for the processes of the job", 1, flag_values=values
    )
    flags.DEFINE_string("profile", None, "steps to trace, FIRST:LAST", flag_values=values)
    line = cli.read_flags(values, argv, read=config.read, unknown_field=config.unknown_field)
    if line.words:
        raise Usage(f"unexpected argument {line.words[0]!r}; options start with --")
    return values, line


def settings(values: flags.FlagValues, line: CommandLine) -> tuple[ConfigDict, Path]:
    """The config and the run directory. Raises Usage if there is no config."""
    c = line.config
    if c is None:
        c = _config_of_run(values)
    if values.workdir is not None:
        return c, Path(values.workdir)
    file, _, argument = line.file.partition(":")
    name = Path(file).stem
    if argument:
        name = f"{name}-{argument}"
    return c, Path(f"runs/{name}-seed{c.seed}")


def _config_of_run(values: flags.FlagValues) -> ConfigDict:
    """The config stored in the run directory, for `--mode=eval` without `--config`."""
    from ldl_jax import workdir

    if values.workdir is None or values.mode != "eval":
        raise Usage(
            "--config is missing; pass a config file, such as --config=configs/digits_online.py"
        )
    c = workdir.read_config(values.workdir)
    if c is None:
        raise Usage(f"--workdir {values.workdir} holds no run to evaluate; train one there first")
    return c


def _parse_profile(text: str | None) -> tuple[int, int] | None:
    """The first and last step of `--profile=FIRST:LAST`; None without the flag."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise Usage(f"--profile must be FIRST:LAST with FIRST <= LAST, as in 10:15; got {text!r}")
    return int(first), int(last)


def main(argv: list[str] | None = None, *, join: bool = False) -> int:
    """Run the command and return its exit status.

    0: success; 1: training failed; 2: invalid input; 3: other processes of the job did not join or
    were lost. join: join the other processes of the job, if this process was started as part of
    one.
    """
    argv = sys.argv[1:] if argv is None else argv
    if cli.HELP & set(argv):
        return cli.status(lambda: print(USAGE + "\n" + config.describe()))
    return cli.status(lambda: _run(argv, join))


def _run(argv: list[str], join: bool) -> None:
    """Parse the command line and run the mode that it selects."""
    values, line = parse(argv)
    c, workdir = settings(values, line)
    profile = _parse_profile(values.profile)
    is_dry_run = values["dry-run"].value
    if values.devices is not None and not is_dry_run:
        raise Usage(
            f"--devices={values.devices} requires --dry-run; training uses all available devices"
        )
    timed_steps = values["timed-steps"].value
    if timed_steps is not None and not is_dry_run:
        raise Usage(f"--timed-steps={timed_steps} requires --dry-run")
    if timed_steps and values.devices is not None:
        raise Usage(
            f"--timed-steps={timed_steps} needs the devices that are here; leave out "
            f"--devices={values.devices}, which plans for others"
        )
    config.check(c)
    # Import JAX only now, so that an invalid command line fails at once.
    from ldl_jax import mesh
    from ldl_jax.training import devices, dry_run, loop, remeasure

    # A dry run plans for devices that need not exist, so it waits for no other process.
    join_seconds = values["join-seconds"].value if join and not is_dry_run else None
    try:
        devices.prepare(c, join_seconds)
        if is_dry_run:
            print(dry_run.sizes(c, values.devices, timed_steps=timed_steps))
        elif values.mode == "eval":
            remeasure.measure_again(c, workdir)
        else:
            loop.train(c, workdir, extend=values.extend, profile=profile)
    except loop.NonFinite as error:
        raise Failed(error) from error
    except mesh.NotJoined as error:
        raise Failed(error, 3) from error
    except BrokenPipeError:
        # The reader of stdout has closed it, as `head` does; that is no failure of the run, and
        # `cli.status` ends the command without a message.
        raise
    except OSError as error:
        raise Failed(
            f"{cli.reason(error)}; run the same command again to resume from the last checkpoint"
        ) from error


def command() -> None:
    """Run the command as a process. If one process of a job fails, it does not wait for the others."""
    import jax

    try:
        status = main(join=True)
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        # Losing a peer is common on preemptible machines: report it in one line, not a traceback.
        reason = one_line(error, 300)
        if isinstance(error, jax.errors.JaxRuntimeError) and any(word in reason for word in GONE):
            print(
                f"error: another process of this job does not respond ({reason}); restart all processes to resume "
                "from the latest checkpoint",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        status = 3
    if status and jax.distributed.is_initialized():
        # A normal exit would wait for all processes, so leave at once.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    command()
