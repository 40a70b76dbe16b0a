"""Batches sent to the devices ahead of the steps that use them, and the time spent waiting."""

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

AHEAD = 2  # dispatches whose batches are on the devices, or on their way, while a step computes


class Feed:
    """Iterator over the dispatches of a run from step `first` on: (number of steps, batches).

    The batches are on the devices. Images of a streamed set are read and sent while the devices
    compute. The batches depend on the seed and the step only.
    """

    def __init__(self, experiment: Experiment, plan: Plan, first: int):
        self._mesh = experiment.mesh
        self._plan = plan
        self._step = first
        self._host_batches = _host_batches(experiment, plan, first)
        self._ready = deque()
        self._waited = 0.0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        # Refill before handing out, so that AHEAD dispatches stay in flight behind this one.
        while len(self._ready) <= AHEAD and self._step < self._plan.total:
            self._fetch()
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def take_wait(self) -> float:
        """Seconds spent waiting for batches from the host since the last call."""
        waited = self._waited
        self._waited = 0.0
        return waited

    def _fetch(self):
        """Read the batches of the next dispatch and start sending them."""
        # A chunk must not cross a step at which a dispatch has to end, such as an evaluation; the
        # steps up to there are dispatched one by one.
        plan = self._plan
        is_chunk = plan.chunk > 1 and plan.edge(self._step) - self._step >= plan.chunk
        count = plan.chunk if is_chunk else 1

        began = time.perf_counter()
        batches = list(itertools.islice(self._host_batches, count))
        self._waited += time.perf_counter() - began

        batch = batches[0]
        if is_chunk:
            batch = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        self._ready.append((count, mesh.to_global(batch, self._mesh, stacked=is_chunk)))
        self._step += count


def _host_batches(experiment: Experiment, plan: Plan, first: int) -> Iterator[dict]:
    """This process's part of the batch of every step from `first` on, as numpy arrays."""
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
    remaining = itertools.islice(sequence, plan.total - first)
    local = ((epoch, index[mine]) for epoch, index in remaining)
    # A resident set lies on the devices already, so its batches are just indices.
    if stream is None:
        return ({"index": index} for _, index in local)
    return iter(stream(local, c.seed))
