"""Class distributions from the similarity of the classes in the network's own embedding."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base


def make(
    build: Build,
    *,
    alpha: float = 0.1,  # share of the similar classes in the target, [0, 1]
    temperature: float = 0.1,  # temperature of the cosines of two classes, above 0
    start_epoch: float = 0.0,  # epochs with the hard label alone, at least 0; 1 are in any case
) -> LabelSource:
    """Label per class: (1 - alpha) hard label + alpha softmax(cosine / temperature) of the classes'
    mean embeddings of the previous epoch.

    A class's cosine with itself is 1, so its own share is the largest; a class without an example
    in that epoch keeps the hard label, and is similar to no other. A mixed image counts for each of
    its classes by its share. Unlike OLS (`classwise`), which averages predictions, this does not
    depend on how sure the network is. State: sums [K, D] and count [K] of the current epoch, table
    [K, K] in use; its rows are one-hot at the start. Raises ValueError if an option is out of
    range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"config.labels.similarity.alpha must be in [0, 1], got {alpha}")
    if not temperature > 0:
        raise ValueError(f"config.labels.similarity.temperature must be above 0, got {temperature}")
    base.check_epochs("similarity", "start_epoch", start_epoch)
    size = build.num_classes
    kind = build.outputs.logits.dtype

    def init(key, variables):
        del key, variables
        table = jnp.eye(size, dtype=kind)
        sums = jnp.zeros((size, build.outputs.embedding.shape[-1]), kind)
        epoch = jnp.zeros((), jnp.int32)
        return {"table": table, "sums": sums, "count": sums[:, 0], "epoch": epoch}

    def at_epoch(state, epoch):
        """The state at a step of `epoch`: means of an earlier epoch become the table."""
        over = epoch > state["epoch"]
        table = similar_classes(state["sums"], state["count"], temperature)
        return {
            "table": jnp.where(over, table, state["table"]),
            "sums": state["sums"] * ~over,
            "count": state["count"] * ~over,
            "epoch": jnp.maximum(epoch, state["epoch"]),
        }

    def targets(state, batch, outputs):
        hard = base.one_hot(batch, outputs.logits)
        rows = at_epoch(state, batch.step // build.steps_per_epoch)["table"][batch.label]
        share = alpha * base.ramp(batch.step, build, start_epoch)
        return (Target((1 - share) * hard + share * rows),)

    def update(state, batch, forward):
        state = at_epoch(state, batch.step // build.steps_per_epoch)
        valid = batch.mask[:, None] > 0
        # `where`, not a product: the embedding of a masked image may be NaN.
        embedding = jnp.where(valid, forward.outputs.embedding[0].astype(kind), 0)
        share = jnp.where(valid, batch.share.astype(kind), 0)
        label = batch.label[batch.partner]  # [B, M]
        sums = state["sums"].at[label].add(share[..., None] * embedding[:, None])
        state = {**state, "sums": sums, "count": state["count"].at[label].add(share)}
        # The last step of an epoch closes it, so an evaluation after it sees the new table.
        return at_epoch(state, (batch.step + 1) // build.steps_per_epoch)

    def report(state):
        return {"row_entropy": base.mean_entropy(state["table"])}

    return LabelSource(targets, init, update, report=report)


def similar_classes(sums, count, temperature: float):
    """Rows [K, K] softmax(cosine / temperature) of the means of embeddings, from their sums [K, D]
    and numbers [K]; the rows and columns of classes without any are those of the identity.
    """
    # The direction of a sum is that of the mean, so the numbers only say which classes there are.
    squared = jnp.sum(sums**2, -1, keepdims=True)
    known = (count > 0) & (squared[:, 0] > 0)
    direction = jnp.where(known[:, None], sums, 0) / jnp.sqrt(jnp.where(squared > 0, squared, 1))
    # On a GPU or TPU, a product is otherwise computed in half precision.
    cosine = jnp.matmul(direction, direction.T, precision="highest")
    own = jnp.eye(len(sums), dtype=bool)
    logits = jnp.where(known[:, None] & known[None, :] | own, cosine / temperature, -jnp.inf)
    return jax.nn.softmax(logits)
