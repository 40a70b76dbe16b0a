"""Noise floor of the ECE, by simulation: the ECE of a perfectly calibrated network on N examples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.evaluation.bootstrap import LEVEL, bin_number
from ldl_jax.metrics.base import BINS, checked

_DRAWN = 2**21  # numbers of a simulation on the device at once, 8 MB


def noise_floor(key, confidence, *, draws: int = 200) -> tuple[float, float]:
    """Mean and 95 % quantile of the ECE of a perfectly calibrated model with confidences f[N].

    Simulated on the device: `draws` times, each example is correct with probability equal to its
    confidence. Memory is that of N numbers, not of draws x N. An ECE below the quantile is no
    evidence of miscalibration.
    """
    confidence, _ = checked(confidence, np.zeros(np.shape(confidence), bool))
    member = bin_number(confidence)
    simulated = _simulated(key, jnp.asarray(confidence, jnp.float32), jnp.asarray(member), draws)
    simulated = np.asarray(simulated, np.float64)
    return float(simulated.mean()), float(np.quantile(simulated, LEVEL))


@partial(jax.jit, static_argnames="draws")
def _simulated(key, confidence, member, draws):
    """ECE of each simulation, f32[draws]; all simulations share one loop over blocks of examples.

    member: the bin i[N] of each example.
    """
    count = len(confidence)
    block = min(count, max(1, _DRAWN // draws))
    blocks = -(-count // block)
    # Padding has confidence 0: it is never correct and adds no gap.
    padding = (0, blocks * block - count)
    confidences = jnp.pad(confidence, padding).reshape(blocks, block)
    members = jnp.pad(member, padding).reshape(blocks, block)

    def step(gaps, part):
        key, confidence, member = part
        correct = jax.random.uniform(key, (draws, block), confidence.dtype) < confidence
        # Sum gaps, not counts and confidences separately: for N = 1e6, float32 would round those
        # sums by more than the differences that matter.
        gap = jnp.where(correct, 1 - confidence, -confidence)
        inside = jax.nn.one_hot(member, BINS, dtype=gap.dtype)
        return gaps + jnp.matmul(gap, inside, precision="highest"), None

    start = jnp.zeros((draws, BINS), confidence.dtype)
    keys = jax.random.split(key, blocks)
    gaps, _ = jax.lax.scan(step, start, (keys, confidences, members))
    return jnp.abs(gaps).sum(-1) / count
