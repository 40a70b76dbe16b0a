"""Class names of two networks or data sets: which class here is which class there."""

import unicodedata
from collections.abc import Sequence

SHOWN = 3  # names listed in a message


def order(theirs: Sequence[str], own: Sequence[str]) -> list[int] | None:
    """For each class of `own`, its position in `theirs`; None if the names are others.

    Names that are the numbers 0 to K - 1 on one side stand for no names: the order is then taken to
    be the same. Both have K names.
    """
    there = list(map(_normal, theirs))
    here = list(map(_normal, own))
    if there == here:
        return list(range(len(here)))
    # File systems write accents in two ways, so `_normal` comes first. Names come before numbers:
    # folders '0', '1', '10', '2' are names in another order.
    if len(set(here)) == len(here) and set(there) == set(here):
        return [there.index(name) for name in here]
    if _is_unnamed(there) or _is_unnamed(here):
        return list(range(len(here)))
    return None


def difference(theirs: Sequence[str], own: Sequence[str]) -> str:
    """The first names that only one side has, as 'got ... instead of ...'."""
    there = list(map(_normal, theirs))
    here = list(map(_normal, own))
    only_there = [name for name in there if name not in here]
    only_here = [name for name in here if name not in there]
    # Sets of names may be equal if one of them has a name twice.
    return f"got {_listed(only_there or there)} instead of {_listed(only_here or here)}"


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", str(name))


def _is_unnamed(names: list[str]) -> bool:
    return names == list(map(str, range(len(names))))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
