"""Optimizers by name: SGD as it is here, and those of optax and optax.contrib, whose options are read
off optax's source. Nothing is imported to read them.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from ldl_jax.config.options import Option, block_of

# Why some optimizers of optax cannot train here.
REFUSED = {
    "dpsgd": "it needs the gradient of each example",
    "lbfgs": "its line search needs further values of the loss",
    "noisy_sgd": "its random key would be part of the checkpoint",
    "optimistic_adam": "optax has replaced it by optimistic_adam_v2",
    "sophia": "it needs a second loss to estimate the Hessian",
}
# Parameters that are fields of config.optimizer, or follow from them.
RATES = ("learning_rate", "scaling")
DECAYS = ("weight_decay", "weight_decay_rate")
MASKS = ("mask", "weight_decay_mask")
FIXED = (*RATES, *DECAYS, *MASKS, "adam_weight_decay", "batch_axis_name", "key", "opaque_mode")
FIXED += ("optimizer", "adv_optimizer", "base_optimizer", "warmup_steps")
# Options of 'sam' beside those of optax, which takes two optimizers instead.
SAM = (
    Option("rho", 0.05, "float", "length of the step to the second gradient"),
    Option(
        "base", "sgd", "str", "optimizer of the second gradient: another name, with its options"
    ),
)
AVERAGING = ("schedule_free", "schedule_free_adamw", "schedule_free_sgd")
BY_LOSS = ("momo", "momo_adam", "polyak_sgd")  # whose step size depends on the loss
CONSTANT_RATE = ("rprop", "sm3")  # which take a number, no schedule
# Whose own weight decay is added to the gradient, as is that of optimizers that have none.
COUPLED = ("adadelta", "cocob", "dog", "dowg", "lars", "madgrad", "schedule_free_sgd")
# Whose updates are proportional to the learning rate, so that a factor of an update is one of the rate.
PROPORTIONAL = (
    *("acprop", "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan"),
    *("ademamix", "adopt", "amsgrad", "galore", "lamb", "lars", "lion", "muon", "nadam", "nadamw"),
    *("novograd", "optimistic_adam_v2", "optimistic_gradient_descent", "radam", "rmsprop", "sgd"),
    *("sign_sgd", "signum", "simplified_ademamix", "sm3", "yogi"),
)


class Optimizer(NamedTuple):
    """What the source of an optimizer says."""

    package: str  # 'optax' or 'optax.contrib'
    parameters: tuple[str, ...]
    options: tuple[Option, ...]  # its config block

    def first(self, names: tuple[str, ...]) -> str | None:
        """The first of these names that is one of its parameters."""
        return next((name for name in names if name in self.parameters), None)


@lru_cache(None)
def optimizers() -> dict[str, Optimizer]:
    """The optimizers of the installed optax by name, without those of REFUSED; also 'sgd', which is
    not optax's and has no block.
    """
    found = {"sgd": Optimizer("", (), ())}
    spec = importlib.util.find_spec("optax")
    if spec is not None and spec.origin:
        root = Path(spec.origin).parent
        for package in ("optax", "optax.contrib"):
            folder = root.parent.joinpath(*package.split("."))
            for name, optimizer in _exported(root.parent, folder / "__init__.py", package):
                if name not in REFUSED:
                    found.setdefault(name, optimizer)
    return dict(sorted(found.items()))


def _exported(library: Path, file: Path, package: str) -> Iterator[tuple[str, Optimizer]]:
    """(name, optimizer) of each optimizer that a package imports by name."""
    exported: dict[str, set[str]] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            exported.setdefault(node.module, set()).update(alias.name for alias in node.names)
    for module, names in exported.items():
        source = library.joinpath(*module.split(".")).with_suffix(".py")
        if source.is_file():
            text = source.read_text(encoding="utf-8")
            # Most modules have no optimizer, and parsing takes time.
            factories = re.findall(
                r"^def (?!scale_by_)(\w+)\([^)]*?\b(?:learning_rate|optimizer):", text, re.M
            )
            if names.intersection(factories):
                yield from _defined(ast.parse(text), names, package)


def _defined(module: ast.Module, names: set[str], package: str) -> Iterator[tuple[str, Optimizer]]:
    """(name, optimizer) of each optimizer that a module defines, as a function or as another one
    with options bound by `partial`.
    """
    known: dict[str, Optimizer] = {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith(("_", "scale_by_")):
            parameters = _parameters(node.args)
            if {"learning_rate", "max_learning_rate", "adv_optimizer"}.intersection(parameters):
                options = (*_options(node), *(SAM if node.name == "sam" else ()))
                known[node.name] = Optimizer(package, tuple(parameters), options)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            call = node.value
            bases = [known.get(ast.unparse(argument)) for argument in call.args[:1]]
            if ast.unparse(call.func).endswith("partial") and bases != [None]:
                bound = {keyword.arg for keyword in call.keywords}
                free = tuple(option for option in bases[0].options if option.name not in bound)
                known[ast.unparse(node.targets[0])] = bases[0]._replace(options=free)
    for name, optimizer in known.items():
        if name in names:
            yield name, optimizer


def _parameters(arguments: ast.arguments) -> dict[str, tuple[str, ast.expr | None]]:
    """{name: (annotation, default)} of all parameters of a function."""
    positional = arguments.posonlyargs + arguments.args
    absent = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*absent, *arguments.defaults, *arguments.kw_defaults]
    parameters = {}
    for parameter, default in zip(positional + arguments.kwonlyargs, defaults, strict=True):
        annotation = ast.unparse(parameter.annotation) if parameter.annotation else ""
        parameters[parameter.arg] = (annotation, default)
    return parameters


def _options(function: ast.FunctionDef) -> Iterator[Option]:
    """The parameters that can be flags: numbers, booleans, strings and tuples of numbers."""
    meanings = _meanings(ast.get_docstring(function) or "")
    for name, (annotation, default) in _parameters(function.args).items():
        if name in FIXED or default is None or re.search("Mask|[Dd][Tt]ype|Callable", annotation):
            continue
        try:
            value = ast.literal_eval(default)
        except ValueError:
            continue
        kind = "float" if re.search("ArrayLike|float|Schedule", annotation) else "int"
        items = value if isinstance(value, tuple) else (value,)
        is_number = all(isinstance(item, int | float) for item in items)
        is_open = value is None and re.search("ArrayLike|float|int|Schedule", annotation)
        if is_open or is_number or isinstance(value, str):
            # An integer stays one where an array is allowed: it may be a number of steps.
            kind = kind if value is None else type(value).__name__
            yield Option(name, value, kind, meanings.get(name, "see optax"))


def _meanings(docstring: str) -> dict[str, str]:
    """The first sentence that a docstring has about each parameter, on one line."""
    entry = r"^[ \t]+(\w+): (.*?)(?=\n\s*\n|\n[ \t]+\w+: |\Z)"
    meanings = {}
    for parameter, text in re.findall(entry, docstring, re.M | re.S):
        sentence = re.split(r"\.\s", text, maxsplit=1)[0]
        meanings[parameter] = " ".join(sentence.split()).rstrip(".")
    return meanings


def blocks() -> Iterator[tuple[str, ConfigDict]]:
    """(name, config block) of each optimizer that has options."""
    for name, optimizer in optimizers().items():
        if optimizer.options:
            yield name, block_of(list(optimizer.options))


def described() -> list[str]:
    """The lines of --help about the optimizers of optax."""
    lines = ["", f"optimizer.name, by their names in optax: {', '.join(optimizers())}"]
    for name, optimizer in optimizers().items():
        for option in optimizer.options:
            lines.append(f"  optimizer.{name}.{option.name} = {option.value!r}  {option.text}")
    return lines


def used(settings: ConfigDict) -> tuple[str, ...]:
    """The optimizers that `config.optimizer` names: its own, and the one that 'sam' is made of."""
    return (settings.name, settings.sam.base) if settings.name == "sam" else (settings.name,)


def is_coupled(name: str) -> bool:
    """Whether weight decay is added to the gradient, so that it passes through momentum and scaling;
    otherwise it acts on the parameters beside them.
    """
    return name in COUPLED or optimizers()[name].first(DECAYS) is None


def note(settings: ConfigDict) -> str:
    """What a run says about its optimizer at its start; '' for SGD."""
    if settings.name == "sgd":
        return ""
    name = used(settings)[-1]
    form = "added to the gradient (coupled)" if is_coupled(name) else f"{name}'s own (decoupled)"
    decay = f"weight decay {settings.weight_decay:g} of {settings.decay} parameters, {form}"
    return f"optimizer {' around '.join(used(settings))} of optax, {decay}"


def check(config: ConfigDict) -> None:
    """Raise ValueError, in one sentence, if an optimizer does not exist or does not fit the config."""
    settings = config.optimizer
    _check_name("optimizer.name", settings.name)
    if settings.name == "sgd":
        return
    if settings.name == "sam":
        _check_sam(settings)
    subject = f"config.optimizer.name is {settings.name!r}"
    _check_batches(config, subject)
    _check_parameters(config, subject)
    varies = settings.schedule != "constant" or settings.warmup_epochs
    if used(settings)[-1] in CONSTANT_RATE and varies:
        raise ValueError(
            f"config.optimizer.schedule must be 'constant', without warm-up, if {subject}, which "
            f"takes a fixed rate; got {settings.schedule!r} and {settings.warmup_epochs} epochs of "
            "warm-up"
        )


def _check_name(field: str, name: str) -> None:
    if name in REFUSED:
        raise ValueError(f"config.{field} must not be {name!r}: {REFUSED[name]}")
    if name not in optimizers():
        raise ValueError(f"config.{field} must be one of {', '.join(optimizers())}; got {name!r}")


def _check_sam(settings: ConfigDict) -> None:
    sam = settings.sam
    _check_name("optimizer.sam.base", sam.base)
    if sam.base in ("sam", *AVERAGING, *BY_LOSS):
        raise ValueError(
            "config.optimizer.sam.base must be an optimizer that works by one gradient alone, such "
            f"as 'sgd' or 'adamw'; got {sam.base!r}"
        )
    if not sam.rho > 0:
        raise ValueError(f"config.optimizer.sam.rho must be above 0, got {sam.rho}")
    if sam.sync_period < 2:
        raise ValueError(
            "config.optimizer.sam.sync_period must be at least 2, gradients per step; got "
            f"{sam.sync_period}"
        )


def _check_batches(config: ConfigDict, subject: str) -> None:
    """Check what works on the gradients of one batch: accumulation, and a peer's own steps."""
    name = config.optimizer.name
    if name != "sam" and name not in BY_LOSS:
        return
    needs = "a second gradient" if name == "sam" else "the loss"
    if config.optimizer.accumulate > 1:
        raise ValueError(
            f"config.optimizer.accumulate must be 1 if {subject}, which needs {needs} of the whole "
            f"batch of an update; got {config.optimizer.accumulate}"
        )
    labels = config.labels
    if "peer" in ((labels.name, *labels.blend.parts) if labels.name == "blend" else (labels.name,)):
        raise ValueError(
            f"config.labels.name must not be 'peer' if {subject}, which needs {needs} that the "
            "peer's own steps do not have"
        )


def _check_parameters(config: ConfigDict, subject: str) -> None:
    """Check what changes or averages parameters beside the optimizer."""
    settings = config.optimizer
    name = used(settings)[-1]
    if config.train.freeze_epochs:
        raise ValueError(
            f"config.train.freeze_epochs must be 0 if {subject}, whose state would count the frozen "
            f"steps too; got {config.train.freeze_epochs}"
        )
    if settings.body_factor != 1 and name not in PROPORTIONAL:
        raise ValueError(
            f"config.optimizer.body_factor must be 1 if {subject}, whose updates are not "
            f"proportional to the learning rate; got {settings.body_factor}"
        )
    if name in AVERAGING:
        if settings.ema:
            raise ValueError(
                f"config.optimizer.ema must be 0 if {subject}, which averages the parameters "
                f"itself; got {settings.ema}"
            )
        b1 = settings[name].b1
        if not 0 < b1 <= 1:
            raise ValueError(f"config.optimizer.{name}.b1 must be in (0, 1], got {b1}")
    optimizer = optimizers()[name]
    has_mask = optimizer.first(MASKS) or not optimizer.first(DECAYS) or name in COUPLED
    if settings.decay == "kernels" and settings.weight_decay and not has_mask:
        raise ValueError(
            f"config.optimizer.decay must be 'all' if {subject}, whose weight decay acts on all "
            "parameters; got 'kernels'"
        )
