"""Config files and their JSON form: reading, inheriting and writing."""

import inspect
import json
from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax import files
from ldl_jax.config.fields import default, flatten
from ldl_jax.errors import one_line


def start(name: str, *arguments: str) -> ConfigDict:
    """The config of a sibling file: `start('cifar100_hard.py')` reads the file of that name in the
    folder of the config file that calls it.

    Raises ValueError if there is no such file.
    """
    path = Path(inspect.stack()[1].filename).parent / name
    if not path.is_file():
        siblings = ", ".join(sorted(file.name for file in path.parent.glob("*.py")))
        raise ValueError(f"{path} does not exist; that folder contains {siblings}")
    return read(":".join([str(path), *arguments]))


def read(path) -> ConfigDict:
    """The config returned by a file's `get_config()`, or by `get_config(argument)` if the path is
    FILE:ARGUMENT.

    Raises ValueError in one sentence that names the file and the fault.
    """
    name, *arguments = str(files.home(path)).split(":", 1)
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"--config {path} does not exist; configs/ contains the configs that come with ldl_jax"
        )
    namespace = {"__name__": f"config_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        if "get_config" not in namespace:
            raise ValueError("it has no function get_config() -> ConfigDict")
        config = namespace["get_config"](*arguments)
    except Exception as error:  # a user's file may raise anything
        # A config that starts from itself would repeat the prefix at every level.
        text = one_line(error).removeprefix(f"--config {path} is not a valid config: ")
        raise ValueError(f"--config {path} is not a valid config: {text}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"--config {path}: get_config() must return a ConfigDict, got {type(config).__name__}"
        )
    # A config built from nothing would lack the fields that the program reads.
    fields = flatten(config)
    missing = [field for field in flatten(default()) if field not in fields]
    if missing:
        more = f" and {len(missing) - 1} more fields" if len(missing) > 1 else ""
        raise ValueError(
            f"--config {path}: get_config() must start from ldl_jax.config.default(); it lacks "
            f"{missing[0]}{more}"
        )
    return config


def choose(argument: str, options: dict[str, object]):
    """The option that a config's argument names. Raises ValueError listing the options."""
    if argument not in options:
        raise ValueError(f"its argument must be one of {', '.join(options)}; got {argument!r}")
    return options[argument]


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON."""
    return json.dumps(json.loads(config.to_json_best_effort()), indent=2)


def from_json(text: str) -> ConfigDict:
    """The config of a JSON text: the current defaults, overwritten by the fields of the text; its
    unknown fields are ignored.
    """
    config = default()

    def fill(target, source):
        for name, value in source.items():
            if name not in target:
                continue
            if isinstance(target.get(name), ConfigDict):
                with target[name].unlocked():
                    # The options of a user's own module have no defaults to overwrite.
                    if name == "options":
                        target[name].update(value)
                fill(target[name], value)
            elif value is not None:
                target[name] = tuple(value) if isinstance(value, list) else value

    fill(config, json.loads(text))
    return config
