"""Distributions that a network gave augmented views of each image, read from a file."""

import jax

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base


def make(build: Build) -> LabelSource:
    """The stored distribution of the very view that the network sees (`data.train_store`).

    `python -m ldl_jax.store` writes the file; no teacher is needed in training. In epoch e the
    images are augmented as for view e mod V, so that crop and distribution belong together (as in
    FKD, Shen and Xing 2022). Mixing comes after, and mixes the distributions. Raises ValueError
    without a file.
    """
    if build.stored is None:
        raise ValueError(
            "labels 'stored' needs a file; name one in config.data.train_store (python -m "
            "ldl_jax.store RUN --out=FILE writes it)"
        )
    stored = build.stored

    def targets(state, batch, outputs):
        del state
        view = batch.step // build.steps_per_epoch % stored.views
        classes, probs = [
            jax.lax.dynamic_index_in_dim(batch.given[name], view, 1, keepdims=False)
            for name in ("stored_classes", "stored_probs")
        ]
        rows = base.dense_rows(classes, probs, stored, build.num_classes)
        return (Target(rows.astype(outputs.logits.dtype)),)

    return LabelSource(targets, replay=True)
