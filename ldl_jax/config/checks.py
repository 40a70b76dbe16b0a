"""Checks of setting values before anything is built: types, ranges and names."""

import math

from ml_collections import ConfigDict

from ldl_jax.config.options import fault, plugs

COUNTER = 2**31 - 1  # steps, positions and pixels are counted in int32 on the device
NAME = 255  # bytes: no file system has longer names
FREE = ("teachers_from",)  # texts that name no file
LARGEST = 1e300  # largest real number, with room for what it is multiplied by
# Lower limits of numbers; the options of a plug are checked by the plug.
LOWEST = {
    "seed": 0,
    "data.batch_size": 1,
    "data.eval_batch_size": 1,
    "data.holdout": 0,
    "data.holdout_share": 0,
    "data.test_seed": 0,
    "data.examples": 1,
    "data.noise_seed": 0,
    "model.norm_group": 0,
    "optimizer.learning_rate": 0,
    "optimizer.clip_norm": 0,
    "optimizer.factor": 0,
    "optimizer.warmup_epochs": 0,
    "optimizer.accumulate": 1,
    "optimizer.boundaries": 0,
    "optimizer.body_factor": 0,
    "optimizer.cycle_factor": 1,
    "train.epochs": 0,
    "train.freeze_epochs": 0,
    "train.max_steps": 1,
    "train.save_every_epochs": 0,
    "train.eval_every_epochs": 0,
    "train.log_every_steps": 1,
    "train.keep": 1,
    "train.chunk_steps": 0,
    "eval.train_examples": 0,
    "eval.memory_examples": 0,
}
# Without x64, JAX takes only the lower 32 bits of a seed: a larger one would alias a smaller one.
HIGHEST = {"seed": 2**32 - 1}
WORDS = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}


def types(
    fields: dict[str, object], defaults: dict[str, object], optional: dict[str, type]
) -> None:
    """Check the type and range of every field, and of every element of a list.

    fields, defaults: values by their dotted names, tuples as lists; `optional` maps the fields that
    may be None to their types. A list with an empty default holds strings, except the model's mean
    and std. Raises ValueError for the first field that does not fit.
    """
    for field, usual in defaults.items():
        value = fields.get(field)
        # The default None of an optional field says nothing about its type.
        if field in optional:
            if value is not None:
                _check_value(field, field, value, optional[field])
        elif isinstance(usual, list):
            _check_list(field, value, usual)
        else:
            _check_value(field, field, value, type(usual))


def _check_list(field: str, value, usual: list) -> None:
    """Check that a field is a list whose elements have the type of its default's."""
    numbers = field in ("model.mean", "model.std")
    if usual and not isinstance(usual[0], str):
        numbers = True
    if not isinstance(value, list):
        elements = "numbers" if numbers else "strings"
        raise ValueError(f"config.{field} must be a list of {elements}, got {value!r}")
    for index, element in enumerate(value):
        _check_value(field, f"{field}[{index}]", element, float if numbers else str)


def _check_value(field: str, label: str, value, kind: type) -> None:
    """Check one value of a field; `label` is FIELD, or FIELD[INDEX] for an element of a list."""
    fits = isinstance(value, (int, float) if kind is float else kind)
    # A bool is an int in Python, but True is no sensible batch size.
    if not fits or (kind is bool) != isinstance(value, bool):
        raise ValueError(f"config.{label} must be {WORDS[kind]}, got {value!r}")
    if kind is str:
        _check_text(field, label, value)
    elif kind in (int, float):
        _check_range(field, label, value, kind)


def _check_text(field: str, label: str, value: str) -> None:
    """Check that a text can be part of a path."""
    if "\0" in value:
        raise ValueError(f"config.{label} must not contain a null character, got {value!r}")
    if field in FREE:
        return
    longest = max(len(part.encode(errors="replace")) for part in value.split("/"))
    if longest > NAME:
        raise ValueError(
            f"config.{label} must have at most {NAME} bytes between two slashes, got "
            f"{value[:40]!r}..."
        )


def _check_range(field: str, label: str, value: float, kind: type) -> None:
    """Check that a number lies between its limits."""
    largest = LARGEST if kind is float else COUNTER
    low = LOWEST.get(field, -largest)
    high = HIGHEST.get(field, largest)
    # Written so that a NaN, which is in no range, is refused.
    if low <= value <= high:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"config.{label} must be finite, got {value}")
    allowed = f"at least {low}"
    if value > high or field in HIGHEST or field not in LOWEST:
        allowed = f"between {low} and {high}"
    # An integer may have thousands of digits.
    shown = value if isinstance(value, float) or abs(value) < 2**64 else "more than 64 bits"
    raise ValueError(f"config.{label} must be {allowed}, got {shown}")


def _check_name(field: str, value: str, allowed) -> None:
    if value not in allowed:
        raise ValueError(f"config.{field} must be one of {', '.join(allowed)}; got {value!r}")


def _check_plug(field: str, value: str, folder: str, but: str = "") -> None:
    """Check that a name is that of a plug in a folder, not `but`, or of a module of the user's own."""
    # Whether there is such a module is seen when its options are read.
    if "." in value:
        return
    reason = fault(folder, value) if value.isidentifier() else ""
    if reason:
        raise ValueError(
            f"config.{field} is {value!r}, whose file ldl_jax/{folder}/{value}.py cannot be read "
            f"({reason})"
        )
    _check_name(field, value, [name for name in plugs(folder) if name != but])


def names(config: ConfigDict) -> None:
    """Raise ValueError if a field names a plug or a choice that does not exist."""
    _check_plug("data.name", config.data.name, "data")
    _check_plug("mixing.name", config.mixing.name, "mixing")
    _check_plug("labels.name", config.labels.name, "labels")
    _check_plug("losses.name", config.losses.name, "losses")
    _check_plug("model.name", config.model.name, "models")
    _check_plug("eval.calibrator", config.eval.calibrator, "calibrate")
    for section in ("auxiliary", "augment"):
        for index, name in enumerate(config[section].names):
            _check_plug(f"{section}.names[{index}]", name, section)
    if config.labels.name == "blend":
        # A blend within a blend would need a second block of options.
        for index, part in enumerate(config.labels.blend.parts):
            _check_plug(f"labels.blend.parts[{index}]", part, "labels", but="blend")
    for index, name in enumerate(config.eval.metrics):
        # The metrics of the package are always computed.
        if "." not in name:
            raise ValueError(
                f"config.eval.metrics[{index}] must be the dotted name of a module of your own, "
                f"such as mine.metric; got {name!r}"
            )
    _check_name("data.noise_kind", config.data.noise_kind, ("symmetric", "pair"))
    _check_name("data.on_error", config.data.on_error, ("raise", "skip"))
    _check_name("data.train_split", config.data.train_split, ("train", "test"))
    _check_name("model.dtype", config.model.dtype, ("float32", "bfloat16", "float64"))
    _check_name("train.on_nonfinite", config.train.on_nonfinite, ("stop", "skip_step"))
    _check_name("eval.weights", config.eval.weights, ("raw", "ema"))


def together(config: ConfigDict) -> None:
    """Raise ValueError if values that are valid by themselves do not fit together."""
    folds = config.data.folds
    fold = config.data.fold
    if folds < 0 or folds == 1:
        raise ValueError(
            f"config.data.folds must be 0 (no cross-validation) or at least 2, got {folds}"
        )
    if folds == 0 and fold != 0:
        raise ValueError(f"config.data.fold must be 0 if config.data.folds is 0, got {fold}")
    if folds > 0 and not 0 <= fold < folds:
        raise ValueError(
            f"config.data.fold must be between 0 and {folds - 1} (config.data.folds is {folds}), "
            f"got {fold}"
        )
    _check_shares(config.data)
    if not 0 <= config.data.table_pseudo_count < float("inf"):
        raise ValueError(
            "config.data.table_pseudo_count must be finite and at least 0, got "
            f"{config.data.table_pseudo_count}"
        )
    if not 0 <= config.data.noise < 1:
        raise ValueError(f"config.data.noise must be in [0, 1), got {config.data.noise}")
    if config.data.noise and config.data.labels_file:
        raise ValueError(
            "only one of config.data.noise and config.data.labels_file may be set, got "
            f"{config.data.noise} and {config.data.labels_file!r}"
        )
    # Found here, not at the first evaluation, which may be hours away.
    if config.eval.weights == "ema" and not config.optimizer.ema:
        raise ValueError(
            "config.eval.weights is 'ema', but config.optimizer.ema is 0, so no average is kept; "
            "set config.optimizer.ema, for example to 0.999"
        )
    if not config.optimizer.body_factor > 0:
        raise ValueError(
            "config.optimizer.body_factor must be above 0, got "
            f"{config.optimizer.body_factor}; config.train.freeze_epochs keeps the body as it is"
        )
    for field in ("cycle_epochs", "start_divisor", "end_divisor"):
        if not config.optimizer[field] > 0:
            raise ValueError(
                f"config.optimizer.{field} must be above 0, got {config.optimizer[field]}"
            )
    if not 0 < config.optimizer.rise < 1:
        raise ValueError(f"config.optimizer.rise must be in (0, 1), got {config.optimizer.rise}")
    if not 0 <= config.optimizer.ema < 1:
        raise ValueError(f"config.optimizer.ema must be in [0, 1), got {config.optimizer.ema}")


def _check_shares(data: ConfigDict) -> None:
    if data.holdout and data.holdout_share:
        raise ValueError(
            "only one of config.data.holdout and config.data.holdout_share may be above 0, got "
            f"{data.holdout} and {data.holdout_share}"
        )
    if not 0 <= data.holdout_share < 1:
        raise ValueError(f"config.data.holdout_share must be in [0, 1), got {data.holdout_share}")
    share = data.test_share
    if share is not None and not 0 < share < 1:
        raise ValueError(f"config.data.test_share must be in (0, 1), got {share}")
    if share is not None and data.name != "imagefolder":
        raise ValueError(
            "config.data.test_share must be None unless config.data.name is 'imagefolder', since "
            f"{data.name!r} has a test split of its own; got {share}"
        )


def pixels(augment: ConfigDict, shape: tuple[int, int, int]) -> None:
    """Raise ValueError if augmentation reaches beyond images [H, W, C]."""
    longer = max(shape[:2])
    if max(augment.pad, augment.cutout) > longer:
        raise ValueError(
            f"config.augment.pad and config.augment.cutout must be at most {longer} pixels, the "
            f"longer side of the images; got {augment.pad} and {augment.cutout}"
        )
