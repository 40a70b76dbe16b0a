"""Settings: fields with defaults and checks, and what config files and studies import."""

from ldl_jax.config.fields import SECTIONS, check, default, describe, flatten, unknown_field
from ldl_jax.config.identity import MAY_DIFFER, decisive, differences, in_use
from ldl_jax.config.io import choose, from_json, read, start, to_json
from ldl_jax.config.options import plugs
from ldl_jax.config.schedule import scale_boundaries
from ldl_jax.config.study import Cell, Finding, Study

__all__ = [
    "MAY_DIFFER",
    "SECTIONS",
    "Cell",
    "Finding",
    "Study",
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
    "scale_boundaries",
    "start",
    "to_json",
    "unknown_field",
]
