"""Label smoothing++: each class learns how its smoothing is spread over the other classes."""

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import check, counted_logits, masked_mean
from ldl_jax.contract import Auxiliary, Build
from ldl_jax.labels.base import mix_rows


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight of the loss
    alpha: float = 0.1,  # share of the learned part in the target, [0, 1]
) -> Auxiliary:
    """LS++: half the sum of -sum_k sg(t_k) log(p_k + 1e-6) and -sum_k sg(p_k) log(t_k + 1e-6), for
    predictions p [B, K] and targets t = (1 - alpha) one_hot(y) + alpha C_y, where sg stops the
    gradient (Chhabra et al. 2024, as in the published program).

    Row y of C is the softmax of K - 1 trained numbers, with 0 at y; they start at 0, which is uniform
    smoothing. The first part trains the network, the second C, beside the network and with the
    same optimizer and weight decay. The published method has no other loss: for that, give the
    label source the weight 0, as labels.name='blend' with parts ('hard',) and weights (0.0,).

    The label counts, whatever distribution the label source teaches. A mixed image has the mixture
    of its images' targets, by share. Raises ValueError if alpha is out of range.
    """
    check(0 <= alpha <= 1, "lspp.alpha", "between 0 and 1", alpha)
    classes = build.num_classes

    def init(key):
        del key
        matrix = jnp.zeros((classes, classes - 1), build.outputs.logits.dtype)
        return {"matrix": matrix}, ()

    def loss(params, state, batch, outputs, targets):
        del targets
        logits = counted_logits(outputs, batch)
        row = jnp.arange(classes)[:, None]
        column = jnp.arange(classes)[None, :]
        # Off the diagonal, class k has place k in its row, or k - 1 behind the diagonal.
        place = jnp.clip(column - (column > row), 0, max(classes - 2, 0))
        learned = jnp.take_along_axis(jax.nn.softmax(params["matrix"]), place, axis=1)
        table = jnp.where(row == column, 1 - alpha, alpha * learned).astype(logits.dtype)
        target = mix_rows(table[batch.label], batch.partner, batch.share)
        probs = jax.nn.softmax(logits)
        for_network = -jnp.sum(jax.lax.stop_gradient(target) * jnp.log(probs + 1e-6), axis=-1)
        for_table = -jnp.sum(jax.lax.stop_gradient(probs) * jnp.log(target + 1e-6), axis=-1)
        return masked_mean((for_network + for_table) / 2, batch), state

    return Auxiliary(loss, init, weight=weight)
