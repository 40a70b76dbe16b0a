"""Settings: fields with defaults and checks, and what config files and studies import.

>>> import ldl_jax as ldl
>>> c = ldl.config.read("digits_online")
>>> c.labels.online.alpha = 0.5
>>> ldl.config.check(c)
"""

from ldl_jax.config.directories import beside, run_directory, stored_config, telling
from ldl_jax.config.fields import (
    SECTIONS,
    check,
    default,
    describe,
    flatten,
    names_first,
    parsed,
    set_field,
    unknown_field,
)
from ldl_jax.config.identity import MAY_DIFFER, decisive, differences, in_use
from ldl_jax.config.io import choose, from_file, from_json, read, start, to_json
from ldl_jax.config.options import plugs
from ldl_jax.config.own import NAMES, add_options
from ldl_jax.config.schedule import eighths, scale_boundaries
from ldl_jax.config.study import Cell, Finding, Study
from ldl_jax.config.trust import Consent

__all__ = [
    "MAY_DIFFER",
    "NAMES",
    "PARSING",
    "SECTIONS",
    "Cell",
    "Consent",
    "Finding",
    "Study",
    "add_options",
    "beside",
    "check",
    "choose",
    "decisive",
    "default",
    "describe",
    "differences",
    "eighths",
    "flatten",
    "from_file",
    "from_json",
    "in_use",
    "names_first",
    "parsed",
    "plugs",
    "read",
    "run_directory",
    "scale_boundaries",
    "set_field",
    "start",
    "stored_config",
    "telling",
    "to_json",
    "unknown_field",
]

# How `cli.read_flags` reads a config and its flags.
PARSING = {
    "read": read,
    "unknown_field": unknown_field,
    "names": tuple(NAMES),
    "add_options": add_options,
}
