"""Settings: every field once, with its default, its unit and its checks."""

import ast
import difflib
import inspect
import re
from collections.abc import Iterable

from ml_collections import ConfigDict, config_dict

from ldl_jax.config import checks, optimizers
from ldl_jax.config.options import block, block_of, plugs, read_options
from ldl_jax.config.own import NAMES, add_options, described, own_names, read, set_block
from ldl_jax.errors import one_line

# Section of the config -> folder of the plugs whose blocks it holds.
SECTIONS = {
    "augment": "augment",
    "mixing": "mixing",
    "data": "data",
    "model": "models",
    "labels": "labels",
    "losses": "losses",
    "auxiliary": "auxiliary",
}


# --help shows the comment behind each field, so it stays on the line of the field.
def default() -> ConfigDict:
    """All settings with their defaults, locked: setting an unknown field is an error."""
    config = ConfigDict()
    config.seed = 0  # random seed
    config.teachers = ()  # run directories of frozen networks, for labels.teacher, auxiliary.hint
    config.teachers_from = ""  # arguments of the command that trains a missing teacher
    config.data = _data()
    config.mixing = ConfigDict({"name": "none"})  # mixing of images: a file of ldl_jax/mixing
    config.model = _model()
    config.labels = ConfigDict({"name": "hard"})  # label source: a file of ldl_jax/labels
    config.losses = ConfigDict({"name": "cross_entropy"})  # criterion: a file of ldl_jax/losses
    config.auxiliary = ConfigDict({"names": ()})  # auxiliary losses: files of ldl_jax/auxiliary
    config.optimizer = _optimizer()
    config.train = _train()
    config.eval = ConfigDict({"weights": "raw"})  # parameters to evaluate: 'raw' or averaged 'ema'
    config.eval.calibrator = "safe_temperature"  # calibrator to fit on the holdout
    config.eval.report = True  # write report.html at the end of a run; takes some seconds
    config.eval.baseline = ""  # comparison.json whose figures are shown beside the run's ('': none)
    config.eval.metrics = ()  # metrics of your own: dotted names of modules with make or of
    config.eval.train_examples = 0  # training images to measure too at evaluations (0: off)
    config.eval.memory_examples = 0  # training images whose rows of the label memory are saved then
    config.augment = ConfigDict({"names": ()})  # files of ldl_jax/augment, between flip and cutout
    return _with_blocks(config).lock()


def _data() -> ConfigDict:
    """The data set, the examples in use, and labels of the user's own."""
    data = ConfigDict()
    data.name = "digits"  # data set: a file of ldl_jax/data
    data.root = ""  # folder or file that holds the data
    data.batch_size = 128  # training examples per step, over all devices
    data.eval_batch_size = 500  # examples per evaluation step, rounded up to a multiple of devices
    data.holdout = 0  # training examples held out for validation, drawn with a fixed seed
    data.holdout_share = 0.0  # the same as a share of the training examples (0: data.holdout)
    data.test_share = config_dict.placeholder(
        float
    )  # imagefolder without val/: share of each class to test on (None: 0.2, if there is no train/)
    data.test_seed = 0  # seed that draws it; apart from `seed`, so that all runs test on the same
    data.examples = config_dict.placeholder(
        int
    )  # training examples, in published order (None: all)
    data.resident = True  # keep the whole set in device memory (False: stream it batch by batch)
    data.verify = True  # check published checksums
    data.on_error = "raise"  # unreadable images: 'raise', or 'skip' (masked, so they do not count)
    data.train_split = "train"  # published split to train on, 'train' or 'test'; evaluate the other
    data.folds = 0  # folds of that split for cross-validation, drawn with a fixed seed (0: off)
    data.fold = 0  # fold to evaluate as the test set, counted from 0; train on the others
    data.labels_file = ""  # .npy or .npz of integers [N] to replace the training labels ('': none)
    data.labels_name = ""  # array in labels_file, if that is an .npz of several
    data.noise = 0.0  # share of the training labels to replace by wrong ones (0: none)
    data.noise_kind = "symmetric"  # 'symmetric': by any other class, or 'pair': by the next one
    data.noise_seed = 0  # seed that draws them; apart from `seed`, so that all runs have the same
    data.train_table = ""  # .npy or .npz of distributions [N, K] for the published train split
    data.test_table = ""  # the same for the published test split, for training or evaluation
    data.train_store = ""  # distributions of augmented views, written by ldl_jax.store ('': none)
    data.table_pseudo_count = 0.0  # added to each class's votes in the two tables (0: none)
    data.table_name = ""  # array in the two tables, if they are .npz files of several
    return data


def _model() -> ConfigDict:
    """The network."""
    model = ConfigDict()
    model.name = "cifar_resnet"  # file of ldl_jax/models, or your own module (dotted) with `make`
    model.dtype = "float32"  # activations: 'float32', 'bfloat16', 'float64' (needs JAX_ENABLE_X64)
    model.mean = ()  # mean of the pixels in [0, 1], per channel; () for the data set's own
    model.std = ()  # standard deviation of the pixels, per channel; () for the data set's own
    model.init_from = ""  # run directory whose weights and statistics the network starts from
    model.norm_group = 0  # images (views too) per group of BatchNorm in training (0: whole batch)
    model.options = ConfigDict()  # keyword options of your own module
    return model


def _optimizer() -> ConfigDict:
    """The optimizer and its schedule."""
    optimizer = ConfigDict()
    optimizer.name = "sgd"  # optimizer: 'sgd', or another of optax by its name there
    optimizer.learning_rate = 0.1  # learning rate after the warm-up
    optimizer.momentum = 0.9  # momentum of SGD, [0, 1)
    optimizer.nesterov = False  # Nesterov momentum of SGD
    optimizer.weight_decay = 5e-4  # L2, added to the gradient before the momentum, or name's own
    optimizer.decay = "all"  # parameters that decay: 'all', or 'kernels' (no biases, no BatchNorm)
    optimizer.schedule = "piecewise"  # also 'cosine', 'cosine_restarts', 'onecycle', 'constant'
    optimizer.boundaries = (100.0, 150.0)  # epochs at which 'piecewise' multiplies by factor
    optimizer.factor = 0.1  # factor of 'piecewise'
    optimizer.cycle_epochs = 10.0  # length of the first cycle of 'cosine_restarts', in epochs
    optimizer.cycle_factor = 1.0  # factor of this length from each cycle to the next, at least 1
    optimizer.rise = 0.3  # share of the run in which 'onecycle' raises the rate, (0, 1)
    optimizer.start_divisor = 25.0  # 'onecycle' starts at learning_rate divided by this
    optimizer.end_divisor = 1e4  # and ends at the rate of its start divided by this
    optimizer.body_factor = 1.0  # factor of the rate for the model without its head, above 0
    optimizer.warmup_epochs = 0.0  # length of the linear warm-up, in epochs
    optimizer.clip_norm = 0.0  # clip gradients to this global norm (0: off)
    optimizer.accumulate = 1  # steps whose gradients are averaged into one update
    optimizer.ema = 0.0  # decay per update of averaged parameters and statistics, [0, 1) (0: off)
    return optimizer


def _train() -> ConfigDict:
    """Length of a run, logging and checkpoints."""
    train = ConfigDict()
    train.epochs = 200.0  # length of training, in epochs
    train.freeze_epochs = 0.0  # epochs at the start in which only the head learns (0: off)
    train.max_steps = config_dict.placeholder(int)  # length in steps (None: train.epochs)
    train.save_every_epochs = 1.0  # epochs between checkpoints (0: only at the end)
    train.eval_every_epochs = 1.0  # epochs between evaluations (0: only at the end)
    train.log_every_steps = 50  # steps between lines of metrics.jsonl
    train.keep = 2  # number of checkpoints to keep, the latest ones
    train.chunk_steps = 0  # steps per dispatch (0: 1 on the CPU and for streamed sets, else 16)
    train.on_nonfinite = "stop"  # if the loss or a gradient is not finite: 'stop' or 'skip_step'
    train.deterministic = False  # deterministic GPU operations: resumed runs are bitwise the same
    return train


def _with_blocks(config: ConfigDict) -> ConfigDict:
    """The config with the options of the augmentation and the block of every plug."""
    for name, value in block("augment/base.py").items():
        config.augment[name] = value
    for section, folder in SECTIONS.items():
        for name in plugs(folder):
            config[section][name] = block(f"{folder}/{name}.py")
    for name, options in optimizers.blocks():
        config.optimizer[name] = options
    return config


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    """All fields by their dotted names, tuples as lists."""
    fields = {}
    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            fields.update(flatten(value, f"{prefix}{name}."))
        else:
            fields[prefix + name] = list(value) if isinstance(value, tuple) else value
    return fields


def unknown_field(name: str, config: ConfigDict | None = None) -> str | None:
    """A message about a dotted field that a config does not have, with the fields that it has; None
    if it exists. Without a config, the fields are those of the default.
    """
    block_path = "config"
    config = default() if config is None else config
    value = config
    for part in name.split("."):
        # The options of a user's own module are whatever that module takes.
        if block_path == "config.model.options":
            return None
        if not isinstance(value, ConfigDict):
            return f"{block_path} is a value and has no field {part!r}"
        if part not in value:
            near = difflib.get_close_matches(name, flatten(config), 1)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            fields = ", ".join(sorted(value))
            return f"{block_path} has no field {part!r}; its fields are {fields}{hint}"
        value = value.get(part)
        block_path = f"{block_path}.{part}"
    return None


def set_field(config: ConfigDict, field: str, value) -> None:
    """Set a dotted field, as a flag does. Raises ValueError if there is no such field, or if the
    value has another type.
    """
    unknown = unknown_field(field, config)
    if unknown:
        raise ValueError(unknown)
    *blocks, name = field.split(".")
    section = config
    for part in blocks:
        section = section[part]
    # The options of a user's own module are one field, whatever they are.
    if isinstance(section.get(name), ConfigDict) and name != "options":
        raise ValueError(f"config.{field} is a block of fields; set {field}.NAME, got {value!r}")
    # Unlocked, since the options of a user's own module are not in the default config.
    with section.unlocked():
        try:
            section[name] = tuple(value) if isinstance(value, list) else value
        except (TypeError, ValueError) as error:
            raise ValueError(f"config.{field} cannot be {value!r} ({one_line(error)})") from None
    if field in NAMES:
        add_options(config)


def parsed(config: ConfigDict, field: str, text: str):
    """The value that a text stands for: the text itself for a string field, otherwise a Python
    literal if it is one.
    """
    if isinstance(flatten(config).get(field), str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def names_first(fields: Iterable[str]) -> list[str]:
    """Dotted fields in the order in which to set them: the options of a plug of the user's own
    become fields once it is named.
    """
    return sorted(fields, key=lambda field: field not in NAMES)


def check(config: ConfigDict) -> None:
    """Raise ValueError, in one sentence that names the field, if a value is not allowed."""
    # Types come first: the checks of names and of combinations rely on them.
    check_types(config, _usual(config))
    checks.names(config)
    checks.together(config)
    optimizers.check(config)


def check_types(config: ConfigDict, usual: ConfigDict) -> None:
    """Raise ValueError, in one sentence that names the field, if a value has another type than in
    the config `usual`, or is out of range.
    """
    for name, section in usual.items():
        if isinstance(section, ConfigDict) and not isinstance(config.get(name), ConfigDict):
            raise ValueError(f"config.{name} must be a block of fields, got {config.get(name)!r}")
    fields = flatten(config)
    defaults = flatten(usual)
    optional = {}
    for name, value in defaults.items():
        if name not in fields:
            raise ValueError(
                f"config.{name} is missing, because a block above it was replaced by a value"
            )
        if value is None:
            optional[name] = _optional(usual, name)
    checks.types(fields, defaults, optional)


def _usual(config: ConfigDict) -> ConfigDict:
    """The default config, with the defaults of the user's own modules that a config names."""
    usual = default()
    for own in own_names(config):
        # The options of networks are checked by the network.
        if own.folder != "models":
            set_block(usual, own, block_of(read(own).options))
    return usual


def _optional(usual: ConfigDict, field: str) -> type:
    """The type of a field that may be None."""
    *blocks, name = field.split(".")
    for part in blocks:
        usual = usual[part]
    return usual.get_ref(name).get_type()


def _own_fields(function=default) -> list[tuple[str, str, str]]:
    """(field, default, comment) of each assignment in `default` and in the sections it calls, as
    the source has them.
    """
    source = inspect.getsource(function)
    lines = source.splitlines()
    fields = []
    for node in ast.parse(source).body[0].body:
        if not isinstance(node, ast.Assign):
            continue
        comment = lines[node.end_lineno - 1].partition("  # ")[2]
        field = ast.unparse(node.targets[0]).removeprefix("config.")
        value = ast.unparse(node.value)
        # A section is a function of its own, named after it.
        if value == f"_{field}()":
            fields += _own_fields(globals()[f"_{field}"])
        elif comment:
            # A section of one field is written in place, as ConfigDict({'name': ...}).
            inner = re.fullmatch(r"ConfigDict\(\{'(\w+)': (.*)\}\)", value)
            if inner:
                field = f"{field}.{inner[1]}"
                value = inner[2]
            if "placeholder" in value:
                value = "None"
            fields.append((field, value.replace("ConfigDict()", "{}"), comment))
    return fields


def describe(config: ConfigDict | None = None) -> str:
    """The text of --help: every field with its default and unit, every plug with its first
    sentence, and the modules of the user's own that a config names.
    """
    lines = [
        "Fields (a flag each: --config.FIELD=VALUE). Names of files of ldl_jax may also be dotted names",
        "of modules of your own, such as mine.bootstrap: see docs/extending.md.",
    ]
    for field, value, comment in _own_fields():
        lines.append(f"  {field} = {value}  {comment}")
    # The options of augment/base.py are fields of the section itself, not of a block in it.
    factories = [("augment", "augment", "augment/base.py")]
    for section, folder in SECTIONS.items():
        for name in plugs(folder):
            factories.append((f"{section} {name}", f"{section}.{name}", f"{folder}/{name}.py"))
    for title, prefix, file in factories:
        sentence, options = read_options(file)
        lines += ["", f"{title}: {sentence}"]
        for option in options:
            lines.append(f"  {prefix}.{option.name} = {option.value!r}  {option.text}")
    lines += optimizers.described()
    if config is not None:
        lines += described(config)
    return "\n".join(lines)
