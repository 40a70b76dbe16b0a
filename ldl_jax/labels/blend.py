"""A weighted sum of other label sources."""

from dataclasses import replace

import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource


def make(
    build: Build,
    *,
    parts: tuple[str, ...] = ("hard", "teacher"),  # label sources, each with its own config block
    weights: tuple[float, ...] = (0.1, 0.9),  # of the parts, multiplied with their own weights
    ramp_epochs: float = 0.0,  # the weights of all parts but the first grow linearly from 0 over so many epochs, >= 0
) -> LabelSource:
    """A weighted sum: `hard` and `teacher` at T = 4 is knowledge distillation (Hinton 2015).

    State: a tuple, one entry a part. Raises ValueError where weights and parts differ in number, a
    part is a blend or the ramp is negative.
    """
    if len(parts) != len(weights) or not parts:
        raise ValueError(
            f"labels.blend: parts {parts} and weights {weights}; allowed is one weight for each part"
        )
    if "blend" in parts:
        raise ValueError("labels.blend.parts names 'blend'; allowed are the other label sources")
    if ramp_epochs < 0:
        raise ValueError(f"labels.blend.ramp_epochs is {ramp_epochs}; allowed are numbers from 0")
    sources = tuple(build.part(name) for name in parts)
    ramp_steps = ramp_epochs * build.steps_per_epoch

    def init(key, variables):
        return tuple(source.init(key, variables) for source in sources)

    def targets(state, batch, outputs):
        ramp = (
            jnp.minimum(batch.step.astype(outputs.logits.dtype) / ramp_steps, 1)
            if ramp_steps
            else 1.0
        )
        terms = []
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
            scale = weight * (ramp if number else 1.0)
            for target in source.targets(state[number], batch, outputs):
                terms.append(replace(target, weight=target.weight * scale))
        return tuple(terms)

    def update(state, batch, forward):
        return tuple(
            source.update(part, batch, forward) for source, part in zip(sources, state, strict=True)
        )

    def report(state):
        reports = [source.report(part) for source, part in zip(sources, state, strict=True)]
        return {
            f"{name}/{key}": value
            for name, r in zip(parts, reports, strict=True)
            for key, value in r.items()
        }

    return LabelSource(targets, init, update, any(source.clean for source in sources), report)
