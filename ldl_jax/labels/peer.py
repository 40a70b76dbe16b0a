"""Deep mutual learning: a second network learns beside the student."""

import jax
import jax.numpy as jnp
import optax

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels.base import mix_target, one_hot, term_loss

KEY = 7  # folded into the key of the peer's initial parameters


def make(
    build: Build,
    *,
    hard_weight: float = 1.0,  # weight of the term with the hard label, for both networks
    weight: float = 1.0,  # weight of the KL divergence to the other network, for both
) -> LabelSource:
    """Deep mutual learning: a second network of the student's kind; each learns from the label and
    from the other.

    Zhang et al. 2018, equations 5-8 for two networks, both updated from the same forward passes.
    The peer sees the student's image and takes its own step with the same optimizer. State: params,
    batch_stats, opt_state.
    """

    def init(key, variables):
        del variables
        peer = build.init(jax.random.fold_in(key, KEY))
        return {**peer, "opt_state": build.optimizer.init(peer["params"])}

    def forward_peer(params, state, batch):
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        key = jax.random.fold_in(batch.key, KEY)
        return build.apply(variables, batch.image[0], train=True, key=key)

    def targets(state, batch, outputs):
        peer, _ = forward_peer(state["params"], state, batch)
        probs = jax.lax.stop_gradient(jax.nn.softmax(peer.logits))
        # Both networks have seen the mixed image, so their predictions are not mixed again.
        distill = Target(probs, weight, soft=True, mixed=True)
        return Target(one_hot(batch, outputs.logits), hard_weight), distill

    def update(state, batch, forward):
        student = jax.nn.softmax(forward.outputs.logits[0])
        hard = mix_target(Target(one_hot(batch, student), hard_weight), batch.partner, batch.share)
        distill = Target(student, weight, soft=True, mixed=True)

        def loss(params):
            peer, stats = forward_peer(params, state, batch)
            terms = sum(term_loss(term, peer.logits, build.criterion) for term in (hard, distill))
            return jnp.sum(batch.mask * terms) / jnp.maximum(batch.mask.sum(), 1), stats

        # At the parameters that `targets` used: both networks learn from the same forward passes.
        grads, stats = jax.grad(loss, has_aux=True)(state["params"])
        updates, opt_state = build.optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "batch_stats": stats, "opt_state": opt_state}

    return LabelSource(targets, init, update)
