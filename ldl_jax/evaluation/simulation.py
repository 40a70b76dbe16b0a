"""The noise floor of the ECE: what a perfectly calibrated network would score on as many examples,
by simulation.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.evaluation.bootstrap import LEVEL, bin_number
from ldl_jax.metrics.base import BINS, checked

_DRAWN = 2**21  # numbers of a simulation on the device at once, 8 MB


def noise_floor(key, confidence, *, draws: int = 200) -> tuple[float, float]:
    """The ECE expected of a perfectly calibrated model with these confidences f[N], and its 95 %
    quantile.

    By simulation on the device: each example is right with the probability that it claims, `draws`
    times. Memory is of N numbers, not of draws x N. An ECE below the quantile is no evidence of
    miscalibration.
    """
    confidence, _ = checked(confidence, np.zeros(np.shape(confidence), bool))
    simulated = _simulated(
        key, jnp.asarray(confidence, jnp.float32), jnp.asarray(bin_number(confidence)), draws
    )
    simulated = np.asarray(simulated, np.float64)
    return float(simulated.mean()), float(np.quantile(simulated, LEVEL))


@partial(jax.jit, static_argnames="draws")
def _simulated(key, confidence, member, draws):
    """ECE of each simulation, f32[draws]; all of them go through the examples together, a block at
    a time.
    """
    count = len(confidence)
    block = min(count, max(1, _DRAWN // draws))
    blocks = -(-count // block)
    padding = (0, blocks * block - count)  # of confidence 0, which is never right and adds no gap
    parts = [jnp.pad(x, padding).reshape(blocks, block) for x in (confidence, member)]

    def step(gaps, part):
        key, confidence, member = part
        right = jax.random.uniform(key, (draws, block), confidence.dtype) < confidence
        # Gaps are summed, not counts and confidences apart, which float32 could not hold to a
        # thousandth of N = 1e6.
        gap = jnp.where(right, 1 - confidence, -confidence)
        inside = jax.nn.one_hot(member, BINS, dtype=gap.dtype)
        return gaps + jnp.matmul(gap, inside, precision="highest"), None

    start = jnp.zeros((draws, BINS), confidence.dtype)
    gaps, _ = jax.lax.scan(step, start, (jax.random.split(key, blocks), *parts))
    return jnp.abs(gaps).sum(-1) / count
