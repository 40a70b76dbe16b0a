"""The open line of a run's log: the steps since the last one, and what is done about those that are not finite."""

TOLD = 5  # steps that are skipped are told one by one up to so many, and counted from then on
IN_A_ROW = 100  # skipped steps after which a run ends: it learns nothing any more


class NonFinite(Exception):
    """The loss, the gradient or the state stopped being a finite number."""


class Window:
    """The scalars of the steps since the last line; `rows` go into checkpoints, None for a step that was skipped."""

    def __init__(self, rows, *, skip: bool):
        self.rows = list(rows)
        self._skip = skip
        self._told = self._in_a_row = 0
        self._rate = None  # learning rate of the last step

    def add(self, step: int, row: dict[str, float]) -> str | None:
        """Take in the scalars of a step; returns what there is to say of it, if anything.

        Raises NonFinite where the step is not finite and not skipped, or the last of too many that were.
        """
        finite, self._rate = row.pop("finite"), row["learning_rate"]
        if finite:
            self.rows.append(row)
            self._in_a_row = 0
            return None
        text = (
            f"step {step}: loss {row['loss']:g}, gradient norm {row['grad_norm']:g} at learning rate "
            f"{row['learning_rate']:g}"
        )
        if not self._skip:
            raise NonFinite(f"{text}; no checkpoint holds it")
        self.rows.append(None)
        self._told += 1
        self._in_a_row += 1
        if self._in_a_row == IN_A_ROW:
            raise NonFinite(f"{text}; it is the last of {IN_A_ROW} in a row that were skipped")
        if self._told < TOLD:
            return f"{text}; skipped"
        return f"{text}; skipped, and from here on only counted (train/skipped)" if self._told == TOLD else None

    def close(self) -> dict[str, float]:
        """The values of the line by their names, and an empty window: means over the steps that were not skipped."""
        rows = [row for row in self.rows if row is not None]
        means = {f"train/{name}": sum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else ())}
        if self._skip:
            means["train/skipped"] = len(self.rows) - len(rows)
        self.rows = []
        return means | {"train/learning_rate": self._rate}
