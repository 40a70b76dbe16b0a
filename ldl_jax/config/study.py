"""A study: a table of cells (a config with overrides), each run with several seeds, and the
questions asked of them.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ml_collections import ConfigDict

from ldl_jax import files
from ldl_jax.errors import one_line

METRICS = ("accuracy", "nll", "brier", "ece")
LEAST_SEEDS = 6  # of the cells of a finding: three cannot decide


class Cell(NamedTuple):
    """One row of a study."""

    name: str
    # a file of the folder above the study's own, such as 'cifar100_hard.py', or FILE:ARGUMENT
    config: str
    # dotted field -> value, in the place of the file's
    fields: Mapping[str, object] = MappingProxyType({})
    seeds: int = 3  # how many, from the config's own on
    # cells that teach: their run of the same place (modulo their seeds), or NAME/PLACE
    teachers: tuple[str, ...] = ()
    # figure -> what was published for this row, a fraction
    published: Mapping[str, float] = MappingProxyType({})


class Finding(NamedTuple):
    """A hypothesis written down before the runs: `better` is better than `than`."""

    name: str
    better: str  # a cell
    than: str  # a cell
    metric: str = "ece"  # of METRICS
    direction: str = "lower"  # what is better: 'lower' or 'higher'
    about: str = ""  # the claim, in words


class Study(NamedTuple):
    """All of a study."""

    title: str
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...] = ()  # one for each claim; Holm's correction is over them
    # (cell, cell it is compared with): shown without a verdict
    comparisons: tuple[tuple[str, str], ...] = ()
    about: str = ""  # what a reader should know


class Planned(NamedTuple):
    """One run of a study."""

    cell: Cell
    place: int  # 0 to seeds - 1
    config: ConfigDict  # without its teachers, whose directories are known when it runs
    needs: tuple[tuple[str, int], ...]  # (cell, place) of its teachers
    identity: str  # SHA-256 of all that its numbers depend on, its teachers' identities among them
    settings: dict  # the config's fields that its numbers depend on

    @property
    def key(self) -> tuple[str, int]:
        """What the run is known by: its cell and its place among the seeds."""
        return self.cell.name, self.place

    @property
    def name(self) -> str:
        """CELL/PLACE, as --only names it."""
        return f"{self.cell.name}/{self.place}"


def check(study: Study) -> None:
    """Raise ValueError, in one sentence, where cells and questions do not fit together."""
    _check_kinds(study)
    names = [cell.name for cell in study.cells]
    for cell in study.cells:
        _check_cell(cell, names)
    # Cells that teach each other in a circle have no order.
    order(study)
    for finding in study.findings:
        _check_finding(finding, study, names)
    for pair in study.comparisons:
        for name in pair:
            _known("a comparison names", name, names)


def _check_kinds(study: Study) -> None:
    """A single Cell is a tuple as well: what a comma makes of it is told apart here."""
    for field, kind in (("cells", Cell), ("findings", Finding)):
        values = getattr(study, field)
        if isinstance(values, kind) or not all(isinstance(value, kind) for value in values):
            raise ValueError(
                f"the study's {field} are no tuple of {kind.__name__}; allowed is one, also around one"
            )
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in study.comparisons):
        raise ValueError(
            "the study's comparisons are no pairs; allowed is ((cell, cell it is compared with), ...)"
        )


def _check_cell(cell: Cell, names: list[str]) -> None:
    if names.count(cell.name) > 1:
        raise ValueError(f"two cells are named {cell.name!r}; allowed is one of each name")
    if not cell.name or not all(c.isalnum() or c in "-_." for c in cell.name):
        raise ValueError(f"a cell is named {cell.name!r}; allowed are letters, digits and - _ .")
    if not isinstance(cell.seeds, int) or cell.seeds < 1:
        raise ValueError(
            f"cell {cell.name!r} has {cell.seeds} seeds; allowed are whole numbers from 1"
        )
    for teacher in cell.teachers:
        _known(f"cell {cell.name!r} has the teacher", teacher.partition("/")[0], names)


def _known(what: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise ValueError(f"{what} {name!r}; allowed are the study's cells: {', '.join(names)}")


def _check_finding(finding: Finding, study: Study, names: list[str]) -> None:
    _check_finding_cells(finding, study, names)
    _check_finding_metric(finding)
    if finding.better == finding.than:
        raise ValueError(
            f"finding {finding.name!r} compares {finding.than!r} with itself; allowed are two cells"
        )


def _check_finding_cells(finding: Finding, study: Study, names: list[str]) -> None:
    """Both cells are there, with enough seeds, each of which has teachers of its own."""
    for name in (finding.better, finding.than):
        _known(f"finding {finding.name!r} names", name, names)
        cell = next(cell for cell in study.cells if cell.name == name)
        if cell.seeds < LEAST_SEEDS:
            raise ValueError(
                f"finding {finding.name!r} rests on {name!r} with {cell.seeds} seeds; allowed are {LEAST_SEEDS} or "
                "more, since fewer cannot decide"
            )
        teacher = shared_teacher(name, study)
        if teacher:
            raise ValueError(
                f"finding {finding.name!r} rests on {name!r}, whose seeds share teachers ({teacher}); allowed is "
                "a teacher for each seed, since seeds of one teacher are not independent"
            )


def _check_finding_metric(finding: Finding) -> None:
    """The metric is known, and the direction is the one that is better."""
    if finding.metric not in METRICS:
        raise ValueError(
            f"finding {finding.name!r} has the metric {finding.metric!r}; allowed are {', '.join(METRICS)}"
        )
    if finding.direction not in ("lower", "higher"):
        raise ValueError(
            f"finding {finding.name!r} has the direction {finding.direction!r}; allowed are lower, higher"
        )
    if (finding.direction == "higher") != (finding.metric == "accuracy"):
        raise ValueError(
            f"finding {finding.name!r} calls a {finding.direction} {finding.metric} better; allowed are a higher "
            "accuracy, and a lower nll, brier or ece"
        )


def shared_teacher(name: str, study: Study) -> str | None:
    """A teacher, or a teacher's teacher, that several seeds of a cell learn from; None where each
    has its own.
    """
    by_name = {cell.name: cell for cell in study.cells}
    seeds = by_name[name].seeds
    if seeds == 1:
        return None
    todo, seen = [name], set()
    while todo:
        for teacher in by_name[todo.pop()].teachers:
            cell, _, place = teacher.partition("/")
            if place or by_name[cell].seeds < seeds:
                return teacher
            if cell not in seen:
                seen.add(cell)
                todo.append(cell)
    return None


def order(study: Study) -> list[Cell]:
    """The cells, teachers before those they teach. Raises ValueError where teachers wait for each
    other.
    """
    by_name = {cell.name: cell for cell in study.cells}
    done: list[Cell] = []

    def visit(cell: Cell, above: tuple[str, ...]) -> None:
        if cell in done:
            return
        if cell.name in above:
            circle = (*above[above.index(cell.name) :], cell.name)
            raise ValueError(f"cells teach each other in a circle: {' -> '.join(circle)}")
        for teacher in cell.teachers:
            visit(by_name[teacher.partition("/")[0]], (*above, cell.name))
        done.append(cell)

    for cell in study.cells:
        visit(cell, ())
    return done


def needs(cell: Cell, place: int, study: Study) -> tuple[tuple[str, int], ...]:
    """(cell, place) of the runs that teach a run. Raises ValueError for a place that is not there."""
    seeds = {other.name: other.seeds for other in study.cells}
    teachers = []
    for teacher in cell.teachers:
        name, _, number = teacher.partition("/")
        if number and not (number.isdigit() and int(number) < seeds[name]):
            raise ValueError(
                f"cell {cell.name!r} has the teacher {teacher!r}; allowed are {name}/0 to {seeds[name] - 1}"
            )
        teachers.append((name, int(number) if number else place % seeds[name]))
    return tuple(teachers)


def identity(settings: dict, teachers: list[str]) -> str:
    """SHA-256 of a run's settings and of its teachers' identities."""
    return files.digest([settings, teachers])


def load(path) -> Study:
    """The study of a file's `get_study()`. Raises ValueError in one sentence that names the file
    and the fault.
    """
    path = Path(path)
    if not path.is_file():
        studies = ", ".join(sorted(str(file) for file in Path("configs/studies").glob("*.py")))
        raise ValueError(
            f"{path} is not there; "
            + (f"there are {studies}" if studies else "name the file of a study")
        )
    namespace = {"__name__": f"study_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        if "get_study" not in namespace:
            raise ValueError("it has no function get_study() -> Study")
        study = namespace["get_study"]()
    except Exception as error:  # whatever a file of the user's may do
        raise ValueError(f"{path} is no study: {one_line(error)}") from error
    if not isinstance(study, Study):
        raise ValueError(f"{path}: get_study() returns {type(study).__name__}; allowed is a Study")
    try:
        check(study)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return study
