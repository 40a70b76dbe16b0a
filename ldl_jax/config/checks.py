"""What the value of a setting may be, before anything is built: its type, its range, its names."""

from ml_collections import ConfigDict

from ldl_jax.config.options import plugs

COUNTER = 2**31 - 1  # steps, positions and pixels are counted in int32 on the device
NAME = 255  # bytes: no file system has longer names
FREE = ("teachers_from",)  # a text that names no file
LARGEST = 1e300  # of real numbers, with room for what they are multiplied by
LOWEST = {  # of numbers; what a plug allows of its own options, the plug says
    "seed": 0, "data.batch_size": 1, "data.eval_batch_size": 1, "data.holdout": 0, "data.examples": 1,
    "model.norm_group": 0, "optimizer.learning_rate": 0, "optimizer.clip_norm": 0, "optimizer.factor": 0,
    "optimizer.warmup_epochs": 0, "optimizer.accumulate": 1, "optimizer.boundaries": 0, "train.epochs": 0,
    "train.max_steps": 1, "train.save_every_epochs": 0, "train.eval_every_epochs": 0, "train.log_every_steps": 1,
    "train.keep": 1, "train.chunk_steps": 0,
}  # fmt: skip
# without x64, JAX would take the lower 32 bits of more: another seed's key
HIGHEST = {"seed": 2**32 - 1}
WORDS = {bool: "True and False", int: "whole numbers", float: "numbers", str: "strings"}


def types(
    fields: dict[str, object], defaults: dict[str, object], optional: dict[str, type]
) -> None:
    """Raise ValueError for the first field, or element of a list, whose value is of another type or
    range.

    fields, defaults: values by their dotted names, tuples as lists; `optional` are the fields that
    may be None, with their types. An empty default is one of strings, but for the model's mean and
    std.
    """
    for field, usual in defaults.items():
        value = fields.get(field)
        if field in optional:
            if value is not None:
                _value(field, field, value, optional[field])
        elif isinstance(usual, list):
            numbers = field in ("model.mean", "model.std") or (
                usual and not isinstance(usual[0], str)
            )
            if not isinstance(value, list):
                raise ValueError(
                    f"config.{field} is {value!r}; allowed are lists of {'numbers' if numbers else 'strings'}"
                )
            for number, element in enumerate(value):
                _value(field, f"{field}[{number}]", element, float if numbers else str)
        else:
            _value(field, field, value, type(usual))


def _value(field: str, place: str, value, kind: type) -> None:
    """One value of a field, at its place in it."""
    fits = isinstance(value, (int, float) if kind is float else kind) and (
        kind is bool
    ) == isinstance(value, bool)
    if not fits:
        raise ValueError(f"config.{place} is {value!r}; allowed are {WORDS[kind]}")
    if kind is str and "\0" in value:
        raise ValueError(
            f"config.{place} is {value!r}; allowed are strings without a null character"
        )
    if (
        kind is str
        and max(len(part.encode(errors="replace")) for part in value.split("/")) > NAME
        and field not in FREE
    ):
        raise ValueError(
            f"config.{place} is {value[:40]!r}...; allowed are at most {NAME} bytes between two slashes"
        )
    if kind not in (int, float):
        return
    low = LOWEST.get(field, -LARGEST if kind is float else -COUNTER)
    high = HIGHEST.get(field, LARGEST if kind is float else COUNTER)
    if not low <= value <= high:  # a NaN is in no range
        closed = kind is int and (field in HIGHEST or field not in LOWEST or value > high)
        allowed = f"numbers from {low}" if field in LOWEST or kind is int else "finite numbers"
        shown = value if isinstance(value, float) or abs(value) < 2**64 else "too large"
        raise ValueError(
            f"config.{place} is {shown}; allowed are {allowed}" + (f" to {high}" if closed else "")
        )


def _name(field: str, value: str, allowed) -> None:
    if value not in allowed:
        raise ValueError(f"config.{field} is {value!r}; allowed are {', '.join(allowed)}")


def names(config: ConfigDict) -> None:
    """Raise ValueError where a field names a plug, a mixing or a way that is not there."""
    _name("data.name", config.data.name, plugs("data"))
    _name("mixing.name", config.mixing.name, plugs("mixing"))
    _name("labels.name", config.labels.name, plugs("labels"))
    _name("losses.name", config.losses.name, plugs("losses"))
    if "." not in config.model.name:
        _name("model.name", config.model.name, plugs("models"))
    for section in ("auxiliary", "augment"):
        for number, name in enumerate(config[section].names):
            _name(f"{section}.names[{number}]", name, plugs(section))
    for number, part in enumerate(
        config.labels.blend.parts if config.labels.name == "blend" else ()
    ):
        _name(
            f"labels.blend.parts[{number}]",
            part,
            [name for name in plugs("labels") if name != "blend"],
        )
    _name("data.on_error", config.data.on_error, ("raise", "skip"))
    _name("data.train_split", config.data.train_split, ("train", "test"))
    _name("model.dtype", config.model.dtype, ("float32", "bfloat16", "float64"))
    _name("train.on_nonfinite", config.train.on_nonfinite, ("stop", "skip_step"))
    _name("eval.weights", config.eval.weights, ("raw", "ema"))


def together(config: ConfigDict) -> None:
    """Raise ValueError where values that are allowed each do not fit one another."""
    if config.data.folds < 0 or config.data.folds == 1:
        raise ValueError(
            f"config.data.folds is {config.data.folds}; allowed are 0 for none, or numbers from 2"
        )
    if not 0 <= config.data.fold < max(config.data.folds, 1):
        raise ValueError(
            f"config.data.fold is {config.data.fold}; allowed are 0 to {max(config.data.folds, 1) - 1}, below "
            "config.data.folds"
        )
    if config.eval.weights == "ema" and not config.optimizer.ema:
        raise ValueError(
            "config.eval.weights is 'ema', but config.optimizer.ema is 0: no average is kept"
        )
    if not 0 <= config.optimizer.ema < 1:
        raise ValueError(
            f"config.optimizer.ema is {config.optimizer.ema}; allowed are numbers in [0, 1)"
        )


def pixels(augment: ConfigDict, shape: tuple[int, int, int]) -> None:
    """Raise ValueError where augmentation reaches beyond images [H, W, C]."""
    longer = max(shape[:2])
    if max(augment.pad, augment.cutout) > longer:
        raise ValueError(
            f"config.augment.pad is {augment.pad} and cutout {augment.cutout}; allowed are at most {longer} pixels, "
            "the longer side of the images"
        )
