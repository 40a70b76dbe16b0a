"""Config files and their JSON form: reading, inheriting and writing."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax.config import optimizers, recipes
from ldl_jax.config.fields import check_types, default, flatten
from ldl_jax.config.own import add_options, own_names, set_block
from ldl_jax.config.trust import confirm, consent_to
from ldl_jax.errors import one_line
from ldl_jax.files.reading import parse, read_json, read_text, shown


def start(name: str, *arguments: str) -> ConfigDict:
    """The config of another file: `start('cifar100_hard.py')` reads the file of that name in the
    folder of the config file that calls it, or the one that comes with the package.

    Raises ValueError if there is no such file.
    """
    caller = Path(inspect.stack()[1].filename)
    path = caller.parent / name
    # A file cannot start from itself, but from the shipped one whose name it has.
    if not path.is_file() or path.resolve() == caller.resolve():
        path = recipes.named(name)
    if path is None or path.resolve() == caller.resolve():
        siblings = ", ".join(sorted(file.name for file in caller.parent.glob("*.py")))
        raise ValueError(
            f"{caller.parent / name} does not exist; that folder contains {siblings}; "
            f"{recipes.suggestion(name)}"
        )
    return read(":".join([str(path), *arguments]))


def read(path, *, given: Mapping[str, object] | None = None, trust: bool = False) -> ConfigDict:
    """The config of a file: what its `get_config()` returns, or `get_config(argument)` if the path
    is FILE:ARGUMENT; or a run's config.json.

    The file is a path, or the name of one that comes with the package, such as 'digits_online'.
    given: values of the fields that name plugs, which will stand for those of the file. trust: let a
    config.json name modules that are not part of the package. Raises ValueError in one sentence that
    names the file and the fault.
    """
    name, *arguments = str(path).split(":", 1)
    file = recipes.find(name)
    if file is None and Path(name).expanduser().is_dir():
        raise ValueError(
            f"--config {name} is a folder; pass {name}/config.json for the config of a run there"
        )
    if file is None:
        raise ValueError(f"--config {name} does not exist; {recipes.suggestion(name)}")
    if file.suffix != ".json":
        return _executed(file, arguments)
    if arguments:
        raise ValueError(f"--config {file} takes no argument, got {arguments[0]!r}")
    config = from_file(file)
    consent = consent_to(given or {}, trust=trust)
    confirm(file, read_json(file, "a config"), own_names(config, given or {}), consent)
    return config


def _executed(path: Path, arguments: list[str]) -> ConfigDict:
    """The config that a Python file returns. Raises ValueError as `read` does."""
    namespace = {"__name__": f"config_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), namespace)
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
    # A file may name modules of the user's own; their options are fields from here on.
    return add_options(config)


def choose(argument: str, options: dict[str, object]):
    """The option that a config's argument names. Raises ValueError listing the options."""
    if argument not in options:
        raise ValueError(f"its argument must be one of {', '.join(options)}; got {argument!r}")
    return options[argument]


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON, without the blocks of optimizers that it does not name."""
    content = json.loads(config.to_json_best_effort())
    named = optimizers.used(config.optimizer)
    for name in optimizers.optimizers():
        if name not in named:
            content["optimizer"].pop(name, None)
    return json.dumps(content, indent=2)


def from_file(path) -> ConfigDict:
    """The config of a config.json, by `from_json`. Raises ValueError in one sentence that names it."""
    text = read_text(path, "a config")
    try:
        return from_json(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a config ({one_line(error)})") from None


def from_json(text: str) -> ConfigDict:
    """The config of a JSON text: the current defaults, overwritten by the fields of the text; its
    unknown fields are ignored.

    Raises ValueError, naming the field, for values that no config can have.
    """
    config = default()
    content = parse(text)
    _fill(config, content, "config")
    check_types(config, default())
    # The options of the user's own modules as they were; the modules themselves are not looked at.
    for own in own_names(config):
        if own.folder != "models":
            set_block(config, own, _stored_block(content, own.block))
    return config


def _fill(target: ConfigDict, source, path: str) -> None:
    """Overwrite the fields of a block by those of JSON values. Raises ValueError naming the field."""
    if not isinstance(source, dict):
        raise ValueError(f"{path} must be a block of fields, got {shown(source)}")
    for name, value in source.items():
        if name not in target:
            continue
        field = f"{path}.{name}"
        if isinstance(target.get(name), ConfigDict):
            # The options of a user's own module have no defaults to overwrite.
            if name == "options":
                target[name] = _options(value, field).lock()
            else:
                _fill(target[name], value, field)
        elif value is not None:
            try:
                target[name] = _plain(value, field)
            except (TypeError, OverflowError):
                kind = type(target.get(name)).__name__
                raise ValueError(f"{field} must be of type {kind}, got {shown(value)}") from None


def _options(value, path: str) -> ConfigDict:
    """A block of options, whatever they are. Raises ValueError naming one that no flag can set."""
    if not isinstance(value, dict):
        raise ValueError(f"{path} must be a block of fields, got {shown(value)}")
    options = ConfigDict()
    for name, option in value.items():
        if not name.isidentifier():
            raise ValueError(f"{path} must have options with usual names, got {name[:40]!r}")
        options[name] = _plain(option, f"{path}.{name}")
    return options


def _plain(value, path: str):
    """A JSON value as a field's: a number, a text or a tuple of them. Raises ValueError naming it."""
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict | list) for item in items):
        raise ValueError(f"{path} must be a value or a list of values, got {shown(value)}")
    return tuple(value) if isinstance(value, list) else value


def _stored_block(content: dict, block: str) -> ConfigDict:
    """The values of a dotted block of config.json, lists as tuples."""
    for part in block.split("."):
        content = content.get(part, {}) if isinstance(content, dict) else {}
    if not isinstance(content, dict):
        return ConfigDict()
    # A package may be named like a module in it: then its block contains another.
    values = {name: value for name, value in content.items() if not isinstance(value, dict)}
    return _options(values, f"config.{block}")
