"""Command lines: parsing of flags and config overrides, one-sentence errors, and exit statuses."""

import argparse
import ast
import copy
import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from ldl_jax import files, signals
from ldl_jax.errors import (
    Failed,
    Usage,
    complain,
    escape_unencodable,
    flush_output,
    one_line,
    out_of_memory,
)
from ldl_jax.files.reading import LARGEST, check_file

HELP = frozenset({"--help", "-h", "-help", "--helpfull"})
LOWER_BATCH = (
    "lower config.data.batch_size (and raise config.optimizer.accumulate by the same factor, so that "
    "each update still sees as many images), or config.data.eval_batch_size if it ran out while "
    "evaluating"
)
CLOSED_PIPE = 141  # exit status: that of a program that SIGPIPE ends, as a shell shows it
TRUST = (
    "import modules that a run names and that are not part of ldl_jax, although you have not trained "
    "or trusted that run before"
)
PROGRAM = "ldl_jax"  # absl expects the program's name before the arguments


class Parser(argparse.ArgumentParser):
    """An argument parser that raises Usage in one sentence. Options cannot be abbreviated."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        """Raise Usage instead of exiting."""
        raise Usage(f"{message}; see --help")


class Once(argparse.Action):
    """An option that may be given only once."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Store the value. Raises Usage if the option was given before."""
        if getattr(namespace, self.dest) is not None:
            raise Usage(f"{option_string} is given twice; pass it only once")
        setattr(namespace, self.dest, values)


class CommandLine(NamedTuple):
    """The parts of a command line with `--config` that are not flags of the command."""

    words: list[str]  # positional arguments
    config: ConfigDict | None  # with overrides applied; None without --config
    file: str | None  # FILE or FILE:ARGUMENT, as given
    unchanged: ConfigDict | None = None  # the config without overrides
    overridden: tuple[str, ...] = ()  # dotted fields that flags override
    trust: bool = False  # whether modules that runs name may be imported: --trust


def read_flags(
    values: flags.FlagValues,
    argv: list[str],
    *,
    read: Callable[..., ConfigDict],
    unknown_field: Callable[[str, ConfigDict | None], str | None],
    names: Iterable[str],
    add_options: Callable[[ConfigDict, dict[str, object]], object],
) -> CommandLine:
    """Parse `argv`, without the program's name: `--config`, its overrides and the flags in `values`.

    read: (FILE or FILE:ARGUMENT, given=, trust=) -> config; called once, with the values of the fields
    `names` in the flags, and whether --trust is given. unknown_field: (dotted field, config) -> a
    sentence if the config has no such field, else None. names: dotted fields that name plugs.
    add_options: (config, values of these fields in the flags) adds the options of the user's own
    plugs to the config, so that they have flags too. Raises Usage, naming the field or file.
    """
    config_flag = flags.FlagValues()
    flags.DEFINE_string("config", None, "config file", flag_values=config_flag)
    flags.DEFINE_bool("trust", False, "run code that a run names", flag_values=config_flag)
    # Flags may follow positional arguments.
    for flag_values in (config_flag, values):
        flag_values.set_gnu_getopt(True)
    arguments = [PROGRAM, *argv]
    config = None
    try:
        # Read the config file first, wherever it is named: its fields define the override flags.
        arguments = config_flag(arguments, known_only=True)
        file = config_flag.config
        unchanged = None
        if file is not None:
            given = plug_names(arguments[1:], names)
            config = read(file, given=given, trust=config_flag.trust)
            # The flags may name other plugs than the file, whose options have flags as well.
            add_options(config, given)
            unchanged = copy.deepcopy(config)
            config_flags.DEFINE_config_dict(
                "config", config, flag_values=values, sys_argv=arguments
            )
        words = [str(files.home(word)) for word in values(arguments)[1:]]
        if "workdir" in values and values["workdir"].value is not None:
            values["workdir"].value = str(files.home(values["workdir"].value))
        if config is not None:
            expand_homes(config)
            expand_homes(unchanged)
        overridden = tuple(_overridden(arguments))
        return CommandLine(words, config, file, unchanged, overridden, config_flag.trust)
    except (AttributeError, KeyError) as error:
        # ml_collections raises these for an unknown field, with a text that does not name it.
        raise Usage(_unknown(arguments, unknown_field, config) or str(error)) from None
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise Usage(one_line(error)) from None


def expand_homes(config: ConfigDict) -> None:
    """Expand `~` at the beginning of every path in a config; no other field may begin with it."""

    def expanded(value):
        return str(files.home(value)) if isinstance(value, str) and value[:1] == "~" else value

    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            expand_homes(value)
        elif isinstance(value, tuple):
            config[name] = tuple(map(expanded, value))
        elif isinstance(value, str):
            config[name] = expanded(value)


def plug_names(argv: list[str], names: Iterable[str]) -> dict[str, object]:
    """The values that the flags of the fields `names` have in a command line, by field.

    argv: without the program's name. Several names are a tuple; other flags are passed over.
    """
    values = flags.FlagValues()
    for name in names:
        flags.DEFINE_multi_string(f"config.{name}", None, "plug", flag_values=values)
    values.set_gnu_getopt(True)
    values([PROGRAM, *argv], known_only=True)
    given = {}
    for name in names:
        texts = values[f"config.{name}"].value
        if texts:
            parsed = [_literal(text) for text in texts]
            # Fields of several names take a tuple, or the flag several times.
            given[name] = parsed[-1] if len(parsed) == 1 else tuple(parsed)
    return given


def _literal(text: str):
    """The Python literal that a text is, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _unknown(
    argv: list[str],
    unknown_field: Callable[[str, ConfigDict | None], str | None],
    config: ConfigDict | None,
) -> str | None:
    """The sentence about the first override of a field that does not exist, or None."""
    names = _overridden(argv)
    for name in names:
        message = unknown_field(name, config)
        if message:
            return message
    # Options of the user's own model are free, so `unknown_field` cannot know them.
    for name in names:
        if name.startswith("model.options."):
            return _unknown_option(f"config.{name}", config)
    return None


def _overridden(argv: list[str]) -> list[str]:
    """The dotted fields that `--config.FIELD=VALUE` overrides, in their order."""
    names = []
    for argument in argv:
        if argument.startswith(("--config.", "-config.")):
            names.append(argument.partition("=")[0].lstrip("-").removeprefix("config."))
    return names


def _unknown_option(field: str, config: ConfigDict | None) -> str:
    block, _, name = field.rpartition(".")
    options = [] if config is None else sorted(config.model.options)
    if options:
        return f"{block} has no field {name!r}; its fields are {', '.join(options)}"
    return f"{block} has no field {name!r}; options of your own module must be set in the config file first"


def add_columns(command: argparse.ArgumentParser) -> None:
    """Add the flags that say what is in files of predictions: --kind, --classes, --label-column."""
    command.add_argument(
        "--kind",
        choices=("logits", "probabilities"),
        help="kind of the scores in all files (default: detected)",
    )
    command.add_argument(
        "--classes",
        metavar="A,B,C",
        help="columns of a .csv that are classes, in this order, or names of the classes of other "
        "files; or a text file with a name per line",
    )
    command.add_argument(
        "--label-column",
        metavar="NAME",
        help="column of a .csv, or array of an .npz, that holds the labels (default: label, "
        "target, y_true or another usual name)",
    )


def class_names(text: str | None) -> tuple[str, ...] | None:
    """The names of --classes=A,B,C, or those in its text file. Raises ValueError if there are none."""
    if text is None:
        return None
    file = files.home(text)
    if "," in text and not file.is_file():
        names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]
    else:
        try:
            check_file(file, LARGEST)
            names = file.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            # A single column: the probability of one of two classes.
            names = [text]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"--classes {text} cannot be read ({reason})") from None
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"--classes must be different names, got {text}")
    return tuple(names)


def folder(given: str | None, default: Path) -> Path:
    """The output folder: that of --out, or the default.

    Raises ValueError if it is a file, or if the default is a symbolic link.
    """
    path = files.home(given) if given else default
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out must be a folder, got the file {path}")
    # The default lies beside files that may come from others.
    if not given:
        files.refuse_links(path)
    return path


def set_fields(texts: list[str]) -> dict[str, str]:
    """The fields of --set, each with the text of its value."""
    fields = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals:
            raise Usage(f"--set must be FIELD=VALUE, such as data.root=DIR; got {text!r}")
        fields[field.removeprefix("config.")] = value
    return fields


def writable(folder: Path) -> bool:
    """Whether files can be written in a folder, which need not exist; asked before long work.

    If not, says so at once; the command then prints its results and raises `Failed` without a text.
    """
    try:
        files.check_writable(folder)
    except OSError as error:
        complain(f"error: {reason(error)}; the results are only printed")
        return False
    return True


def reason(error: OSError) -> str:
    """The system's message for an error, with the name of the file if it is known."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def status(work: Callable[[], object], *, memory: str = "free memory, or use less data") -> int:
    """Run a command and return its exit status; each error is one sentence on stderr.

    0: success; 1: a result cannot be written, or memory ran out; 2: invalid input; 141: stdout was
    closed, as by `| head`, which is not an error and prints nothing; for `Failed`, its own status;
    after a signal, that of `signals.Interrupted`. memory: what to do if memory runs out.
    """
    escape_unencodable()
    code = 0
    ended = None
    try:
        with signals.raised():
            work()
    except signals.Interrupted as stop:
        if not stop.told:
            complain(stop)
        code = stop.status
    except SystemExit as error:  # argparse has printed its help
        ended = error
    except (Usage, ValueError) as error:
        code = _fail(error, 2)
    except Failed as error:
        # Without a text, the reason has been printed already.
        code = _fail(error, error.status) if str(error) else error.status
    except BrokenPipeError:
        code = CLOSED_PIPE
    except OSError as error:
        code = _fail(reason(error), 1)
    except (MemoryError, RuntimeError) as error:
        ran_out = out_of_memory(error)
        if ran_out is None:
            raise
        code = _fail(f"{ran_out}; {memory}", 1)
    # Flush while a closed pipe can still be caught; the interpreter's exit is too late.
    try:
        if not flush_output():
            return code or CLOSED_PIPE
    except OSError as error:
        return _fail(f"the output cannot be written: {reason(error)}", 1)
    if ended is not None:
        raise ended
    return code


def _fail(message: object, code: int) -> int:
    complain(f"error: {message}")
    return code
