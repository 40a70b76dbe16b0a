"""Options of the plugs, read from the source of their factories: name, default, type and comment.

A plug is a file ldl_jax/<folder>/<name>.py with a factory `make`, whose keyword-only options are
its config block. They are parsed from the source, so nothing is imported to read them.
"""

import ast
import importlib
import re
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict, config_dict

ROOM = Path(__file__).parent.parent


class Option(NamedTuple):
    """An option of a factory, as the source has it: its name, default, type and comment."""

    name: str
    value: object
    kind: str  # of the annotation; needed if the default is None
    text: str  # the comment behind it


def plugs(folder: str, function: str = "make") -> tuple[str, ...]:
    """Names of the plugs in a folder of ldl_jax: its files with that factory, except base."""
    names = []
    for path in (ROOM / folder).glob("*.py"):
        if path.stem != "base" and _has_function(path, function):
            names.append(path.stem)
    return tuple(sorted(names))


def plug(folder: str, name: str) -> ModuleType:
    """The module of a plug, ldl_jax/<folder>/<name>.py."""
    return importlib.import_module(f"ldl_jax.{folder}.{name}")


@lru_cache(None)
def _has_function(path: Path, name: str) -> bool:
    return any(
        isinstance(node, ast.FunctionDef) and node.name == name
        for node in ast.parse(path.read_text()).body
    )


@lru_cache(None)
def read_options(file: str, function: str = "make") -> tuple[str, list[Option]]:
    """The first sentence of a factory's docstring, and its keyword-only options.

    The file is parsed, not imported. Raises ValueError if it has no such factory.
    """
    text = (ROOM / file).read_text()
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            options = []
            for arg, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                # The comment stands on the line on which the option ends.
                comment = lines[(value or arg).end_lineno - 1].partition("  # ")[2]
                # 'int | None' is an int that may be absent.
                kind = ast.unparse(arg.annotation).split(" ")[0] if arg.annotation else "str"
                options.append(Option(arg.arg, ast.literal_eval(value), kind, comment.strip()))
            paragraph = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            # 'et al. 2016' does not end a sentence.
            sentence = re.split(r"(?<! al\.)(?<=\.)\s", paragraph, maxsplit=1)[0]
            return sentence, options
    raise ValueError(f"ldl_jax/{file} must have a function {function}(), which makes the plug")


def block(file: str) -> ConfigDict:
    """The config block of a factory; an option with the default None becomes a placeholder of its
    type.
    """
    kinds = {"int": int, "float": float, "str": str, "bool": bool, "tuple": tuple}
    options = ConfigDict()
    for option in read_options(file)[1]:
        if option.value is None:
            options[option.name] = config_dict.placeholder(kinds[option.kind])
        else:
            options[option.name] = option.value
    return options
