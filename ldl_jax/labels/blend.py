"""A weighted sum of other label sources."""

from dataclasses import replace

from ldl_jax.contract import Build, LabelSource
from ldl_jax.labels.base import check_epochs, ramp


def make(
    build: Build,
    *,
    parts: tuple[str, ...] = ("hard", "teacher"),  # label sources, each with its own config block
    weights: tuple[float, ...] = (0.1, 0.9),  # weights of the parts, which scale their own terms
    ramp_epochs: float = 0.0,  # epochs in which all weights but the first rise linearly from 0
    starts: tuple[float, ...] = (),  # epoch in which each part starts (its weight is 0 before)
) -> LabelSource:
    """A weighted sum of sources: `hard` and `teacher` at temperature 4 is knowledge distillation
    (Hinton 2015).

    Before a part starts, its memory is written but its term has the weight 0; the ramp begins at the
    start. State: a tuple with one entry per part. Raises ValueError if weights, starts and parts
    differ in number, a part is itself a blend, or an epoch is negative.
    """
    if len(parts) != len(weights) or not parts:
        raise ValueError(
            "config.labels.blend.weights must have one weight for each of config.labels.blend.parts; got "
            f"{weights} for {parts}"
        )
    if "blend" in parts:
        raise ValueError(
            "config.labels.blend.parts must not contain 'blend' itself; name other sources"
        )
    if not ramp_epochs >= 0:
        raise ValueError(f"config.labels.blend.ramp_epochs must be at least 0, got {ramp_epochs}")
    if starts and len(starts) != len(parts):
        raise ValueError(
            "config.labels.blend.starts must be empty or have one epoch for each of "
            f"config.labels.blend.parts, got {starts} for {parts}"
        )
    for start in starts:
        check_epochs("blend", "starts", start)
    sources = tuple(build.part(name) for name in parts)

    def init(key, variables):
        return tuple(source.init(key, variables) for source in sources)

    def targets(state, batch, outputs):
        terms = []
        for index, (source, weight) in enumerate(zip(sources, weights, strict=True)):
            # With a ramp, the first part (usually the hard label) starts alone.
            rise = ramp_epochs if index else 0.0
            scale = weight * ramp(batch.step, build, starts[index] if starts else 0.0, rise)
            for target in source.targets(state[index], batch, outputs):
                terms.append(replace(target, weight=target.weight * scale))
        return tuple(terms)

    def update(state, batch, forward):
        updated = []
        for source, part in zip(sources, state, strict=True):
            updated.append(source.update(part, batch, forward))
        return tuple(updated)

    def report(state):
        scalars = {}
        for name, source, part in zip(parts, sources, state, strict=True):
            for key, value in source.report(part).items():
                scalars[f"{name}/{key}"] = value
        return scalars

    clean = any(source.clean for source in sources)
    replay = any(source.replay for source in sources)
    return LabelSource(targets, init, update, clean, report, replay)
