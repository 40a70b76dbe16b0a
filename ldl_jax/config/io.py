"""Config files and their JSON form: read, started from, written."""

import inspect
import json
from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax.config.fields import default, flatten
from ldl_jax.errors import one_line


def start(name: str, *arguments: str) -> ConfigDict:
    """The config of a sibling file: `start('cifar100_hard.py')`, found beside the config file that
    calls it.
    """
    path = Path(inspect.stack()[1].filename).parent / name
    if not path.is_file():
        found = ", ".join(sorted(file.name for file in path.parent.glob("*.py")))
        raise ValueError(f"{path}: no such config; beside it are {found}")
    return read(":".join([str(path), *arguments]))


def read(path) -> ConfigDict:
    """The config of a file's `get_config()`, or of `get_config(argument)` where the path is
    FILE:ARGUMENT.

    Raises ValueError in one sentence that names the file and the fault.
    """
    name, *arguments = str(path).split(":", 1)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"--config {path} is not there; configs/ holds the ones that come along")
    space = {"__name__": f"config_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(path.read_text(), str(path), "exec"), space)
        if "get_config" not in space:
            raise ValueError("it has no function get_config() -> ConfigDict")
        made = space["get_config"](*arguments)
    except Exception as error:  # whatever a file of the user's may do
        text = one_line(error).removeprefix(f"--config {path} is no config: ")
        raise ValueError(f"--config {path} is no config: {text}") from error
    if not isinstance(made, ConfigDict):
        raise ValueError(
            f"--config {path}: get_config() returns {type(made).__name__}; allowed is a ConfigDict"
        )
    there = flatten(made)
    lacking = [field for field in flatten(default()) if field not in there]
    if lacking:
        raise ValueError(
            f"--config {path}: get_config() does not start from ldl_jax.config.default(): it lacks {lacking[0]}"
            + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
        )
    return made


def choose(argument: str, options: dict[str, object]):
    """The option that a config's argument names. Raises ValueError listing the options."""
    if argument not in options:
        raise ValueError(f"its argument is {argument!r}; allowed are {', '.join(options)}")
    return options[argument]


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON."""
    return json.dumps(json.loads(config.to_json_best_effort()), indent=2)


def from_json(text: str) -> ConfigDict:
    """The config of a JSON text: today's defaults overwritten by what it says; fields it knows
    alone are ignored.
    """
    config = default()

    def fill(target, source):
        for name, value in source.items():
            if name not in target:
                continue
            if isinstance(target.get(name), ConfigDict):
                with target[name].unlocked():
                    if name == "options":
                        target[name].update(value)
                fill(target[name], value)
            elif value is not None:
                target[name] = tuple(value) if isinstance(value, list) else value

    fill(config, json.loads(text))
    return config
