"""Batches onto the devices, ahead of the step that asks for them, and how long the host was waited
for.
"""

import itertools
import time
from collections import deque
from collections.abc import Iterator

import jax
import numpy as np

from ldl_jax import mesh
from ldl_jax.data import order
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.schedule import Plan

AHEAD = 2  # batches that are on the devices, or on their way, while a step computes


class Feed:
    """The dispatches of a run from step `first` to the last: an iterator of (number of steps,
    batches on the devices).

    The images of a streamed set are read, and sent, while the devices compute. What comes is a
    function of the seed and the step alone.
    """

    def __init__(self, experiment: Experiment, plan: Plan, first: int):
        self._mesh = experiment.mesh
        self._plan = plan
        self._step = first
        self._single = _host_batches(experiment, plan, first)
        self._ready = deque()
        self._waited = 0.0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        while len(self._ready) <= AHEAD and self._step < self._plan.total:
            self._fetch()
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def take_wait(self) -> float:
        """Seconds spent waiting for batches from the host since this was asked last."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _fetch(self):
        """Read the batches of the next dispatch and begin to send them."""
        # A chunk never crosses an edge at which a dispatch has to end: there, steps come one by
        # one.
        plan = self._plan
        whole = plan.chunk > 1 and plan.edge(self._step) - self._step >= plan.chunk
        count = plan.chunk if whole else 1

        began = time.perf_counter()
        parts = list(itertools.islice(self._single, count))
        self._waited += time.perf_counter() - began

        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *parts) if whole else parts[0]
        self._ready.append((count, mesh.to_global(batch, self._mesh, stacked=whole)))
        self._step += count


def _host_batches(experiment: Experiment, plan: Plan, first: int) -> Iterator[dict]:
    """This process's part of the batch of every step from `first` to the last, as numpy arrays."""
    c = experiment.config
    stream = experiment.dataset.train.stream
    mine = mesh.local_slice(c.data.batch_size, experiment.mesh)
    sequence = order.batches(
        experiment.train,
        seed=c.seed,
        batch_size=c.data.batch_size,
        steps_per_epoch=plan.per_epoch,
        first_step=first,
    )
    local = (
        (epoch, index[mine]) for epoch, index in itertools.islice(sequence, plan.total - first)
    )
    if stream is None:
        return ({"index": index} for _, index in local)
    return iter(stream(local, c.seed))
