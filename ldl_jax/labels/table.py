"""A distribution that was given for each example: votes of people, or predictions that were stored."""

from ldl_jax.contract import Build, LabelSource, Target


def make(build: Build) -> LabelSource:
    """The example's own row of the table `data.train_table`, such as the human votes of CIFAR-10H.

    Peterson et al. 2019, 'Human uncertainty makes classification more robust'. Together with the
    hard label it is a `blend`. Raises ValueError where the split that is trained on has no table.
    """
    if "table" not in build.tables:
        raise ValueError(
            "labels 'table' needs a distribution for each example, but the split that is trained on has none; name a "
            "file in config.data.train_table, or in config.data.test_table where config.data.train_split is 'test'"
        )

    def targets(state, batch, outputs):
        del state
        return (Target(batch.given["table"].astype(outputs.logits.dtype)),)

    return LabelSource(targets)
