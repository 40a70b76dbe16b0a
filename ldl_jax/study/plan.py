"""From a study to its runs: every config built, in an order in which teachers come first."""

import ast
import copy
import json
from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax import config
from ldl_jax.config.study import Cell, Planned, Study, identity, needs, order
from ldl_jax.errors import one_line

TO_COME = "runs/teacher"  # stands for a teacher's directory until it is known
DATA_SET = ("data.name", "data.root", "data.tfds.test")  # fields that say which data set it is
# fields that say which of its images are tested on
SPLIT = ("data.train_split", "data.folds", "data.fold")


def plan(study: Study, path, overrides: dict[str, str] | None = None) -> list[Planned]:
    """All runs of a study file at `path`, teachers first, a cell's seeds one after another.

    overrides: dotted field -> text, for all cells (where the data lie). Raises ValueError naming
    cell and field where a config cannot be built.
    """
    configs_folder = Path(path).parent.parent
    planned: dict[tuple[str, int], Planned] = {}
    for cell in order(study):
        cell_config = _config(cell, configs_folder, overrides or {})
        for place in range(cell.seeds):
            run_config = copy.deepcopy(cell_config)
            run_config.seed += place
            # As a card's JSON will hold them: tuples become lists.
            settings = json.loads(json.dumps(config.decisive(run_config)))
            teachers = needs(cell, place, study)
            mark = identity(settings, [planned[key].identity for key in teachers])
            planned[cell.name, place] = Planned(cell, place, run_config, teachers, mark, settings)
    _check_images(study, planned)
    return list(planned.values())


def _check_images(study: Study, planned: dict[tuple[str, int], Planned]) -> None:
    """Cells that are compared are measured on the same images, and nobody teaches what a student is
    tested on.
    """
    fields = {cell.name: config.flatten(planned[cell.name, 0].config) for cell in study.cells}

    def agree(cell: str, other: str, names: tuple[str, ...]) -> bool:
        return all(fields[cell][name] == fields[other][name] for name in names)

    pairs = [(finding.better, finding.than) for finding in study.findings] + list(study.comparisons)
    for cell, other in pairs:
        if not agree(cell, other, DATA_SET + SPLIT):
            raise ValueError(
                f"cells {cell!r} and {other!r} are compared, but their test images are not the same"
            )
    for cell in study.cells:
        for name in cell.teachers:
            teacher = name.partition("/")[0]
            if agree(cell.name, teacher, DATA_SET) and not agree(cell.name, teacher, SPLIT):
                raise ValueError(
                    f"cell {cell.name!r} has the teacher {teacher!r}, which is trained on other folds of the same "
                    f"data, test images of {cell.name!r} among them; allowed is the same {', '.join(SPLIT)}"
                )


def _config(cell: Cell, folder: Path, overrides: dict[str, str]) -> ConfigDict:
    """The config of a cell's first seed. Raises ValueError that names the cell."""
    try:
        cell_config = config.read(folder / cell.config)
        if {"teachers", "teachers_from"} & {*cell.fields, *overrides}:
            raise ValueError(
                "config.teachers is set; allowed are the cells that Cell.teachers names"
            )
        for field, value in cell.fields.items():
            _set(cell_config, field, value)
        for field, text in overrides.items():
            _set(cell_config, field, _parsed(cell_config, field, text))
        if cell_config.teachers and not cell.teachers:
            raise ValueError(
                f"{cell.config} names teachers; allowed are the cells that Cell.teachers names"
            )
        cell_config.eval.report = False
        cell_config.teachers = tuple(TO_COME for _ in cell.teachers)
        config.check(cell_config)
    except ValueError as error:
        raise ValueError(f"cell {cell.name!r}: {error}") from None
    return cell_config


def _set(cell_config: ConfigDict, field: str, value) -> None:
    """Set a dotted field. Raises ValueError where there is no such field, or its type is another
    one.
    """
    unknown = config.unknown_field(field)
    if unknown:
        raise ValueError(unknown)
    *blocks, name = field.split(".")
    block = cell_config
    for block_name in blocks:
        block = block[block_name]
    with block.unlocked():  # the options of a module of the user's own are not known before
        try:
            block[name] = tuple(value) if isinstance(value, list) else value
        except (TypeError, ValueError) as error:
            raise ValueError(f"config.{field} cannot be {value!r} ({one_line(error)})") from None


def _parsed(cell_config: ConfigDict, field: str, text: str):
    """The value that a text stands for: itself where the field is a string, a literal of Python
    otherwise.
    """
    if isinstance(config.flatten(cell_config).get(field), str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
