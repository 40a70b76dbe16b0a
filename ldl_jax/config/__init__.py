"""Every setting once: its default, its unit, its checks; what config files and studies import."""

from ldl_jax.config.fields import (
    FOLDERS,
    MAY_DIFFER,
    check,
    choose,
    decisive,
    default,
    describe,
    differences,
    flatten,
    from_json,
    in_use,
    read,
    start,
    to_json,
    unknown_field,
)
from ldl_jax.config.options import mixings, plugs
from ldl_jax.config.study import Cell, Finding, Study

__all__ = [
    "FOLDERS", "MAY_DIFFER", "Cell", "Finding", "Study", "check", "choose", "decisive", "default", "describe",
    "differences", "flatten", "from_json", "in_use", "mixings", "plugs", "read", "start", "to_json", "unknown_field",
]  # fmt: skip
