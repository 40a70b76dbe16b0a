"""Names of run directories: the default of a config, and one for a config that differs."""

import re
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax.config.identity import differences
from ldl_jax.config.io import from_json

RUN_CONFIG = "config.json"  # the config of a run, beside NETWORK
NETWORK = "network.json"
LONGEST = 40  # characters of a value in the name of a directory


def stored_config(workdir) -> Path | None:
    """The config.json of a run directory; None if there is no run."""
    path = Path(workdir).expanduser() / RUN_CONFIG
    return path if path.is_file() else None


def run_directory(file: str, config: ConfigDict, *, extend: bool = False) -> Path:
    """The default directory of a run: runs/<config's name>-seed<seed>.

    file: FILE or FILE:ARGUMENT that `config` was read from, before overrides. The config.json of a
    run stands for this very run, as long as the settings are its own or `extend` makes it longer.
    """
    path, _, argument = file.partition(":")
    path = Path(path).expanduser()
    name = f"{path.stem}-{argument}" if argument else path.stem
    if path.name == RUN_CONFIG and (path.parent / NETWORK).is_file():
        # Only compared, so nothing of it is run.
        stored = from_json(path.read_text(encoding="utf-8"))
        if extend or not differences(stored, config):
            return path.parent
        name = path.resolve().parent.name.removesuffix(f"-seed{stored.seed}")
    return Path(f"runs/{name}-seed{config.seed}")


def beside(workdir, changed: Mapping[str, tuple]) -> Path:
    """A directory beside a run's for a config with these changes, such as runs/x-smooth-seed0.

    changed: dotted field -> (old, new value), as `differences` returns them.
    """
    workdir = Path(workdir)
    stem, seed = re.fullmatch(r"(.*?)(-seed\d+)?", workdir.name).groups()
    plugs = [field for field in changed if field.endswith(".name")]
    field = (plugs or list(changed))[0]
    value = str(changed[field][1])
    if field == "seed":
        return workdir.with_name(f"{stem}-seed{value}")
    text = value if plugs else field.rpartition(".")[2] + value
    word = re.sub(r"[^\w.+-]+", "_", text).strip("_")[:LONGEST]
    return workdir.with_name(f"{stem}-{word}{seed or ''}")


def telling(changed: Mapping[str, tuple]) -> dict[str, tuple]:
    """The changes without the options of plugs that only one of the two configs names."""
    exchanged = set()
    for field in changed:
        if field.endswith((".name", ".names", ".parts")):
            exchanged.add(field.partition(".")[0])
    told = {}
    for field, values in changed.items():
        is_option = field.count(".") > 1 and field.partition(".")[0] in exchanged
        if not (is_option and None in values):
            told[field] = values
    return told
