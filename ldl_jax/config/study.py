"""Studies: a table of cells (a config with overrides), each run with several seeds, and the
hypotheses tested on them.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ml_collections import ConfigDict

from ldl_jax import files
from ldl_jax.config import recipes
from ldl_jax.errors import one_line

METRICS = ("accuracy", "nll", "brier", "ece")
LEAST_SEEDS = 6  # per cell of a finding: three seeds cannot decide


class Cell(NamedTuple):
    """One row of a study."""

    name: str
    # a file of the folder above the study's own, such as 'cifar100_hard.py', or FILE:ARGUMENT
    config: str
    fields: Mapping[str, object] = MappingProxyType({})  # overrides: dotted field -> value
    seeds: int = 3  # number of seeds, counted up from the config's own
    # cells that teach: the run of the same place (modulo their seeds), or that of NAME/PLACE
    teachers: tuple[str, ...] = ()
    published: Mapping[str, float] = MappingProxyType({})  # metric -> published value, a fraction


class Finding(NamedTuple):
    """A hypothesis written down before the runs: `better` is better than `than`.

    With `minus`, a hypothesis about a difference of differences: the step from `than` to `better`
    improves the metric more than the step from `minus[1]` to `minus[0]`.
    """

    name: str
    better: str  # a cell
    than: str  # a cell
    metric: str = "ece"  # one of METRICS
    direction: str = "lower"  # which values are better: 'lower' or 'higher'
    about: str = ""  # the claim, in words
    group: str = ""  # findings that are corrected together, such as those of a claim
    minus: tuple[str, ...] = ()  # two more cells, whose difference is subtracted

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells that are compared: two, or four with a second pair."""
        return (self.better, self.than, *self.minus)


class Study(NamedTuple):
    """A study: its cells, hypotheses and comparisons."""

    title: str
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...] = ()  # Holm's correction is over those of a group
    # (cell, cell it is compared with): shown without a verdict
    comparisons: tuple[tuple[str, str], ...] = ()
    about: str = ""  # what a reader should know


class Planned(NamedTuple):
    """One run of a study."""

    cell: Cell
    place: int  # index among the cell's seeds, 0 to seeds - 1
    config: ConfigDict  # without teachers, whose directories are known only when it runs
    needs: tuple[tuple[str, int], ...]  # (cell, place) of its teachers
    identity: str  # SHA-256 of all that its numbers depend on, with its teachers' identities
    settings: dict  # the config's fields that its numbers depend on
    names: frozenset[str] = frozenset()  # modules that the configs of its teachers name

    @property
    def key(self) -> tuple[str, int]:
        """The run's cell and its place among the seeds, which identify it within the study."""
        return self.cell.name, self.place

    @property
    def name(self) -> str:
        """The run as --only names it, CELL/PLACE."""
        return f"{self.cell.name}/{self.place}"


def check(study: Study) -> None:
    """Raise ValueError, in one sentence, if cells, findings and comparisons do not fit together."""
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
            _check_cell_name("a comparison names", name, names)


def _check_kinds(study: Study) -> None:
    """Check that cells, findings and comparisons are tuples of the right kind."""
    for field, kind in (("cells", Cell), ("findings", Finding)):
        values = getattr(study, field)
        # A Cell is itself a tuple, so (Cell(...)) without a comma would pass for one.
        if isinstance(values, kind) or not all(isinstance(value, kind) for value in values):
            raise ValueError(
                f"the study's {field} must be a tuple of {kind.__name__}; write a single one as "
                f"({kind.__name__}(...),)"
            )
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in study.comparisons):
        raise ValueError(
            "the study's comparisons must be a tuple of pairs ((cell, cell it is compared with), "
            "...)"
        )


def _check_cell(cell: Cell, names: list[str]) -> None:
    """Check a cell's name, seeds and teachers; `names` are those of all cells."""
    if names.count(cell.name) > 1:
        raise ValueError(f"two cells are named {cell.name!r}; cell names must be unique")
    if not cell.name or not all(c.isalnum() or c in "-_." for c in cell.name):
        raise ValueError(
            f"a cell is named {cell.name!r}; a name may contain only letters, digits and - _ ."
        )
    if not isinstance(cell.seeds, int) or cell.seeds < 1:
        raise ValueError(
            f"the seeds of cell {cell.name!r} must be an integer of at least 1, got {cell.seeds}"
        )
    for teacher in cell.teachers:
        _check_cell_name(f"cell {cell.name!r} has the teacher", teacher.partition("/")[0], names)


def _check_cell_name(subject: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise ValueError(f"{subject} {name!r}, which is not a cell; cells are {', '.join(names)}")


def _check_finding(finding: Finding, study: Study, names: list[str]) -> None:
    if not isinstance(finding.minus, tuple) or len(finding.minus) not in (0, 2):
        raise ValueError(
            f"the second pair, minus, of finding {finding.name!r} must be a tuple of two cells, got "
            f"{finding.minus!r}"
        )
    _check_finding_cells(finding, study, names)
    _check_finding_metric(finding)
    for better, than in filter(None, ((finding.better, finding.than), finding.minus)):
        if better == than:
            raise ValueError(
                f"finding {finding.name!r} compares {than!r} with itself; name two cells"
            )
    # (a - b) - (a - c) is c - b, which needs no second pair.
    for cell, other in zip((finding.better, finding.than), finding.minus, strict=False):
        if cell == other:
            raise ValueError(
                f"the two pairs of finding {finding.name!r} must not both have {cell!r} in the same "
                "place, since it cancels out; compare the other two cells"
            )


def _check_finding_cells(finding: Finding, study: Study, names: list[str]) -> None:
    """Check that the cells exist and have enough seeds, each with teachers of its own."""
    for name in finding.cells:
        _check_cell_name(f"finding {finding.name!r} names", name, names)
        cell = next(cell for cell in study.cells if cell.name == name)
        if cell.seeds < LEAST_SEEDS:
            raise ValueError(
                f"finding {finding.name!r} needs at least {LEAST_SEEDS} seeds of {name!r} for a "
                f"verdict, got {cell.seeds}"
            )
        # Students of one teacher are not independent, as the test of the finding assumes.
        teacher = shared_teacher(name, study)
        if teacher:
            raise ValueError(
                f"finding {finding.name!r} rests on {name!r}, whose seeds share the teacher "
                f"{teacher!r} and so are not independent; give each seed its own teacher"
            )


def _check_finding_metric(finding: Finding) -> None:
    """Check that the metric exists and that the direction is the better one."""
    if finding.metric not in METRICS:
        raise ValueError(
            f"the metric of finding {finding.name!r} must be one of {', '.join(METRICS)}; got "
            f"{finding.metric!r}"
        )
    if finding.direction not in ("lower", "higher"):
        raise ValueError(
            f"the direction of finding {finding.name!r} must be 'lower' or 'higher', got "
            f"{finding.direction!r}"
        )
    # A finding in the wrong direction would be confirmed by a worse result.
    better = "higher" if finding.metric == "accuracy" else "lower"
    if finding.direction != better:
        raise ValueError(
            f"the direction of finding {finding.name!r} must be {better!r}, since {better} "
            f"{finding.metric} is better; got {finding.direction!r}"
        )


def shared_teacher(name: str, study: Study) -> str | None:
    """A teacher, direct or indirect, that several seeds of a cell have in common; None if each seed
    has its own.
    """
    by_name = {cell.name: cell for cell in study.cells}
    seeds = by_name[name].seeds
    if seeds == 1:
        return None
    # Walk up from the cell to its teachers, their teachers, and so on.
    pending = [name]
    visited = set()
    while pending:
        for teacher in by_name[pending.pop()].teachers:
            cell, _, place = teacher.partition("/")
            # One fixed run, or fewer seeds than the cell has, so that some are used twice.
            if place or by_name[cell].seeds < seeds:
                return teacher
            if cell not in visited:
                visited.add(cell)
                pending.append(cell)
    return None


def order(study: Study) -> list[Cell]:
    """The cells, each after its teachers. Raises ValueError if cells teach in a circle."""
    by_name = {cell.name: cell for cell in study.cells}
    # Depth first; `above` holds the cells that wait for this one.
    ordered: list[Cell] = []

    def visit(cell: Cell, above: tuple[str, ...]) -> None:
        if cell in ordered:
            return
        if cell.name in above:
            circle = (*above[above.index(cell.name) :], cell.name)
            raise ValueError(f"cells teach each other in a circle: {' -> '.join(circle)}")
        for teacher in cell.teachers:
            visit(by_name[teacher.partition("/")[0]], (*above, cell.name))
        ordered.append(cell)

    for cell in study.cells:
        visit(cell, ())
    return ordered


def needs(cell: Cell, place: int, study: Study) -> tuple[tuple[str, int], ...]:
    """(cell, place) of the runs that teach a run. Raises ValueError if one does not exist."""
    seeds = {row.name: row.seeds for row in study.cells}
    teachers = []
    for teacher in cell.teachers:
        name, _, number = teacher.partition("/")
        if number and not (number.isdigit() and int(number) < seeds[name]):
            raise ValueError(
                f"cell {cell.name!r} has the teacher {teacher!r}, which must be one of {name}/0 to "
                f"{name}/{seeds[name] - 1}"
            )
        # Without a number, seeds are paired: the first run with the teacher's first, and so on.
        teachers.append((name, int(number) if number else place % seeds[name]))
    return tuple(teachers)


def identity(settings: dict, teachers: list[str]) -> str:
    """SHA-256 of a run's settings and of its teachers' identities."""
    return files.digest([settings, teachers])


def locate(name) -> Path:
    """The file of a study: a path, or the name of one that comes with the package, such as
    'digits'.

    Raises ValueError, with similar names, if there is none.
    """
    path = recipes.find(str(name), recipes.STUDIES)
    if path is None:
        raise ValueError(f"{name} does not exist; {recipes.suggestion(name, recipes.STUDIES)}")
    return path


def load(path) -> Study:
    """The study returned by a file's `get_study()`.

    Raises ValueError in one sentence that names the file and the fault.
    """
    path = locate(path)
    namespace = {"__name__": f"study_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), namespace)
        if "get_study" not in namespace:
            raise ValueError("it has no function get_study() -> Study")
        study = namespace["get_study"]()
    except Exception as error:  # a user's file may raise anything
        raise ValueError(f"{path} is not a valid study: {one_line(error)}") from error
    if not isinstance(study, Study):
        raise ValueError(f"{path}: get_study() must return a Study, got {type(study).__name__}")
    # Messages of the checks name cells and findings; here the file is added.
    try:
        check(study)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return study
