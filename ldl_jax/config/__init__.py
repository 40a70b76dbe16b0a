"""Settings: fields with defaults and checks, and what config files and studies import."""

from ldl_jax.config.fields import SECTIONS, check, default, describe, flatten, unknown_field
from ldl_jax.config.identity import MAY_DIFFER, decisive, differences, in_use
from ldl_jax.config.io import choose, from_json, read, start, to_json
from ldl_jax.config.options import plugs
from ldl_jax.config.own import NAMES, add_options, refuse_own
from ldl_jax.config.study import Cell, Finding, Study

__all__ = [
    "MAY_DIFFER",
    "NAMES",
    "PARSING",
    "SECTIONS",
    "Cell",
    "Finding",
    "Study",
    "add_options",
    "check",
    "choose",
    "decisive",
    "default",
    "describe",
    "differences",
    "flatten",
    "from_json",
    "in_use",
    "plugs",
    "read",
    "refuse_own",
    "start",
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
