"""Label smoothing with a uniform distribution."""

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels.base import one_hot


def make(
    build: Build,
    *,
    epsilon: float = 0.1,  # mass spread over all K classes, the labelled one included, [0, 1]
) -> LabelSource:
    """Label smoothing: (1 - epsilon) on the label and epsilon / K on all classes (Szegedy et al.
    2016, section 7).

    Raises ValueError if epsilon is outside [0, 1].
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"config.labels.smooth.epsilon must be in [0, 1], got {epsilon}")

    def targets(state, batch, outputs):
        del state
        hard = one_hot(batch, outputs.logits)
        return (Target((1 - epsilon) * hard + epsilon / build.num_classes),)

    return LabelSource(targets)
