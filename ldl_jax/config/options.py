"""The options of the plugs, read off their factories: name, default, type, and the comment behind
each.

A plug is a file ldl_jax/<folder>/<name>.py with a factory `make`, whose keyword-only options are
its config block. They are read off the source; nothing is imported for it.
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
    """A setting as it is written down: its value, its type where that is None, and the comment
    behind it.
    """

    name: str
    value: object
    kind: str
    text: str


def plugs(folder: str, function: str = "make") -> tuple[str, ...]:
    """Names of the plugs in a folder of ldl_jax: its files that have the factory, but for base."""
    files = (path for path in (ROOM / folder).glob("*.py") if path.stem != "base")
    return tuple(sorted(path.stem for path in files if _has_function(path, function)))


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
    """The first sentence of a factory's docstring, and its keyword-only options; the file is
    parsed, not imported.
    """
    text = (ROOM / file).read_text()
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            options = []
            for arg, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                comment = lines[(value or arg).end_lineno - 1].partition("  # ")[2]
                kind = ast.unparse(arg.annotation).split(" ")[0] if arg.annotation else "str"
                options.append(Option(arg.arg, ast.literal_eval(value), kind, comment.strip()))
            paragraph = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            sentence = re.split(r"(?<! al\.)(?<=\.)\s", paragraph, maxsplit=1)[0]
            return sentence, options
    raise ValueError(f"ldl_jax/{file} has no function {function}(); a plug is made by one")


def block(file: str) -> ConfigDict:
    """The config block of a factory; an option whose default is None becomes a placeholder of its
    type.
    """
    kinds = {"int": int, "float": float, "str": str, "bool": bool, "tuple": tuple}
    made = ConfigDict()
    for option in read_options(file)[1]:
        empty = config_dict.placeholder(kinds[option.kind]) if option.value is None else None
        made[option.name] = option.value if empty is None else empty
    return made
