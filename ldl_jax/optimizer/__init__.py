"""The optimizer: its learning-rate schedule and its chain of optax transformations."""

from ml_collections import ConfigDict

from ldl_jax.optimizer import by_name
from ldl_jax.optimizer.by_name import count, evaluated, updated
from ldl_jax.optimizer.schedules import cut_cycle, make_schedule, never_lowered
from ldl_jax.optimizer.sgd import kernels_only, make

__all__ = [
    "count",
    "cut_cycle",
    "evaluated",
    "from_settings",
    "kernels_only",
    "make",
    "make_schedule",
    "never_lowered",
    "updated",
]


def from_settings(settings: ConfigDict, per_epoch: int, total: int):
    """(learning-rate schedule, optax transformation) of `config.optimizer`, for a run of `total` steps.

    Raises ValueError, naming the field, if an option is not allowed.
    """
    # The schedule counts updates, of which there is one in `accumulate` steps.
    schedule = make_schedule(
        settings.learning_rate,
        schedule=settings.schedule,
        boundaries=settings.boundaries,
        factor=settings.factor,
        warmup_epochs=settings.warmup_epochs,
        updates_per_epoch=per_epoch / settings.accumulate,
        total_updates=max(1, total // settings.accumulate),
        cycle_epochs=settings.cycle_epochs,
        cycle_factor=settings.cycle_factor,
        rise=settings.rise,
        start_divisor=settings.start_divisor,
        end_divisor=settings.end_divisor,
    )
    return schedule, by_name.make(settings, schedule)
