"""Progress of a study: a bar over its runs, with the time left."""

import statistics
import sys
import threading
from contextlib import suppress

from tqdm import tqdm

from ldl_jax import escape
from ldl_jax.cli import clock
from ldl_jax.config.study import Planned
from ldl_jax.study.cards import Card


class Progress:
    """A bar over all runs, with the time left as estimated from the finished ones.

    Outside a terminal, plain lines. done: run -> its seconds, for runs that had finished before.
    """

    def __init__(self, planned: list[Planned], done: dict[tuple[str, int], float], jobs: int):
        self.planned = planned
        self.seconds = dict(done)  # finished run -> its seconds
        self.jobs = jobs
        self.lost: set[tuple[str, int]] = set()  # runs that were given up
        self.lock = threading.Lock()
        # disable=None hides the bar when stderr is not a terminal.
        self.bar = tqdm(
            total=len(planned),
            initial=len(done),
            unit="run",
            disable=None,
            bar_format="{bar} {n}/{total} {desc}",
        )

    def finished(self, planned: Planned, card: Card) -> None:
        """Count a finished run and print its scores."""
        # Slots report from threads of their own.
        with self.lock:
            self._finished(planned, card)

    def _finished(self, planned: Planned, card: Card) -> None:
        seconds = card.facts["seconds"]
        self.seconds[planned.key] = seconds
        time_left = f"about {clock(self.left())} left"
        self.bar.set_description_str(time_left, refresh=False)
        self.bar.update()

        metrics = card.facts["raw"]["figures"]
        scores = f"accuracy {100 * metrics['accuracy']:.2f} %, ECE {100 * metrics['ece']:.2f} %"
        count = f"{len(self.seconds)}/{len(self.planned)}"
        self.say(f"{count} {planned.name}: {scores}, {clock(seconds)}; {time_left}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        # A study goes on if nobody reads its progress any more.
        with suppress(OSError):
            self.bar.write(escape.line(text), file=sys.stderr)

    def left(self) -> float:
        """Estimated seconds until all runs are finished; 0 before the first one is.

        A run is expected to take as long as the finished ones of its cell. If there are none, the
        time of the cell with the most similar settings is scaled by the number of images.
        """
        seconds_of_cell: dict[str, list[float]] = {}
        for (cell, _), seconds in self.seconds.items():
            seconds_of_cell.setdefault(cell, []).append(seconds)
        # One run of each finished cell is enough to compare settings: its seeds differ in nothing
        # else.
        finished_cells: dict[str, Planned] = {}
        for planned in self.planned:
            if planned.cell.name in seconds_of_cell:
                finished_cells[planned.cell.name] = planned
        if not finished_cells:
            return 0.0

        total = 0.0
        remaining = 0
        for planned in self.planned:
            if planned.key in self.seconds or planned.key in self.lost:
                continue
            similar = min(finished_cells.values(), key=lambda run: _distance(planned, run))
            seconds = statistics.mean(seconds_of_cell[similar.cell.name])
            total += seconds * images(planned) / images(similar)
            remaining += 1
        return total / max(1, min(self.jobs, remaining))

    def close(self) -> None:
        """End the bar, leaving its last state on the screen."""
        self.bar.close()


def _distance(planned: Planned, other: Planned) -> int:
    """The number of settings in which two runs differ; -1 for two runs of one cell."""
    if planned.cell.name == other.cell.name:
        return -1
    fields = {**planned.settings, **other.settings}
    return sum(planned.settings.get(field) != other.settings.get(field) for field in fields)


def images(planned: Planned) -> float:
    """The rough cost of a run: the number of images it trains on, summed over all epochs."""
    config = planned.config
    if config.train.max_steps:
        return config.train.max_steps * config.data.batch_size
    return config.train.epochs * (config.data.examples or 50_000)
