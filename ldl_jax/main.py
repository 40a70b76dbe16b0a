"""The command: train by a config, go on with a run, or measure it again.

python -m ldl_jax.main --config=configs/digits_online.py [--workdir=DIR] [--config.FIELD=VALUE ...]
"""

import os
import sys
import traceback
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from ldl_jax import config
from ldl_jax.errors import Usage, one_line

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

GONE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "closed by peer", "Gloo", "NCCL", "heartbeat", "coordination")


def parse(argv: list[str]) -> flags.FlagValues:
    """The flags of a command line, without the program's name. Raises Usage or ValueError naming the field or file."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run's directory", flag_values=values)
    flags.DEFINE_enum("mode", "train", ("train", "eval"), "what to do", flag_values=values)
    flags.DEFINE_bool("dry-run", False, "print sizes, start nothing", flag_values=values)
    flags.DEFINE_integer("devices", None, "with --dry-run: plan for so many devices", flag_values=values)
    flags.DEFINE_bool("extend", False, "let a run become longer", flag_values=values)
    flags.DEFINE_integer("join-seconds", 300, "wait for the processes of the job", 1, flag_values=values)
    flags.DEFINE_string("profile", None, "steps of a trace, FIRST:LAST", flag_values=values)
    words = read_flags(values, argv)
    if words:
        raise Usage(f"{words[0]!r} is not understood; options begin with --")
    return values


def read_flags(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Read `argv` into `values`, and into its flag `config`, which is added; returns the words that are no flags.

    Raises Usage or ValueError naming the field or file.
    """
    named = ["ldl_jax", *argv]
    values.set_gnu_getopt(True)  # flags may come after words
    config_flags.DEFINE_config_file("config", None, "a config file", flag_values=values, sys_argv=named)
    for arg, following in zip(argv, [*argv, ""][1:], strict=True):
        if arg.startswith(("--config=", "-config=")):
            config.read(arg.partition("=")[2])  # ml_collections would tell of a fault much later, and at length
        elif arg in ("--config", "-config") and following:
            config.read(following)
    try:
        words = values(named)[1:]
        getattr(values["config"].value, "seed", None)  # OSError where a --flagfile names what cannot be read
        return words
    except (AttributeError, KeyError) as error:
        fields = [arg.partition("=")[0].lstrip("-") for arg in argv if arg.startswith(("--config.", "-config."))]
        sentences = [config.unknown_field(field.removeprefix("config.")) for field in fields]
        sentences += [_unknown_option(field) for field in fields if field.startswith("config.model.options.")]
        raise Usage(next(filter(None, sentences), f"{error}")) from None
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise Usage(one_line(error)) from None


def _unknown_option(field: str) -> str:
    place, _, name = field.rpartition(".")
    return f"{place} has no field {name!r}; there are those that the config file sets, for a module of yours"


def settings(values: flags.FlagValues) -> tuple[ConfigDict, Path]:
    """The config and the run's directory. Raises Usage where one of them is missing."""
    c = values.config
    workdir = values.workdir
    if c is None:
        from ldl_jax import workdir as run

        c = run.read_config(workdir) if workdir and values.mode == "eval" else None
        if c is None and workdir and values.mode == "eval":
            raise Usage(f"--workdir {workdir} holds no run that could be measured; train one there first")
        if c is None:
            raise Usage("--config is missing; name a config file, such as configs/digits_online.py")
    if workdir is None:
        file, _, argument = config_flags.get_config_filename(values["config"]).partition(":")
        name = "-".join([Path(file).stem, *([argument] if argument else [])])
        workdir = f"runs/{name}-seed{c.seed}"
    return c, Path(workdir)


def _steps(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise Usage(f"--profile is {text!r}; allowed are two steps, as in 10:15")
    return int(first), int(last)


def prepare(c: ConfigDict, seconds: int | None = None) -> None:
    """Set what has to be set before the first use of a device, and join the processes of the job in `seconds`.

    None: there are no others. Raises mesh.NotJoined where not all of them come.
    """
    import jax

    if c.train.deterministic:
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldl_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if seconds is not None:
        from ldl_jax import mesh

        mesh.join(seconds)


def main(argv: list[str] | None = None, *, join: bool = False) -> int:
    """Run the command; returns the exit status.

    0 done, 1 the training failed, 2 the input is not right, 3 the other processes of the job did not come or went.
    join: become one of the processes of a job, where this one is started as such.
    """
    argv = sys.argv[1:] if argv is None else argv
    if {"--help", "-h", "-help", "--helpfull"} & set(argv):
        print(USAGE + "\n" + config.describe())
        return 0
    try:
        values = parse(argv)
        c, workdir = settings(values)
        profile = _steps(values.profile)
        if values.devices is not None and not values["dry-run"].value:
            raise Usage(f"--devices is {values.devices} without --dry-run; a run takes the devices that are there")
        config.check(c)
    except (Usage, ValueError) as error:
        return _fail(error)
    from ldl_jax import mesh
    from ldl_jax.training import dry_run, loop, remeasure

    try:
        prepare(c, values["join-seconds"].value if join and not values["dry-run"].value else None)
        if values["dry-run"].value:
            print(dry_run.sizes(c, values.devices))
        elif values.mode == "eval":
            remeasure.measure_again(c, workdir)
        else:
            loop.train(c, workdir, extend=values.extend, profile=profile)
    except ValueError as error:
        return _fail(error)
    except loop.NonFinite as error:
        return _fail(error, 1)
    except mesh.NotJoined as error:
        return _fail(error, 3)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error
        return _fail(f"{what}; the same command goes on from the last checkpoint", 1)
    return 0


def _fail(error, status: int = 2) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


def command() -> None:
    """The command as a process: where it is one of several and fails, it leaves without waiting for the others."""
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
