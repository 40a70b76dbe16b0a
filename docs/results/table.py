"""A Markdown table of finished runs: python docs/results/table.py RUN [RUN ...]"""

import json
import sys
from pathlib import Path

COLUMNS = (("accuracy", 100, 2), ("nll", 1, 3), ("brier", 1, 3), ("ece", 100, 2), ("ece_floor", 100, 2))


def row(path: Path) -> str:
    """One run's scores on the test images."""
    summary = json.loads((path / "summary.json").read_text())
    scores = summary["splits"]["test"]
    cells = [f"{factor * scores[name]:.{digits}f}" for name, factor, digits in COLUMNS]
    return " | ".join(["", path.name, *cells, f"{summary['epochs']:g}", ""]).strip()


if __name__ == "__main__":
    print("| run | accuracy % | NLL | Brier | ECE % | its noise floor % | epochs |")
    print("| --- |" + " ---: |" * (len(COLUMNS) + 1))
    print("\n".join(row(Path(name)) for name in sys.argv[1:]))
