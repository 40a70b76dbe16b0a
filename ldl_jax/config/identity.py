"""Identity of a run: the fields in use, the differences between two configs, and the fields that a
run's numbers depend on.
"""

from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax.config.fields import default, flatten

# Fields that may change when a run is resumed. Teachers, labels and tables are identified by their
# contents, not by their location.
MAY_DIFFER = (
    "teachers",
    "teachers_from",
    "data.root",
    "data.eval_batch_size",
    "data.verify",
    "data.imagefolder.cache",
    "data.imagenet.cache",
    "data.tfds.cache",
    "data.labels_file",
    "data.train_table",
    "data.test_table",
    "train.log_every_steps",
    "train.keep",
    "train.save_every_epochs",
    "train.eval_every_epochs",
    "train.chunk_steps",
    "train.on_nonfinite",
    "eval.report",
)
# Fields that may change too, although results depend on them: they are read after training.
AFTER_TRAINING = ("eval.calibrator",)
# Fields added after the first runs and result cards were written. A field that is added to `fields`
# or to the options of a plug belongs here: it then counts in identities only if it differs from its
# default.
ADDED = ("augment.names", "eval.calibrator")


def in_use(config: ConfigDict) -> dict[str, object]:
    """The fields that matter to a run: all but the blocks of plugs that it does not name."""
    sources = [config.labels.name]
    if config.labels.name == "blend":
        sources += config.labels.blend.parts
    used = {
        "data": (config.data.name,),
        "model": (config.model.name,),
        "mixing": (config.mixing.name,),
        "labels": sources,
        "losses": (config.losses.name,),
        "auxiliary": config.auxiliary.names,
        "augment": config.augment.names,
    }
    idle = []
    for section, names in used.items():
        for name in config[section]:
            is_block = isinstance(config[section].get(name), ConfigDict)
            # model.options belongs to whichever network the config names.
            if is_block and name not in names and name != "options":
                idle.append(f"{section}.{name}.")
    return {
        name: value for name, value in flatten(config).items() if not name.startswith(tuple(idle))
    }


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[object, object]]:
    """The fields in use in which two configs differ, except those that a resumed run may change.

    Maps a field to its old and new value, None if a config does not use it.
    """
    before = in_use(old)
    after = in_use(new)
    changed = {}
    for name in after | before:
        values = (before.get(name), after.get(name))
        if values[0] != values[1] and name not in MAY_DIFFER + AFTER_TRAINING:
            changed[name] = values
    return changed


def decisive(config: ConfigDict) -> dict[str, object]:
    """The fields in use that a run's numbers depend on; files of labels and tables by their names,
    without folders.

    Fields of ADDED count only if they differ from their default, so that the identities of older
    runs and cards do not change.
    """
    used = in_use(config)
    usual = flatten(default())
    counted = {}
    for name, value in used.items():
        is_new_default = name in ADDED and value == usual[name]
        if name not in MAY_DIFFER and not is_new_default:
            counted[name] = value
    # Other labels make another run; where their file lies does not matter.
    for name in ("data.labels_file", "data.train_table", "data.test_table"):
        if used[name]:
            counted[name] = Path(used[name]).name
    return counted
