"""All figures of one file of predictions as a table for the terminal: raw, and beside it temperature-scaled."""

from ldl_jax.report.table import KNOWN, align

_NONE = ""
_NOTES = (
    "interval: 95 %, by the bootstrap over examples; floor: the ECE of a perfectly calibrated model with these "
    "confidences on this many examples"
)


def table(suite: dict) -> str:
    """The figures of `suite.measure` in plain ASCII, without a newline at the end."""
    states = [state for state in ("raw", "scaled") if suite[state]]
    heads = [[f"{state}", "95 % interval", "floor"] for state in states]
    groups: dict[str, list] = {}
    for name, figure in suite["raw"]["figures"].items():
        found = [suite[state]["figures"].get(name) for state in states]
        rows = groups.setdefault(figure["group"], [[f"[{figure['group']}]", *[""] * 3 * len(states)]])
        rows.append(_row(name, found))
    lines = align([[["", *(cell for head in heads for cell in head)]], *groups.values()])
    return "\n".join([*_title(suite), *lines, _NOTES, *suite["notes"]])


def _title(suite) -> list[str]:
    lines = [f"{suite['name']}: {suite['examples']:,} examples, {suite['classes']} classes; {suite['understood']}"]
    fitted = suite["temperature"]
    if fitted:
        lines.append(
            f"temperature {fitted['temperature']:.4g}, fitted on {fitted['name']} ({fitted['examples']:,} examples)"
        )
    return lines


def _row(name: str, found: list) -> list[str]:
    label, factor, digits = KNOWN.get(name, (name, 1, 4))

    def shown(value):
        return _NONE if value is None else f"{factor * value:.{digits}f}"

    cells = [label]
    for figure in found:
        value, interval, floor = (
            (figure or {}).get("value"),
            (figure or {}).get("interval"),
            (figure or {}).get("floor"),
        )
        cells += [shown(value), f"{shown(interval[0])} to {shown(interval[1])}" if interval else _NONE, shown(floor)]
    return cells
