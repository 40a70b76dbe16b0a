"""Trust in files of runs: the modules that they name, and whether they may be imported.

A run whose network or config names modules that are not part of the package is code. Such a module
is imported only if the user named it in flags or in a config file, passed --trust (trust=True), or
trained or trusted this very run before. The last is looked up in a store of the user's own, never
in the run: `$XDG_STATE_HOME/ldl_jax/trusted`, by default below ~/.local/state, with one small file
for each network or config.
"""

import errno
import json
import os
import stat
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ldl_jax import files
from ldl_jax.config.options import plugs
from ldl_jax.config.own import Own, own_names, search_working_directory, source_file
from ldl_jax.errors import warn

HOW = "pass --trust (in Python, trust=True) if you trust this code"


class Consent(NamedTuple):
    """The modules that the user lets runs name."""

    everything: bool = False  # --trust, or trust=True
    names: frozenset[str] = frozenset()  # in the user's own flags and config files, dotted

    def to(self, config: ConfigDict) -> "Consent":
        """The consent to the modules that a config names, too."""
        return self._replace(names=self.names | {own.name for own in own_names(config)})


ASK = Consent()


def consent_to(given: Mapping[str, object], *, trust: bool = False) -> Consent:
    """The consent that flags give: values of the fields that name plugs, and --trust."""
    names = []
    for value in given.values():
        names += value if isinstance(value, tuple | list) else [value]
    # Values of other types are refused by the checks of all fields.
    return Consent(trust, frozenset(name for name in names if isinstance(name, str)))


def confirm(file, content: Any, named: Iterable[Own], consent: Consent) -> None:
    """Check that the plugs that a file of a run names belong to the package or have consent.

    content: of the file, as JSON values. If the user consents to everything, this is remembered.
    Raises ValueError, naming the file and the module, without consent; nothing is imported.
    """
    named = list(named)
    for own in named:
        _check_name(file, own)
    foreign = [own for own in named if "." in own.name]
    if all(own.name in consent.names for own in foreign):
        return
    if consent.everything:
        remember(file, content, [own.name for own in foreign])
        return
    known = _known(content)
    for own in foreign:
        if own.name not in consent.names:
            _check_known(file, own, known)


def _check_name(file, own: Own) -> None:
    """Raise ValueError unless a name is that of a plug of the package, or a dotted one."""
    members = plugs(own.folder)
    if not isinstance(own.name, str) or ("." not in own.name and own.name not in members):
        raise ValueError(
            f"{file}: {own.field} must be one of {', '.join(members)}, or PACKAGE.MODULE; got "
            f"{repr(own.name)[:60]}"
        )


def _check_known(file, own: Own, known: dict[str, str]) -> None:
    """Raise ValueError unless a module is that of a run which the user trained or trusted."""
    subject = f"{file}: {own.field} is {own.name!r}, a module that is not part of ldl_jax"
    if own.name not in known:
        raise ValueError(f"{subject}, and you have not trained or trusted this run before; {HOW}")
    source = _source(own.name)
    if not source and known[own.name]:
        raise ValueError(f"{subject}, and it cannot be imported here, because it is not found")
    if source != known[own.name]:
        raise ValueError(
            f"{subject}, and its source has changed since you trained or trusted this run; {HOW}"
        )


def network(spec: Any) -> list[Own]:
    """The network that a spec names, as `confirm` takes it."""
    settings = spec.get("model") if isinstance(spec, dict) else None
    name = settings.get("name") if isinstance(settings, dict) else None
    return [Own("model.name", "models", name)]


def calibrator(name: str, options: dict) -> tuple[dict, list[Own]]:
    """(content, name) of a fitted calibrator, as `confirm` takes them."""
    return {"calibrator": name, "options": options}, [Own("name", "calibrate", name)]


def remember_run(config: ConfigDict, paths: Iterable[Path]) -> None:
    """Remember the JSON files of a run, which were just written for a config of the user's own.

    A run that names nothing but plugs of the package leaves no trace.
    """
    names = [own.name for own in own_names(config)]
    for path in paths:
        if names:
            remember(path, json.loads(path.read_text(encoding="utf-8")), names)


def remember(file, content: Any, names: Iterable[str]) -> None:
    """Write to the store that the user trusts a file with modules as they are now.

    A store that cannot be written is a warning, once for each process.
    """
    modules = {name: _source(name) for name in names}
    entry = {"file": str(Path(file).absolute()), "modules": modules}
    try:
        path = _entry(content)
        for folder in (*reversed(path.parent.parents), path.parent):
            if not folder.exists():
                folder.mkdir(0o700, exist_ok=True)
        files.write_with(path, partial(_write_private, content=json.dumps(entry, indent=2) + "\n"))
    except OSError as error:
        _warn(f"{error.filename} cannot be written ({error.strerror})")


@cache
def _warn(reason: str) -> None:
    warn(f"{reason}, so reading this run will need --trust (in Python, trust=True)")


def _write_private(path: Path, content: str) -> None:
    """Write a file that only this user can read."""
    path.chmod(0o600)
    path.write_text(content, encoding="utf-8")


def _known(content: Any) -> dict[str, str]:
    """{module: digest of its source} that the store holds for a file with this content."""
    try:
        path = _entry(content)
        # What others can write is nothing that this user has said.
        if not (_is_private(path) and _is_private(path.parent)):
            return {}
        modules = json.loads(path.read_text(encoding="utf-8"))["modules"]
        return modules if isinstance(modules, dict) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _is_private(path: Path) -> bool:
    """Whether a path belongs to this user, and nobody else can write it."""
    status = path.stat()
    is_own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return is_own and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _entry(content: Any) -> Path:
    """The file of the store for a file with this content."""
    # By its specification, a relative path in the variable is ignored: it would lie anywhere.
    root = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not root.is_absolute():
        root = files.home("~/.local/state")
    if not root.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "there is no home directory", str(root))
    return root / "ldl_jax" / "trusted" / f"{files.digest(content)}.json"


def _source(name: str) -> str:
    """SHA-256 of the sources that run when a module is imported: its own, and its packages'.

    '' if it has none, or if there is no such module.
    """
    search_working_directory()
    parts = name.split(".")
    digests = []
    try:
        for count in range(1, len(parts) + 1):
            file = source_file(".".join(parts[:count]))
            digests.append("" if file is None else files.sha256(file))
    except (ImportError, ValueError, AttributeError, OSError):
        return ""
    return files.digest(digests) if any(digests) else ""
