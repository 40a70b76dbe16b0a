"""A given distribution for each example, such as human votes or stored predictions."""

from ldl_jax.contract import Build, LabelSource, Target


def make(build: Build) -> LabelSource:
    """The example's own row of the table `data.train_table`, such as the human votes of CIFAR-10H.

    Peterson et al. 2019, 'Human uncertainty makes classification more robust'. Use `blend` to
    combine it with the hard label. Raises ValueError if the training split has no table.
    """
    if "table" not in build.tables:
        raise ValueError(
            "labels 'table' needs a distribution for each training example; name a file in "
            "config.data.train_table (or, if config.data.train_split is 'test', in "
            "config.data.test_table)"
        )

    def targets(state, batch, outputs):
        del state
        return (Target(batch.given["table"].astype(outputs.logits.dtype)),)

    return LabelSource(targets)
