"""From a study to its runs: build every config, and order the runs so that teachers come first."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax import config
from ldl_jax.cli import expand_homes
from ldl_jax.config import recipes
from ldl_jax.config.study import Cell, Planned, Study, identity, needs, order

TO_COME = "runs/teacher"  # placeholder for a teacher's directory until the run starts
DATA_SET = ("data.name", "data.root", "data.tfds.test")  # fields that select the data set
SPLIT = ("data.train_split", "data.folds", "data.fold")  # fields that select its test images
TEACHERS = ("teachers", "teachers_from")  # fields that a study fills in from Cell.teachers


def plan(
    study: Study, path, overrides: dict[str, str] | None = None, *, trust: bool = False
) -> list[Planned]:
    """All runs of a study file at `path`: teachers first, the seeds of a cell one after another.

    overrides: dotted field -> text of its value, for all cells (such as the folder of the data).
    trust: let cells start from a config.json that names modules, whoever trained that run. Raises
    ValueError, naming the cell and the field, if a config cannot be built.
    """
    configs_folder = Path(path).parent.parent
    planned: dict[tuple[str, int], Planned] = {}
    for cell in order(study):
        cell_config = _config(cell, configs_folder, overrides or {}, trust=trust)
        for index in range(cell.seeds):
            run_config = copy.deepcopy(cell_config)
            run_config.seed += index
            # A round trip through JSON turns tuples into lists, as when a card is read back.
            settings = json.loads(json.dumps(config.decisive(run_config)))
            # The teachers' identities are part of the student's: with another teacher it is
            # another run. They are known by now, since teachers come first.
            teachers = needs(cell, index, study)
            run_identity = identity(settings, [planned[key].identity for key in teachers])
            consent = config.Consent()
            for key in teachers:
                consent = consent.to(planned[key].config)
            planned[cell.name, index] = Planned(
                cell, index, run_config, teachers, run_identity, settings, consent.names
            )
    _check_images(study, planned)
    return list(planned.values())


def _check_images(study: Study, planned: dict[tuple[str, int], Planned]) -> None:
    """Raise ValueError if compared cells have different test images, or if a teacher was trained on
    test images of its student.
    """
    fields = {cell.name: config.flatten(planned[cell.name, 0].config) for cell in study.cells}

    def agree(cell: str, other: str, names: tuple[str, ...]) -> bool:
        return all(fields[cell][name] == fields[other][name] for name in names)

    # Differences are paired over images, so all cells must be measured on the same ones.
    pairs = list(study.comparisons)
    for finding in study.findings:
        pairs += [(finding.better, cell) for cell in finding.cells[1:]]
    for cell, other in pairs:
        if not agree(cell, other, DATA_SET + SPLIT):
            raise ValueError(
                f"cells {cell!r} and {other!r} are compared, but their test images differ; "
                f"{', '.join(DATA_SET + SPLIT)} must be the same for both"
            )

    # A teacher from another data set is fine. One from other folds of the same data has been
    # trained on the student's test images, and would leak their labels.
    for cell in study.cells:
        for name in cell.teachers:
            teacher = name.partition("/")[0]
            if agree(cell.name, teacher, DATA_SET) and not agree(cell.name, teacher, SPLIT):
                raise ValueError(
                    f"cell {cell.name!r} has the teacher {teacher!r}, which is trained on other "
                    f"folds of the same data and so on test images of {cell.name!r}; "
                    f"{', '.join(SPLIT)} must be the same for both"
                )


def _config(
    cell: Cell, folder: Path, overrides: dict[str, str], *, trust: bool = False
) -> ConfigDict:
    """The config of a cell's first seed. Raises ValueError that names the cell."""
    try:
        name, *argument = cell.config.split(":", 1)
        path = folder / name
        # A study of the user's own may use configs that come with the package.
        if not path.is_file():
            path = recipes.named(name) or path
        given = _plug_names(cell.fields, overrides)
        cell_config = config.read(":".join([str(path), *argument]), given=given, trust=trust)
        # Directories of teachers are known only when a run starts, so no field may name them.
        for field in TEACHERS:
            if field in cell.fields or field in overrides:
                raise ValueError(
                    f"config.{field} must not be set in a study; name the cells of the teachers "
                    "in Cell.teachers"
                )
        before = copy.deepcopy(cell_config)
        for field in config.names_first(cell.fields):
            config.set_field(cell_config, field, cell.fields[field])
        _scale_boundaries(cell_config, before, cell.fields)
        before = copy.deepcopy(cell_config)
        for field in config.names_first(overrides):
            value = config.parsed(cell_config, field, overrides[field])
            config.set_field(cell_config, field, value)
        _scale_boundaries(cell_config, before, overrides)
        if cell_config.teachers and not cell.teachers:
            raise ValueError(
                f"{cell.config} must not set teachers; name the cells of the teachers in "
                "Cell.teachers"
            )

        # The study has a report of its own.
        cell_config.eval.report = False
        cell_config.teachers = (TO_COME,) * len(cell.teachers)
        expand_homes(cell_config)
        config.check(config.add_options(cell_config))
    except ValueError as error:
        raise ValueError(f"cell {cell.name!r}: {error}") from None
    return cell_config


def _plug_names(fields: Mapping[str, object], overrides: dict[str, str]) -> dict[str, object]:
    """The values that a study sets for fields that name plugs."""
    usual = config.default()
    texts = {field: config.parsed(usual, field, text) for field, text in overrides.items()}
    return {field: value for field, value in {**fields, **texts}.items() if field in config.NAMES}


def _scale_boundaries(cell_config: ConfigDict, before: ConfigDict, fields) -> None:
    """Keep the shape of the schedule if the fields set the epochs alone."""
    # A wrong type is reported by `config.check`, once all fields are set.
    if isinstance(cell_config.train.epochs, int | float):
        config.scale_boundaries(cell_config, before, fields)
