"""Every setting once: its default, its unit, its checks."""

import ast
import difflib
import inspect
import re

from ml_collections import ConfigDict, config_dict

from ldl_jax.config import checks
from ldl_jax.config.options import block, plugs, read_options

SECTIONS = {  # section of the config -> folder of the plugs whose blocks it holds
    "augment": "augment", "mixing": "mixing", "data": "data", "model": "models", "labels": "labels", "losses": "losses",
    "auxiliary": "auxiliary",
}  # fmt: skip


def default() -> ConfigDict:
    """All settings with their defaults, locked: an unknown field is an error."""
    config = ConfigDict()
    config.seed = 0  # of everything random
    # run directories of frozen networks, for labels.teacher and auxiliary.hint
    config.teachers = ()
    # arguments of the command that makes a teacher, shown where one is missing
    config.teachers_from = ""
    config.data = _data()
    config.mixing = ConfigDict({"name": "none"})  # file of ldl_jax/mixing
    config.model = _model()
    config.labels = ConfigDict({"name": "hard"})  # file of ldl_jax/labels
    config.losses = ConfigDict({"name": "cross_entropy"})  # file of ldl_jax/losses
    config.auxiliary = ConfigDict({"names": ()})  # files of ldl_jax/auxiliary, several may be on
    config.optimizer = _optimizer()
    config.train = _train()
    # parameters that are measured: 'raw', or the average 'ema'
    config.eval = ConfigDict({"weights": "raw"})
    # end a run with report.html: figures with intervals, pictures; takes some seconds
    config.eval.report = True
    # files of ldl_jax/augment, in order between flip and cutout
    config.augment = ConfigDict({"names": ()})
    return _with_blocks(config).lock()


def _data() -> ConfigDict:
    """The data set, which of its examples take part, and labels of the user's own."""
    data = ConfigDict()
    data.name = "digits"  # file of ldl_jax/data
    data.root = ""  # folder or file of the data on disk
    data.batch_size = 128  # training examples a step, over all devices
    # examples a step of evaluation, over all devices; rounded up to a multiple of them
    data.eval_batch_size = 500
    data.holdout = 0  # training examples set aside for validation, drawn by a fixed seed
    # use the first so many training examples; None = all
    data.examples = config_dict.placeholder(int)
    data.resident = True  # keep the whole set in the device's memory; False: feed it batch by batch
    data.verify = True  # compare published checksums
    # an unreadable image: 'raise', or 'skip' (its slot stays, and counts for nothing)
    data.on_error = "raise"
    # published split that is trained on: 'train' or 'test'; the other is evaluated
    data.train_split = "train"
    data.folds = 0  # parts of that split for cross-validation, drawn by a fixed seed; 0 = none
    # with folds: the part that is evaluated as the test images, from 0; the others are trained on
    data.fold = 0
    # .npy or .npz of integers [N] to train on instead of that split's labels; '' = none
    data.labels_file = ""
    data.labels_name = ""  # entry of labels_file, where that is an .npz of several
    # .npy or .npz of distributions [N, K], one for each image of the published train split
    data.train_table = ""
    # the same for the published test split, to train on or to be measured against
    data.test_table = ""
    data.table_name = ""  # entry of the two tables, where they are .npz files of several
    return data


def _model() -> ConfigDict:
    """The network."""
    model = ConfigDict()
    # file of ldl_jax/models, or the dotted name of a module of yours with `make`
    model.name = "cifar_resnet"
    # of activations: 'float32', 'bfloat16', or 'float64' under JAX_ENABLE_X64
    model.dtype = "float32"
    model.mean = ()  # of the pixels in [0, 1], for each channel; () = the data set's
    model.std = ()  # of the pixels in [0, 1], for each channel; () = the data set's
    # images (views too) that share BatchNorm's training statistics; 0 = the whole batch
    model.norm_group = 0
    model.options = ConfigDict()  # keyword options of a module of yours
    return model


def _optimizer() -> ConfigDict:
    """The optimizer and its schedule."""
    optimizer = ConfigDict()
    optimizer.learning_rate = 0.1  # at the start, after the warm-up
    optimizer.momentum = 0.9  # of SGD, [0, 1)
    optimizer.nesterov = False  # Nesterov's form of the momentum
    optimizer.weight_decay = 5e-4  # L2, added to the gradient before the momentum
    optimizer.decay = "all"  # parameters that decay: 'all', or 'kernels' (no biases, no BatchNorm)
    optimizer.schedule = "piecewise"  # 'piecewise', 'cosine' or 'constant'
    # epochs at which the learning rate is multiplied by `factor`
    optimizer.boundaries = (100.0, 150.0)
    optimizer.factor = 0.1  # of 'piecewise'
    optimizer.warmup_epochs = 0.0  # epochs of linear warm-up
    optimizer.clip_norm = 0.0  # largest global norm of the gradient; 0 = not clipped
    optimizer.accumulate = 1  # steps whose gradients are averaged into one update
    optimizer.ema = 0.0  # decay of averaged parameters and statistics, each update; 0 = none kept
    return optimizer


def _train() -> ConfigDict:
    """How long a run is, and what it does on the way."""
    train = ConfigDict()
    train.epochs = 200.0  # epochs
    # end after so many steps, which schedules span; None: `epochs`
    train.max_steps = config_dict.placeholder(int)
    train.save_every_epochs = 1.0  # epochs between checkpoints; 0 = at the end alone
    train.eval_every_epochs = 1.0  # epochs between evaluations; 0 = at the end alone
    train.log_every_steps = 50  # steps between lines of metrics.jsonl
    train.keep = 2  # latest checkpoints that are kept
    # steps in one dispatch; 0 = 1 on the CPU and for streamed sets, 16 elsewhere
    train.chunk_steps = 0
    # a loss or gradient that is no number: 'stop', or 'skip_step' (it changes nothing)
    train.on_nonfinite = "stop"
    # on a GPU: XLA's deterministic operations, so that a resumed run is bitwise the same
    train.deterministic = False
    return train


def _with_blocks(config: ConfigDict) -> ConfigDict:
    """The config with the options of the augmentation, and the block of every plug."""
    for name, value in block("augment/base.py").items():
        config.augment[name] = value
    for section, folder in SECTIONS.items():
        for name in plugs(folder):
            config[section][name] = block(f"{folder}/{name}.py")
    return config


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    """All fields by their dotted names."""
    fields = {}
    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            fields.update(flatten(value, f"{prefix}{name}."))
        else:
            fields[prefix + name] = list(value) if isinstance(value, tuple) else value
    return fields


def unknown_field(name: str) -> str | None:
    """A sentence about a dotted field that does not exist, listing what is there; None where it
    exists.
    """
    place, walked = default(), []
    for part in name.split("."):
        if walked == ["model", "options"]:
            return None
        if not isinstance(place, ConfigDict) or part not in place:
            where = "config" + "".join(f".{step}" for step in walked)
            if not isinstance(place, ConfigDict):
                return f"{where} is a value and has no field {part!r}"
            near = difflib.get_close_matches(name, flatten(default()), 1)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            return f"{where} has no field {part!r}; there are {', '.join(sorted(place))}{hint}"
        place, walked = place.get(part), [*walked, part]
    return None


def check(config: ConfigDict) -> None:
    """Raise ValueError, in one sentence that names the field, where a value is not allowed."""
    usual = default()
    for name, section in usual.items():
        if isinstance(section, ConfigDict) and not isinstance(config.get(name), ConfigDict):
            raise ValueError(f"config.{name} is {config.get(name)!r}; allowed is a block of fields")
    fields, defaults = flatten(config), flatten(usual)
    lacking = [field for field in defaults if field not in fields]
    if lacking:
        raise ValueError(
            f"config.{lacking[0]} is not there, since a block above it was replaced by a value"
        )
    checks.types(
        fields,
        defaults,
        {name: _optional(usual, name) for name in defaults if defaults[name] is None},
    )
    checks.names(config)
    checks.together(config)


def _optional(usual: ConfigDict, field: str) -> type:
    """The type of a field that may be None."""
    *blocks, name = field.split(".")
    for part in blocks:
        usual = usual[part]
    return usual.get_ref(name).get_type()


def _own_fields(function=default) -> list[tuple[str, str, str]]:
    """(field, default, comment) of each assignment in `default` and in the sections it calls, as
    written there.
    """
    source = inspect.getsource(function)
    lines, fields = source.splitlines(), []
    for node in ast.parse(source).body[0].body:
        text = lines[node.end_lineno - 1].partition("  # ")[2]
        if not isinstance(node, ast.Assign):
            continue
        field, value = ast.unparse(node.targets[0]).removeprefix("config."), ast.unparse(node.value)
        if value == f"_{field}()":
            fields += _own_fields(globals()[f"_{field}"])
        elif text:
            inner = re.fullmatch(r"ConfigDict\(\{'(\w+)': (.*)\}\)", value)
            field, value = (f"{field}.{inner[1]}", inner[2]) if inner else (field, value)
            fields.append(
                (
                    field,
                    "None" if "placeholder" in value else value.replace("ConfigDict()", "{}"),
                    text,
                )
            )
    return fields


def describe() -> str:
    """Every field with its default and unit, and every plug with its first sentence: the text of
    --help.
    """
    lines = ["Fields (a flag each: --config.FIELD=VALUE):"]
    lines += [f"  {place} = {value}  {text}" for place, value, text in _own_fields()]
    groups = [("augment", "", "augment/base.py")]
    groups += [
        (section, name, f"{folder}/{name}.py")
        for section, folder in SECTIONS.items()
        for name in plugs(folder)
    ]
    for section, name, file in groups:
        sentence, options = read_options(file)
        lines += ["", f"{section} {name}".strip() + f": {sentence}"]
        prefix = f"{section}.{name}".strip(".")
        lines += [f"  {prefix}.{o.name} = {o.value!r}  {o.text}" for o in options]
    return "\n".join(lines)
