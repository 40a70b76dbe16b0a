"""Modules of the user's own: plugs with dotted names, such as labels.name = 'mine.bootstrap'.

They are found from the working directory and on sys.path, and have a factory `make` like the files
of the plug folders. Their block in the config is `config.<section>.<dotted name>`, such as
`config.labels.mine.bootstrap`; a network's is `config.model.options`. Options are parsed from the
source; the modules are imported when an experiment is built.
"""

import importlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from ldl_jax.config.options import (
    FIELDS,
    UNREADABLE,
    Factory,
    Option,
    block_of,
    cannot_import,
    no_literal,
    parse,
    plugs,
    read_options,
    with_shared,
)
from ldl_jax.errors import one_line

# Fields that name plugs -> the folder of these plugs.
NAMES = {
    "data.name": "data",
    "model.name": "models",
    "mixing.name": "mixing",
    "labels.name": "labels",
    "labels.blend.parts": "labels",
    "losses.name": "losses",
    "auxiliary.names": "auxiliary",
    "augment.names": "augment",
    "eval.metrics": "metrics",
    "eval.calibrator": "calibrate",
}
NO_OPTIONS = Factory("", [], (), True)
_SEARCHING = threading.Lock()


class Own(NamedTuple):
    """A module of the user's own that a config names."""

    field: str  # that names it, such as 'auxiliary.names[0]'
    folder: str  # of the plugs that it stands among
    name: str  # dotted

    @property
    def block(self) -> str:
        """The dotted name of its block in the config."""
        section = self.field.partition(".")[0]
        return "model.options" if self.folder == "models" else f"{section}.{self.name}"

    @property
    def subject(self) -> str:
        """How an error message about the module begins."""
        return f"config.{self.field} is" if self.field else FIELDS[self.folder]


def own_names(config: ConfigDict, given: Mapping[str, object] | None = None) -> Iterator[Own]:
    """The modules of the user's own that a config names.

    given: values by field, which stand for those of the config. Raises ValueError if a dotted name
    cannot be the name of a module, or if its block has no place in the config.
    """
    values = {field: _value(config, field) for field in NAMES} | dict(given or {})
    for field, value in values.items():
        # Of a flag that is given twice, the last counts.
        if field.endswith(".name") and isinstance(value, tuple) and value:
            values[field] = value[-1]
    for field, folder in NAMES.items():
        # The parts of a blend matter only if there is a blend.
        if field == "labels.blend.parts" and values["labels.name"] != "blend":
            continue
        value = values[field]
        is_list = isinstance(value, tuple | list)
        for index, name in enumerate(value if is_list else [value]):
            # Values that are no strings are refused by the checks of all fields.
            if isinstance(name, str) and "." in name:
                own = Own(f"{field}[{index}]" if is_list else field, folder, name)
                _check_name(own, config)
                yield own


def _value(config: ConfigDict, field: str):
    """The value of a dotted field, None if a block above it is missing."""
    for part in field.split("."):
        config = config.get(part) if isinstance(config, ConfigDict) else None
    return config


def _check_name(own: Own, config: ConfigDict) -> None:
    """Raise ValueError unless a name is that of a module, and its block has a place."""
    parts = own.name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ValueError(
            f"config.{own.field} is {own.name!r}, which cannot be imported (a dotted name is "
            "PACKAGE.MODULE)"
        )
    section = config.get(own.block.partition(".")[0])
    taken = parts[0] in plugs(own.folder) or parts[0] == "options"
    if isinstance(section, ConfigDict) and parts[0] in section:
        taken |= not isinstance(section.get(parts[0]), ConfigDict)
    if taken and own.folder != "models":
        raise ValueError(
            f"config.{own.field} is {own.name!r}, whose package must not have the name of a field "
            f"or plug-in of this section, {parts[0]!r}; rename the package"
        )


def add_options(config: ConfigDict, given: Mapping[str, object] | None = None) -> ConfigDict:
    """Add the options of the user's own modules that a config names, and return the config.

    After `config.labels.name = 'mine.bootstrap'`, this makes `config.labels.mine.bootstrap.beta` a
    field with the default that the source has. Options that are set already stay as they are.
    given: values of the fields that name plugs, instead of the config's. Raises ValueError, in one
    sentence that names the module, if there is no such module or option.
    """
    for own in own_names(config, given):
        search_working_directory()
        factory = read(own)
        existing = _block(config, own)
        known = [option.name for option in factory.options]
        unknown = [name for name in existing if name not in known]
        if unknown and not factory.free:
            raise ValueError(
                f"config.{own.block} has no option {unknown[0]!r}; the options of {own.name} are "
                f"{', '.join(known) or 'none'}"
            )
        set_block(config, own, _filled(own, factory.options, existing))
    return config


def _filled(own: Own, options: list[Option], existing: dict[str, object]) -> ConfigDict:
    """The block of a module: its defaults, replaced by the values that the config has already."""
    block = block_of(options)
    for name, value in existing.items():
        try:
            block[name] = tuple(value) if isinstance(value, list) else value
        except TypeError:
            # The options of networks have never been typed in config files.
            if own.folder != "models":
                raise ValueError(
                    f"config.{own.block}.{name} must be of the type of its default, "
                    f"{block[name]!r}, got {value!r}"
                ) from None
            del block[name]
            block[name] = value
    return block


def _block(config: ConfigDict, own: Own) -> dict[str, object]:
    """The values that the config has for a module, without the blocks of modules below it."""
    block = _value(config, own.block)
    if not isinstance(block, ConfigDict):
        return {}
    return {name: block.get(name) for name in block if not isinstance(block[name], ConfigDict)}


def set_block(config: ConfigDict, own: Own, block: ConfigDict) -> None:
    """Make `block` the options of a module in the config; it stays locked."""
    *above, name = own.block.split(".")
    target = config
    for part in above:
        with target.unlocked():
            if not isinstance(target.get(part), ConfigDict):
                target[part] = ConfigDict()
        target = target[part]
    with target.unlocked():
        target[name] = block
    target[name].lock()


def search_working_directory() -> None:
    """Let modules of the working directory be imported, as `python -m` does; they come last."""
    # Two threads that clear the import caches at once fail with a KeyError.
    with _SEARCHING:
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())
        # In a notebook, the file may have been written a moment ago.
        importlib.invalidate_caches()


def read(own: Own) -> Factory:
    """What the source of a module says about its options; nothing of it is imported.

    Raises ValueError if there is no such module, or if its source cannot be read.
    """
    try:
        file = source_file(own.name)
        if file is None:
            return NO_OPTIONS
        # In the encoding that the source declares.
        text = importlib.util.decode_source(file.read_bytes())
        factory = parse(text, positional=True)
    except (*UNREADABLE, ImportError) as error:
        # Shown without the type of the error, as when the module is imported.
        shown = error if isinstance(error, ImportError) else SyntaxError(one_line(error))
        raise cannot_import(own.subject, own.name, shown) from None
    makes = ("make", "of") if own.folder == "metrics" else ("make",)
    if not any(re.search(rf"\b{name}\b|import \*", text) for name in makes):
        raise ValueError(f"{own.subject} {own.name!r}, which must have a function make() ({file})")
    # If `make` comes from elsewhere, its options are not known before the module is imported.
    return NO_OPTIONS if factory is None else with_shared(own.folder, _checked(own, factory))


def default_options(folder: str, name: str) -> dict[str, object]:
    """The options of a plug, with their defaults. Raises ValueError if there is no such plug."""
    if "." not in name:
        options = read_options(f"{folder}/{name}.py")[1]
    else:
        search_working_directory()
        options = read(Own("", folder, name)).options
    return {option.name: option.value for option in options}


def _checked(own: Own, factory: Factory) -> Factory:
    """The factory, if its options can be fields of a config; those of networks may be anything."""
    try:
        if factory.unread:
            raise ValueError(no_literal(factory.unread[0]))
        block_of(factory.options)
    except ValueError as error:
        if own.folder == "models":
            return NO_OPTIONS
        raise ValueError(f"{own.name}: {one_line(error)}") from None
    return factory


def source_file(name: str) -> Path | None:
    """The source of a module; None if it has none. Its packages are found, but not imported.

    Raises ImportError if there is no such module.
    """
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {top!r}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    file = Path(spec.origin) if spec.origin and spec.has_location else None
    for part in rest:
        file, folders = _below(folders, part)
        if file is None and not folders:
            # Modules that are no files, such as os.path, are known once they are imported.
            loaded = getattr(sys.modules.get(name), "__file__", None)
            if loaded:
                return Path(loaded)
            raise ModuleNotFoundError(f"No module named {name!r}")
    return file


def _below(folders: list[Path], part: str) -> tuple[Path | None, list[Path]]:
    """(source, folders) of the module or package `part` in the folders of a package."""
    for folder in folders:
        package = folder / part / "__init__.py"
        if package.is_file():
            return package, [package.parent]
        module = folder / f"{part}.py"
        if module.is_file():
            return module, []
    # A folder without __init__.py is a package too, if there is no other.
    return None, [folder / part for folder in folders if (folder / part).is_dir()]


def described(config: ConfigDict) -> list[str]:
    """The lines of --help about the modules of the user's own that a config names."""
    lines = []
    for own in own_names(config):
        factory = read(own)
        lines += ["", f"{own.field} {own.name}: {factory.sentence}"]
        for option in factory.options:
            lines.append(f"  {own.block}.{option.name} = {option.value!r}  {option.text}")
    return lines
