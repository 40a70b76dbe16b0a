"""Which fields make a run what it is: those in use, those in which two differ, those that its
numbers depend on.
"""

from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax.config.fields import default, flatten

# of a run that is resumed; teachers, labels and tables are known by what they hold, wherever it
# lies
MAY_DIFFER = (
    "teachers", "teachers_from", "data.root", "data.eval_batch_size", "data.verify",
    "data.imagefolder.cache", "data.imagenet.cache", "data.tfds.cache", "data.labels_file",
    "data.train_table", "data.test_table", "train.log_every_steps", "train.keep", "train.save_every_epochs",
    "train.eval_every_epochs", "train.chunk_steps", "train.on_nonfinite", "eval.report",
)  # fmt: skip
# Fields that joined after runs and result cards had been made. One that is added to `fields` or to
# the options of a plug belongs here: it then counts in identities only where it differs from its
# default.
ADDED = ("augment.names",)


def in_use(config: ConfigDict) -> dict[str, object]:
    """The fields that matter to a run: those of the plugs it names, not those of the others."""
    parts = (
        config.labels.name,
        *(config.labels.blend.parts if config.labels.name == "blend" else ()),
    )
    used = {
        "data": (config.data.name,), "model": (config.model.name,), "mixing": (config.mixing.name,), "labels": parts,
        "losses": (config.losses.name,), "auxiliary": tuple(config.auxiliary.names),
        "augment": tuple(config.augment.names),
    }  # fmt: skip
    blocks = {
        section: [n for n in config[section] if isinstance(config[section].get(n), ConfigDict)]
        for section in used
    }
    idle = [
        f"{s}.{n}." for s, names in blocks.items() for n in names if n not in (*used[s], "options")
    ]
    return {
        name: value for name, value in flatten(config).items() if not name.startswith(tuple(idle))
    }


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[object, object]]:
    """The fields in use in which two configs differ, but for those that a resumed run may change."""
    before, after = in_use(old), in_use(new)
    names = [*after, *(name for name in before if name not in after)]
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name) and name not in MAY_DIFFER
    }


def decisive(config: ConfigDict) -> dict[str, object]:
    """The fields in use that a run's numbers depend on; files of labels and tables by their names,
    without folders.

    Fields of ADDED count only where they differ from their default, so that runs and cards made
    before they were there stay what they are.
    """
    files = ("data.labels_file", "data.train_table", "data.test_table")
    used, usual = in_use(config), flatten(default())
    counted = {
        name: value
        for name, value in used.items()
        if name not in MAY_DIFFER and not (name in ADDED and value == usual[name])
    }
    return counted | {name: Path(used[name]).name for name in files if used[name]}
