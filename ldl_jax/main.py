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
from ldl_jax.errors import Failed, Usage, complain, one_line, say

USAGE = """usage: python -m ldl_jax.main --config=FILE [options]

  --config=FILE         config file, such as configs/digits_online.py; FILE:ARGUMENT if it takes an argument;
                        the name of one that comes with ldl_jax (digits_online); or RUN/config.json.
                        Not needed with the --workdir of an existing run
  --config.FIELD=VALUE  override one of the fields below
  --workdir=DIR         run directory (default: runs/<config name>-seed<seed>)
  --mode=train|eval     train (or resume) a run, or evaluate its latest checkpoint again
  --dry-run             print durations, memory use and communication, without training
  --devices=N           number of devices to plan for, with --dry-run (default: those available)
  --timed-steps=N       train N steps with --dry-run and discard them, to measure speed and peak memory (default: 20 on
                        a GPU or TPU, 0 on a CPU or with --devices)
  --trust               import modules that the run, its teachers or its initial weights name and that are not part of
                        ldl_jax, although you have not trained or trusted that run before
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
    argv = _with_stored_config(argv)
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
    line = cli.read_flags(values, argv, **config.PARSING)
    if line.words:
        raise Usage(f"unexpected argument {line.words[0]!r}; options start with --")
    return values, line


def _with_stored_config(argv: list[str]) -> list[str]:
    """The command line with the config of the run in --workdir, if it names no other config."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "config file", flag_values=values)
    flags.DEFINE_string("workdir", None, "run directory", flag_values=values)
    values.set_gnu_getopt(True)
    try:
        values([cli.PROGRAM, *argv], known_only=True)
    except flags.Error:
        return argv  # the parser of all flags says what is wrong
    if values.config is not None or values.workdir is None:
        return argv
    stored = config.stored_config(values.workdir)
    return argv if stored is None else [f"--config={stored}", *argv]


def settings(values: flags.FlagValues, line: CommandLine) -> tuple[ConfigDict, Path]:
    """The config and the run directory. Raises Usage if there is no config."""
    if line.config is None:
        if values.workdir is None:
            raise Usage(
                "--config is missing; pass a config file, such as "
                "--config=configs/digits_online.py, or the --workdir of a run to resume it"
            )
        purpose = "evaluate; train one there first" if values.mode == "eval" else "resume"
        way_out = "" if values.mode == "eval" else "; pass --config to start one there"
        raise Usage(f"--workdir {values.workdir} holds no run to {purpose}{way_out}")
    if values.workdir is not None:
        return line.config, Path(values.workdir)
    return line.config, config.run_directory(line.file, line.config, extend=values.extend)


def _scale_boundaries(c: ConfigDict, line: CommandLine, directory: Path, *, extend: bool) -> str:
    """Move the boundaries of the schedule if a flag changed the epochs alone; returns a note, or ''."""
    from ldl_jax import workdir

    if line.unchanged is None:
        return ""
    stored = workdir.read_config(directory)
    return config.scale_boundaries(c, line.unchanged, line.overridden, stored, extend=extend)


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

    0: success, or SIGTERM or SIGHUP ended a run that has saved; 1: training failed; 2: invalid input;
    3: other processes of the job did not join or were lost; 128 + N: signal N ended it, 130 for
    Ctrl-C. join: join the other processes of the job, if this process was started as part of
    one.
    """
    argv = sys.argv[1:] if argv is None else argv
    if cli.HELP & set(argv):
        return cli.status(lambda: say(USAGE + "\n" + _fields(argv)))
    return cli.status(lambda: _run(argv, join), memory=cli.LOWER_BATCH)


def _fields(argv: list[str]) -> str:
    """The fields that --help shows: with those of the user's own plugs that the flags name."""
    rest = [word for word in argv if word not in cli.HELP]
    try:
        if any(word.lstrip("-").startswith("config=") or word.endswith("-config") for word in rest):
            c = parse(rest)[1].config
        else:
            c = config.default()
            named = cli.plug_names(rest, config.NAMES)
            config.add_options(c, named)
            for name, value in named.items():
                is_list = isinstance(config.flatten(c)[name], list)
                named[name] = (value,) if is_list and isinstance(value, str) else value
            c.update_from_flattened_dict(named)
        return config.describe(c)
    except (Usage, ValueError, TypeError, flags.Error) as error:
        # Help is most wanted when something is wrong.
        return f"{config.describe()}\n\nYour own plugs are not shown: {one_line(error)}"


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

    consent = config.Consent(line.trust)
    note = _scale_boundaries(c, line, workdir, extend=values.extend)
    # A dry run plans for devices that need not exist, so it waits for no other process.
    join_seconds = values["join-seconds"].value if join and not is_dry_run else None
    try:
        devices.prepare(c, join_seconds)
        if note and mesh.is_main():
            say(note, flush=True)
        if is_dry_run:
            say(dry_run.sizes(c, values.devices, timed_steps=timed_steps, consent=consent))
        elif values.mode == "eval":
            remeasure.measure_again(c, workdir, consent=consent)
        else:
            loop.train(c, workdir, extend=values.extend, profile=profile, consent=consent)
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
    try:
        status = main(join=True)
    except BaseException as error:
        if not _is_in_a_job():
            raise
        import jax

        # Losing a peer is common on preemptible machines: report it in one line, not a traceback.
        reason = one_line(error, 300)
        if isinstance(error, jax.errors.JaxRuntimeError) and any(word in reason for word in GONE):
            complain(
                f"error: another process of this job does not respond ({reason}); restart all processes to resume "
                "from the latest checkpoint"
            )
        else:
            traceback.print_exc()
        status = 3
    if status and _is_in_a_job():
        # A normal exit would wait for all processes, so leave at once.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _is_in_a_job() -> bool:
    """Whether this process has joined the processes of a job."""
    # An invalid command line ends before JAX is imported.
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


if __name__ == "__main__":
    command()
