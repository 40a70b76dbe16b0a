"""A package of somebody's own in a folder of its own, for tests of plugs with dotted names."""

import sys
import textwrap

import pytest

SOURCE = '''
from ldl_jax.contract import LabelSource, Target
from ldl_jax.labels.base import one_hot


def make(
    build,
    *,
    beta: float = 0.95,  # share of the label, [0, 1]
    times: int | None = None,  # nothing
) -> LabelSource:
    """A source of one's own. And more."""
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], got {beta}")
    return LabelSource(lambda state, batch, outputs: (Target(one_hot(batch, outputs.logits), beta),))
'''


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Save modules of a package `mine` in the working directory: save(name=source, ...)."""
    monkeypatch.chdir(tmp_path)
    # The first entry is where tests lie; an entry that the code adds goes with the copy.
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path / "mine" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(source))
        return tmp_path

    yield write
    forget()


def forget():
    """Let the package be imported anew."""
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]
