"""How far a study is: a bar over its runs, with the time left."""

import statistics
import sys
import threading

from tqdm import tqdm

from ldl_jax.cli import clock
from ldl_jax.config.study import Planned
from ldl_jax.study.cards import Card


class Progress:
    """A bar over all runs, with the time left from what was measured; plain lines when not in a
    terminal.
    """

    def __init__(self, planned: list[Planned], done: dict[tuple[str, int], float], jobs: int):
        self.planned = planned
        self.seconds = dict(done)  # what each finished run took
        self.jobs = jobs
        self.lost: set[tuple[str, int]] = set()  # runs that were given up
        self.lock = threading.Lock()
        self.bar = tqdm(
            total=len(planned),
            initial=len(done),
            unit="run",
            disable=None,
            bar_format="{bar} {n}/{total} {desc}",
        )

    def finished(self, planned: Planned, card: Card) -> None:
        """Count a run and say what it scored."""
        with self.lock:
            self._finished(planned, card)

    def _finished(self, planned: Planned, card: Card) -> None:
        seconds = card.facts["seconds"]
        self.seconds[planned.key] = seconds
        self.bar.set_description_str(f"about {clock(self.left())} left", refresh=False)
        self.bar.update()

        figures = card.facts["raw"]["figures"]
        scores = f"accuracy {100 * figures['accuracy']:.2f} %, ECE {100 * figures['ece']:.2f} %"
        count = f"{len(self.seconds)}/{len(self.planned)}"
        left = f"about {clock(self.left())} left"
        self.say(f"{count} {planned.name}: {scores}, {clock(seconds)}; {left}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.bar.write(text, file=sys.stderr)

    def left(self) -> float:
        """Seconds for the runs that remain: as their cell took, else as the most similar cell for
        as many images.
        """
        remaining = [
            planned
            for planned in self.planned
            if planned.key not in self.seconds and planned.key not in self.lost
        ]
        seconds_of_cell: dict[str, list[float]] = {}
        for (cell, _), seconds in self.seconds.items():
            seconds_of_cell.setdefault(cell, []).append(seconds)
        # A run of each cell that was measured stands for the cell's settings.
        measured = {
            planned.cell.name: planned
            for planned in self.planned
            if planned.cell.name in seconds_of_cell
        }
        if not measured:
            return 0.0

        total = 0.0
        for planned in remaining:
            similar = min(measured.values(), key=lambda other: _distance(planned, other))
            seconds = statistics.mean(seconds_of_cell[similar.cell.name])
            total += seconds * images(planned) / images(similar)
        return total / max(1, min(self.jobs, len(remaining)))

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def _distance(planned: Planned, other: Planned) -> int:
    """How many settings differ; -1 for a run of the same cell."""
    if planned.cell.name == other.cell.name:
        return -1
    fields = {**planned.settings, **other.settings}
    return sum(planned.settings.get(field) != other.settings.get(field) for field in fields)


def images(planned: Planned) -> float:
    """What a run costs, roughly: the images that it trains on, over all epochs."""
    config = planned.config
    if config.train.max_steps:
        return config.train.max_steps * config.data.batch_size
    return config.train.epochs * (config.data.examples or 50_000)
