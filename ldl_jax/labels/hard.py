"""Hard labels, as one-hot distributions."""

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels.base import one_hot


def make(build: Build) -> LabelSource:
    """The hard label: all mass on the given class."""
    del build

    def targets(state, batch, outputs):
        del state
        return (Target(one_hot(batch, outputs.logits)),)

    return LabelSource(targets)
