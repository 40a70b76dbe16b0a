"""The study of the golden fixtures: six seeds of three cells, and a teacher for each seed."""

from ldl_jax.config import Cell, Finding, Study

SHORT = {"train.max_steps": 22, "train.save_every_epochs": 0.0}


def get_study():
    """Hard labels, smoothed ones and a teacher's."""
    return Study(
        title="Golden study",
        about="Six seeds of three cells on digits.",
        cells=(
            Cell("hard", "digits.py:hard", SHORT, seeds=6, published={"accuracy": 0.5}),
            Cell("smooth", "digits.py:smooth", SHORT, seeds=6),
            Cell("ldl", "digits.py:teacher", SHORT, seeds=6, teachers=("hard",)),
        ),
        findings=(
            Finding(
                "1", better="ldl", than="hard", metric="ece", about="A teacher's labels calibrate."
            ),
            Finding("2", better="smooth", than="hard", metric="accuracy", direction="higher"),
        ),
        comparisons=(("smooth", "ldl"),),
    )
