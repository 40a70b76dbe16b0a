"""Identity of a run: the fields in use, the differences between two configs, and the fields that a
run's numbers depend on.
"""

from pathlib import Path

from ml_collections import ConfigDict

from ldl_jax.config import optimizers
from ldl_jax.config.fields import default, flatten
from ldl_jax.config.options import SHARED, read_options
from ldl_jax.config.own import own_names, read

# Fields that may change when a run is resumed. Teachers, initial weights, labels and tables are
# identified by their contents, not by their location.
MAY_DIFFER = (
    "teachers",
    "teachers_from",
    "model.init_from",
    "data.root",
    "data.eval_batch_size",
    "data.verify",
    "data.imagefolder.cache",
    "data.imagenet.cache",
    "data.tfds.cache",
    "data.labels_file",
    "data.train_table",
    "data.test_table",
    "data.train_store",
    "train.log_every_steps",
    "train.keep",
    "train.save_every_epochs",
    "train.eval_every_epochs",
    "train.chunk_steps",
    "train.on_nonfinite",
    "eval.report",
    "eval.baseline",
    "eval.metrics",
    "eval.train_examples",
    "eval.memory_examples",
)
# Fields that name files or runs whose contents results depend on.
FILES = (
    "data.labels_file",
    "data.train_table",
    "data.test_table",
    "data.train_store",
    "model.init_from",
)
# Fields that may change too, although results depend on them: they are read after training.
AFTER_TRAINING = ("eval.calibrator",)
# Fields added after the first runs and result cards were written. A field that is added to `fields`
# or to the options of a plug belongs here: it then counts in identities only if it differs from its
# default.
ADDED = (
    "augment.names",
    "data.holdout_share",
    "data.noise",
    "data.noise_kind",
    "data.noise_seed",
    "data.table_pseudo_count",
    "data.test_share",
    "data.test_seed",
    "data.imagefolder.exif",
    "eval.calibrator",
    "labels.blend.starts",
    "labels.online.correct_only",
    "labels.online.start_epoch",
    "labels.online.temperature",
    "optimizer.body_factor",
    "optimizer.name",
    "optimizer.cycle_epochs",
    "optimizer.cycle_factor",
    "optimizer.rise",
    "optimizer.start_divisor",
    "optimizer.end_divisor",
    "train.freeze_epochs",
)


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
        "optimizer": optimizers.used(config.optimizer),
    }
    # model.options belongs to whichever network the config names.
    kept = ["model.options."]
    idle = []
    for section, names in used.items():
        kept += [f"{section}.{name}." for name in names]
        for name in config[section]:
            if isinstance(config[section].get(name), ConfigDict):
                idle.append(f"{section}.{name}.")
    # Metrics of the user's own, which change nothing but the figures that are reported.
    idle += [f"eval.{name}." for name in config.eval if isinstance(config.eval[name], ConfigDict)]
    fields = {}
    for name, value in flatten(config).items():
        if name.startswith(tuple(kept)) or not name.startswith(tuple(idle)):
            fields[name] = value
    return fields


def _network_defaults(config: ConfigDict) -> dict[str, object]:
    """{field: default} of the options of the user's own network, as far as they can be read."""
    defaults = {}
    for own in own_names(config):
        if own.folder != "models":
            continue
        try:
            options = read(own).options
        except ValueError:  # a run can be looked at where its network is not
            options = []
        for option in options:
            value = list(option.value) if isinstance(option.value, tuple) else option.value
            defaults[f"{own.block}.{option.name}"] = value
    return defaults


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[object, object]]:
    """The fields in use in which two configs differ, except those that a resumed run may change.

    Maps a field to its old and new value, None if a config does not use it.
    """
    # Older runs recorded only the options of the user's own network that were set.
    defaults = _network_defaults(new) if old.model.name == new.model.name else {}
    before = defaults | in_use(old)
    after = defaults | in_use(new)
    changed = {}
    for name in after | before:
        values = (before.get(name), after.get(name))
        if values[0] != values[1] and name not in MAY_DIFFER + AFTER_TRAINING:
            changed[name] = values
    return changed


def decisive(config: ConfigDict) -> dict[str, object]:
    """The fields in use that a run's numbers depend on; initial weights and files of labels and
    tables by their names, without folders.

    Fields of ADDED, and the options of the user's own network, count only if they differ from their
    default, so that the identities of older runs and cards do not change.
    """
    used = in_use(config)
    usual = flatten(default())
    # Another version of optax may have further options.
    added = [name for name in usual if name.startswith("optimizer.") and name.count(".") > 1]
    new = {name: usual[name] for name in (*ADDED, *added)} | _network_defaults(config)
    # So were the options that all auxiliary losses share, those of the user's own included.
    for option in read_options(*SHARED["auxiliary"])[1]:
        for name in used:
            if name.startswith("auxiliary.") and name.endswith(f".{option.name}"):
                new[name] = option.value
    counted = {}
    for name, value in used.items():
        is_new_default = name in new and value == new[name]
        if name not in MAY_DIFFER and not is_new_default:
            counted[name] = value
    # Other labels or weights make another run; where they lie does not matter.
    for name in FILES:
        if used[name]:
            counted[name] = Path(used[name]).name
    return counted
