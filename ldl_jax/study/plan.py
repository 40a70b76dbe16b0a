"""From a study to its runs: every config built, in an order in which teachers come first."""

import ast
import copy
import json
from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax import config
from ldl_jax.config import study as cells
from ldl_jax.config.study import Cell, Planned, Study
from ldl_jax.errors import one_line

TO_COME = "runs/teacher"  # stands for a teacher's directory until it is known
SET = ("data.name", "data.root", "data.tfds.test")  # fields that say which data set it is
SPLIT = ("data.train_split", "data.folds", "data.fold")  # fields that say which of its images are tested on


def plan(study: Study, path, overrides: dict[str, str] | None = None) -> list[Planned]:
    """All runs of a study file at `path`, teachers first, a cell's seeds one after another.

    overrides: dotted field -> text, for all cells (where the data lie). Raises ValueError naming cell and field where a
    config cannot be built.
    """
    planned: dict[tuple[str, int], Planned] = {}
    for cell in cells.order(study):
        first = _config(cell, Path(path).parent.parent, overrides or {})
        for place in range(cell.seeds):
            made, wanted = copy.deepcopy(first), cells.needs(cell, place, study)
            made.seed += place
            used = json.loads(json.dumps(config.decisive(made)))
            mark = cells.identity(used, [planned[key].identity for key in wanted])
            planned[cell.name, place] = Planned(cell, place, made, wanted, mark, used)
    _check_images(study, planned)
    return list(planned.values())


def _check_images(study: Study, planned: dict[tuple[str, int], Planned]) -> None:
    """Cells that are compared are measured on the same images, and nobody teaches what a student is tested on."""
    fields = {cell.name: config.flatten(planned[cell.name, 0].config) for cell in study.cells}
    for one, other in [(finding.better, finding.than) for finding in study.findings] + list(study.comparisons):
        if any(fields[one][field] != fields[other][field] for field in SET + SPLIT):
            raise ValueError(f"cells {one!r} and {other!r} are compared, but their test images are not the same")
    for cell in study.cells:
        for teacher in (name.partition("/")[0] for name in cell.teachers):
            same_set, same_split = (
                all(fields[cell.name][field] == fields[teacher][field] for field in some) for some in (SET, SPLIT)
            )
            if same_set and not same_split:
                raise ValueError(
                    f"cell {cell.name!r} has the teacher {teacher!r}, which is trained on other folds of the same "
                    f"data, test images of {cell.name!r} among them; allowed is the same {', '.join(SPLIT)}"
                )


def _config(cell: Cell, folder: Path, overrides: dict[str, str]) -> ConfigDict:
    try:
        made = config.read(folder / cell.config)
        if {"teachers", "teachers_from"} & {*cell.fields, *overrides}:
            raise ValueError("config.teachers is set; allowed are the cells that Cell.teachers names")
        for field, value in cell.fields.items():
            _set(made, field, value)
        for field, text in overrides.items():
            _set(made, field, _parsed(made, field, text))
        if made.teachers and not cell.teachers:
            raise ValueError(f"{cell.config} names teachers; allowed are the cells that Cell.teachers names")
        made.eval.report = False
        made.teachers = tuple(TO_COME for _ in cell.teachers)
        config.check(made)
    except ValueError as error:
        raise ValueError(f"cell {cell.name!r}: {error}") from None
    return made


def _set(made: ConfigDict, field: str, value) -> None:
    unknown = config.unknown_field(field)
    if unknown:
        raise ValueError(unknown)
    *blocks, name = field.split(".")
    for block in blocks:
        made = made[block]
    with made.unlocked():  # the options of a module of the user's own are not known before
        try:
            made[name] = tuple(value) if isinstance(value, list) else value
        except (TypeError, ValueError) as error:
            raise ValueError(f"config.{field} cannot be {value!r} ({one_line(error)})") from None


def _parsed(made: ConfigDict, field: str, text: str):
    """The value that a text stands for: itself where the field is a string, a literal of Python otherwise."""
    if isinstance(config.flatten(made).get(field), str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
