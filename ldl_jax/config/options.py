"""Options of the plugs, read from the source of their factories: name, default, type and comment.

A plug is a file ldl_jax/<folder>/<name>.py with a factory `make`, whose keyword-only options are
its config block. They are parsed from the source, so nothing is imported to read them. `own` does
the same for modules of the user's own, which have dotted names.
"""

import ast
import importlib
import re
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict, config_dict

from ldl_jax.errors import one_line

ROOM = Path(__file__).parent.parent
KINDS = {"int": int, "float": float, "str": str, "bool": bool, "tuple": tuple}
UNREADABLE = (SyntaxError, ValueError, OSError, RecursionError)  # what a broken source raises
# How a message names the field that names a plug of a folder.
FIELDS = {
    "data": "config.data.name is",
    "models": "config.model.name is",
    "mixing": "config.mixing.name is",
    "losses": "config.losses.name is",
    "labels": "config.labels names",
    "auxiliary": "config.auxiliary.names has",
    "augment": "config.augment.names has",
    "metrics": "config.eval.metrics has",
    "calibrate": "the calibrator is",
}


# Folder of plugs -> the file and the function that declare the options which all of its plugs have.
SHARED = {"auxiliary": ("auxiliary/base.py", "timed")}


class Option(NamedTuple):
    """An option of a factory, as the source has it: its name, default, type and comment."""

    name: str
    value: object
    kind: str  # of the annotation; needed if the default is None
    text: str  # the comment behind it


class Factory(NamedTuple):
    """What the source of a factory says about its options."""

    sentence: str  # the first sentence of its docstring
    options: list[Option]
    unread: tuple[str, ...] = ()  # options without a default, or whose default is no literal
    free: bool = False  # whether it takes further options


# A study of hundreds of cells makes as many configs, each with the blocks of all plugs.
@lru_cache(None)
def plugs(folder: str, function: str = "make") -> tuple[str, ...]:
    """Names of the plugs in a folder of ldl_jax: its files with that factory, except base.

    Files that cannot be read are left out, so that they break nothing else: see `fault`.
    """
    names = []
    for path in (ROOM / folder).glob("*.py"):
        is_plug = path.stem != "base" and _has_function(path, function)
        if is_plug and (function != "make" or not fault(folder, path.stem)):
            names.append(path.stem)
    return tuple(sorted(names))


def fault(folder: str, name: str) -> str:
    """Why the file of a plug cannot be read; '' if it can, or if there is no such file."""
    if not (ROOM / folder / f"{name}.py").is_file():
        return ""
    try:
        block(f"{folder}/{name}.py")
    except UNREADABLE as error:
        return one_line(error)
    return ""


def plug(folder: str, name: str) -> ModuleType:
    """The module of a plug: ldl_jax/<folder>/<name>.py, or the module of a dotted name.

    Raises ValueError, naming it and the cause, if it cannot be imported.
    """
    try:
        return importlib.import_module(name if "." in name else f"ldl_jax.{folder}.{name}")
    except (Exception, SystemExit) as error:  # a broken file may raise anything
        raise cannot_import(FIELDS[folder], name, error) from error


def cannot_import(field: str, name: str, error: BaseException) -> ValueError:
    """The error that a module which a field names cannot be imported."""
    reason = one_line(error, 300)
    if not isinstance(error, ImportError | SyntaxError):
        reason = f"{type(error).__name__}: {reason}"
    return ValueError(f"{field} {name!r}, which cannot be imported ({reason})")


def make_plug(folder: str, name: str, kind: type | None, *arguments, **options):
    """What the factory of a plug makes, of type `kind`; None for anything callable.

    A dotted name stands for a module of the user's own: whatever goes wrong there is a ValueError
    in one sentence that names the module. Errors of the package's own plugs are passed on.
    """
    module = plug(folder, name)
    if "." not in name:
        return module.make(*arguments, **options)
    if not callable(getattr(module, "make", None)):
        raise ValueError(f"{FIELDS[folder]} {name!r}, which must have a function make()")
    made = called(f"{name}: make()", module.make, *arguments, **options)
    if kind is None and not callable(made):
        raise ValueError(f"{name}: make() must return a function, got {type(made).__name__}")
    if kind is not None and not isinstance(made, kind):
        raise ValueError(f"{name}: make() must return a {kind.__name__}, got {type(made).__name__}")
    return made


def called(what: str, function, *arguments, **options):
    """The result of a function of the user's own; its errors as a ValueError that names `what`."""
    try:
        return function(*arguments, **options)
    except ValueError as error:
        raise ValueError(f"{what}: {one_line(error, 500)}") from error
    except Exception as error:
        raise ValueError(
            f"{what} failed ({type(error).__name__}: {one_line(error, 300)})"
        ) from error


def options_of(section: ConfigDict, name: str) -> dict[str, object]:
    """The options of a plug: its block in a section of the config, or {} if it has none."""
    block = section
    for part in name.split("."):
        block = block.get(part) if isinstance(block, ConfigDict) else None
    if not isinstance(block, ConfigDict):
        return {}
    # A package may be named like a module in it: then its block contains another.
    return {key: value for key, value in block.items() if not isinstance(value, ConfigDict)}


def _has_function(path: Path, name: str) -> bool:
    try:
        return name in _functions(path)
    except UNREADABLE:
        return False


@lru_cache(None)
def _functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_bytes())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@lru_cache(None)
def read_options(file: str, function: str = "make") -> tuple[str, list[Option]]:
    """The first sentence of a factory's docstring, and its keyword-only options.

    The file is parsed, not imported. Raises ValueError if it has no such factory.
    """
    factory = parse((ROOM / file).read_text(encoding="utf-8"), function)
    if factory is None:
        raise ValueError(f"ldl_jax/{file} must have a function {function}(), which makes the plug")
    if factory.unread:
        raise ValueError(no_literal(factory.unread[0], function))
    if function == "make":
        return factory.sentence, with_shared(Path(file).parts[0], factory).options
    return factory.sentence, factory.options


def with_shared(folder: str, factory: Factory) -> Factory:
    """A factory with the options that all plugs of its folder have, as far as it has not declared
    them with a default of its own.
    """
    if folder not in SHARED:
        return factory
    options = {option.name: option for option in factory.options}
    for option in read_options(*SHARED[folder])[1]:
        options.setdefault(option.name, option)
    return factory._replace(options=list(options.values()))


def no_literal(option: str, function: str = "make") -> str:
    """The message that the default of an option cannot be read off the source."""
    return f"the option {option!r} of {function}() must have a literal default, such as 0.9"


def parse(text: str, function: str = "make", *, positional: bool = False) -> Factory | None:
    """What a source says about the options of its factory; None if it defines no such function.

    Options are its keyword-only parameters; with `positional`, also others that have a default.
    Raises SyntaxError or ValueError if the text is no source.
    """
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            break
    else:
        return None
    options = []
    unread = []
    for arg, value in _parameters(node.args, positional):
        # The comment stands on the line on which the option ends.
        comment = lines[(value or arg).end_lineno - 1].partition("  # ")[2]
        # 'int | None' is an int that may be absent, and 'tuple[str, ...]' a tuple.
        kind = re.split(r"[ \[]", ast.unparse(arg.annotation))[0] if arg.annotation else "str"
        try:
            options.append(Option(arg.arg, ast.literal_eval(value), kind, comment.strip()))
        except (ValueError, TypeError):  # TypeError: no default at all
            unread.append(arg.arg)
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    # 'et al. 2016' does not end a sentence.
    sentence = re.split(r"(?<! al\.)(?<=\.)\s", paragraph, maxsplit=1)[0]
    return Factory(sentence, options, tuple(unread), node.args.kwarg is not None)


def _parameters(
    arguments: ast.arguments, positional: bool
) -> list[tuple[ast.arg, ast.expr | None]]:
    """(parameter, default) of all parameters that are options; None: it has no default."""
    pairs = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if positional:
        parameters = arguments.posonlyargs + arguments.args
        first = len(parameters) - len(arguments.defaults)
        pairs += list(zip(parameters[first:], arguments.defaults, strict=True))
    return pairs


def block(file: str) -> ConfigDict:
    """The config block of a factory; an option with the default None becomes a placeholder of its
    type.
    """
    return block_of(read_options(file)[1])


def block_of(options: list[Option]) -> ConfigDict:
    """The config block of options. Raises ValueError if one is of a type that configs do not have."""
    made = ConfigDict()
    for option in options:
        value = option.value
        if hasattr(ConfigDict, option.name):
            raise ValueError(f"the option {option.name!r} must have another name")
        if value is None:
            if option.kind not in KINDS:
                kinds = ", ".join(f"{kind} | None" for kind in KINDS)
                raise ValueError(
                    f"the option {option.name!r} has the default None, so its annotation must be "
                    f"one of {kinds}, got {option.kind!r}"
                )
            value = config_dict.placeholder(KINDS[option.kind])
        elif option.kind == "float" and type(value) is int:
            value = float(value)
        elif isinstance(value, list):
            value = tuple(value)
        if not _fits(value):
            raise ValueError(
                f"the option {option.name!r} must have a number, a string, a bool, None, or a tuple "
                f"of numbers or of strings as its default, got {value!r}"
            )
        made[option.name] = value
    return made


def _fits(value) -> bool:
    """Whether a default is of a type that flags and config.json can hold."""
    plain = (bool, int, float, str)
    if isinstance(value, tuple):
        kinds = {isinstance(item, str) for item in value}
        return len(kinds) < 2 and all(isinstance(item, plain) for item in value)
    return isinstance(value, (*plain, config_dict.FieldReference))
