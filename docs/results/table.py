"""A Markdown table of finished runs: python docs/results/table.py RUN [RUN ...]"""

import json
import sys
from pathlib import Path

from ldl_jax.report.figure_tables import number, title
from ldl_jax.report.tables import as_markdown, simple

METRICS = ("accuracy", "nll", "brier", "ece", "ece_floor")


def row(path: Path) -> list[str]:
    """One run's scores on the test images."""
    summary = json.loads((path / "summary.json").read_text())
    scores = summary["splits"]["test"]
    return [path.name, *(number(name, scores[name]) for name in METRICS), f"{summary['epochs']:g}"]


if __name__ == "__main__":
    head = ["run", *map(title, METRICS), "epochs"]
    print(as_markdown(simple(head, [row(Path(name)) for name in sys.argv[1:]])), end="")
