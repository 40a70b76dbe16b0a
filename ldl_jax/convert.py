"""Exchange weights with PyTorch: import a state_dict as a run, or export a run as one.

python -m ldl_jax.convert import FILE --config=CONFIG [--config.FIELD=VALUE ...] --workdir=RUN
python -m ldl_jax.convert export RUN FILE.safetensors

A parameter's PyTorch name is its flax path with dots, where an underscore in a module's name
becomes a dot too: `layer1_0/downsample_0/kernel` is layer1.0.downsample.0.weight. Convolutions are
OIHW in PyTorch and HWIO here; the matrices of linear layers are transposed. BatchNorm's running
variance is copied unchanged, so a network predicts the same on either side; in further training,
PyTorch averages the unbiased variance of a batch and flax the biased one, which differ by the
factor n / (n - 1).
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import flags
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax import cli, config, escape, files, workdir
from ldl_jax.config.trust import Consent, remember_run
from ldl_jax.contract import PyTree
from ldl_jax.data.base import Dataset, Split
from ldl_jax.data.loading import make_dataset, statistics
from ldl_jax.errors import UnreadableFile, Usage, one_line, say
from ldl_jax.evaluation.load import load_weights
from ldl_jax.files.reading import check_file
from ldl_jax.models.spec import make_network, network_spec
from ldl_jax.training import start

USAGE = """usage: python -m ldl_jax.convert import FILE --config=CONFIG [options] --workdir=RUN
       python -m ldl_jax.convert export RUN FILE.safetensors [--names=torchvision|kuangliu]

import: make a finished run from a PyTorch state_dict (.safetensors or .npz), as a teacher or for ldl_jax.load.
  --config=FILE          config with the network's model and data; mean and std must be those it was trained with
  --config.FIELD=VALUE   override a field, such as config.model.mean and config.model.std
  --workdir=DIR          directory of the new run; it must not hold a run yet
  --classes=K            number of classes, and
  --shape=H,W,C          shape of an image, if the data set is not on this disk; model.mean and std are then required
export: write a finished run as a state_dict with PyTorch's names and layouts, for load_state_dict(strict=True).
  --trust                read a run whose network is not part of ldl_jax and that you have not trained yourself
  --names=kuangliu       use shortcut and linear instead of torchvision's and RepDistiller's downsample and fc
"""
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
# Names in kuangliu's pytorch-cifar, PS-KD and RepDistiller's resnetv2 -> ours.
OTHER_NAMES = {"shortcut": "downsample", "linear": "fc"}
# Prefixes of a checkpoint, of DataParallel and of modules that hold a network.
WRAPPERS = ("state_dict", "model", "module", "net", "network")
# Parts that torch.compile and other wrappers insert anywhere in a name.
INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
SHOWN = 3  # differences listed in an error message


def torch_name(path: tuple[str, ...]) -> str:
    """The PyTorch name of a parameter or statistic, from its flax path without the collection."""
    *modules, leaf = path
    parts = [module.replace("_", ".") for module in modules]
    return ".".join([*parts, LEAVES.get(leaf, leaf)])


def _axes(ndim: int) -> tuple[int, ...]:
    """Our axes in PyTorch's order: HWIO to OIHW, and a matrix transposed."""
    return (3, 2, 0, 1) if ndim == 4 else tuple(reversed(range(ndim)))


def to_state_dict(variables: PyTree, names: str = "torchvision") -> dict[str, np.ndarray]:
    """A network's variables under PyTorch's names, in PyTorch's layouts.

    BatchNorm's counts of batches are left out. names: 'torchvision' (downsample, fc) or 'kuangliu'
    (shortcut, linear).
    """
    renames = {}
    if names == "kuangliu":
        renames = {ours: theirs for theirs, ours in OTHER_NAMES.items()}
    state = {}
    for path, leaf in traverse_util.flatten_dict(variables).items():
        name = _renamed(torch_name(path[1:]), renames)
        # .safetensors files hold contiguous arrays only.
        state[name] = np.ascontiguousarray(np.transpose(leaf, _axes(leaf.ndim)))
    return state


def _renamed(name: str, renames: dict[str, str]) -> str:
    return ".".join(renames.get(part, part) for part in name.split("."))


def plain(state: dict[str, np.ndarray], expected: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """A state_dict under one set of names: no wrappers, no counts of batches, downsample and fc.

    expected: names of a network. Once all are there, nothing more is taken for a wrapper.
    """
    names, _ = unwrapped(state, expected)
    return {new: state[old] for old, new in names.items()}


def unwrapped(names: Iterable[str], expected: Iterable[str] = ()) -> tuple[dict[str, str], str]:
    """({name in a file: name in a network}, a note on what was removed, '' if nothing was).

    Names of entries beside a wrapped state_dict are left out, as are counts of batches.
    """
    expected = set(expected)
    kept = {}
    for name in names:
        if not name.endswith("num_batches_tracked"):
            kept[name] = name
    removed = []
    for part in INSERTED:
        if any(part in name for name in kept):
            removed.append(part)
            kept = {name: new.replace(part, "") for name, new in kept.items()}
    beside = []
    while not (expected and expected <= {_renamed(new, OTHER_NAMES) for new in kept.values()}):
        prefix = _wrapper(kept.values())
        if not prefix:
            break
        removed.append(prefix)
        beside += [name for name, new in kept.items() if not new.startswith(prefix)]
        kept = {
            name: new.removeprefix(prefix) for name, new in kept.items() if new.startswith(prefix)
        }
    kept = {name: _renamed(new, OTHER_NAMES) for name, new in kept.items()}
    if not removed:
        return kept, ""
    note = f"the prefix {' '.join(removed)} was removed from the names of its weights"
    if beside:
        more = " ..." if len(beside) > SHOWN else ""
        note += f"; beside them were {', '.join(beside[:SHOWN])}{more}, which are left out"
    return kept, note


def _wrapper(names: Iterable[str]) -> str:
    """The first prefix of a wrapper that a name has, such as 'module.'; '' if there is none."""
    names = list(names)
    for wrapper in WRAPPERS:
        for prefix in (f"{wrapper}/", f"{wrapper}."):
            if any(name.startswith(prefix) for name in names):
                return prefix
    return ""


def from_state_dict(state: dict[str, np.ndarray], abstract: PyTree, name: str) -> PyTree:
    """Variables with the shapes and types of `abstract`, from a state_dict called `name`.

    Raises ValueError listing the first names that are missing, have another shape, or are unknown
    to the network.
    """
    leaves = _named(abstract)
    state = plain(state, leaves)
    # Collect all differences first: a few together show what kind of network the file holds.
    faults = []
    for key, (_, leaf) in leaves.items():
        fault = _fault(key, state.get(key), leaf)
        if fault:
            faults.append(fault)
    own_names = [key for key in state if key not in leaves]
    # The names of the file itself show why, so they must not be hidden behind what is missing.
    others = ""
    if own_names and len(faults) >= SHOWN:
        others = f"; names that only the file has: {', '.join(own_names[:SHOWN])}"
    for key in own_names:
        faults.append(f"the network has no {key} {list(state[key].shape)}")
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(
            f"{name} does not fit the network of the config: {'; '.join(faults[:SHOWN])}{more}"
            f"{others}"
        )
    variables = {}
    for key, (path, leaf) in leaves.items():
        array = state[key].transpose(np.argsort(_axes(leaf.ndim)))
        variables[path] = array.astype(leaf.dtype, order="C")
    return traverse_util.unflatten_dict(variables)


def _torch_shape(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    return tuple(leaf.shape[axis] for axis in _axes(leaf.ndim))


def _named(abstract: PyTree) -> dict[str, tuple[tuple[str, ...], jax.ShapeDtypeStruct]]:
    """{PyTorch's name: (path, leaf)} of a network's variables."""
    leaves = {}
    for path, leaf in traverse_util.flatten_dict(abstract).items():
        leaves[torch_name(path[1:])] = (path, leaf)
    return leaves


def _fault(name: str, array: np.ndarray | None, leaf: jax.ShapeDtypeStruct) -> str:
    """What is wrong with an array of a state_dict; '' if nothing is."""
    shape = _torch_shape(leaf)
    if array is None:
        return f"{name} {list(shape)} is missing"
    if array.shape != shape:
        return f"{name} must be {list(shape)}, got {list(array.shape)}"
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return f"{name} must be floating-point numbers, got {array.dtype}"
    # In the network's type, which may be too narrow for the file's values.
    with np.errstate(over="ignore"):
        count = np.count_nonzero(~np.isfinite(array.astype(leaf.dtype)))
    if count:
        return f"{name} must be finite, got NaN or infinity {count} times"
    return ""


def read(path) -> dict[str, np.ndarray]:
    """Read the arrays of a .safetensors or .npz file. Raises ValueError if it is neither."""
    path = Path(path).expanduser()
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(
            f"{path} must be a .safetensors or .npz file; in PyTorch, write one with "
            "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        )
    if path.suffix == ".npz":
        arrays = files.read_npz(path, "a state_dict")
        # NumPy knows no bfloat16, so it stores bare bytes.
        for name, array in arrays.items():
            if array.dtype == np.dtype("V2"):
                arrays[name] = array.view(jnp.dtype(jnp.bfloat16))
        return arrays
    try:
        check_file(path)
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, *files.UNREADABLE) as error:
        raise UnreadableFile(path, "a state_dict", one_line(error)) from None


def import_run(path, c: ConfigDict, directory, classes: int | None = None, shape=None) -> Path:
    """Write a run directory with the network of `c` and the weights of a state_dict; returns it.

    classes, shape [H, W, C]: for a network whose data set is not on this disk. Raises ValueError if
    the file or the config does not fit, or the directory holds a run; nothing is written then.
    """
    config.check(c)
    path = Path(path).expanduser()
    directory = Path(directory).expanduser()
    start.check_free(directory)
    dataset = _dataset(c, classes, shape)
    spec = network_spec(c, dataset, *statistics(c.model, dataset))
    init, _ = make_network(spec)
    # Only shapes and types are needed, so nothing is initialized.
    abstract = jax.eval_shape(lambda: init(jax.random.key(0)))
    state = read(path)
    variables = from_state_dict(state, abstract, str(path))
    note = unwrapped(state, _named(abstract))[1]
    if note:
        say(escape.line(f"{path}: {note}"), flush=True)
    origin = {"file": str(path), "sha256": files.sha256(path)}
    start.write_imported(directory, c, spec, variables, origin)
    remember_run(c, (directory / workdir.CONFIG, directory / workdir.NETWORK))
    return directory


def _dataset(c: ConfigDict, classes: int | None, shape) -> Dataset:
    """The data set of a config, or one without examples that has the given classes and shape."""
    if classes is None and shape is None:
        return make_dataset(c.data)
    if classes is None or shape is None:
        raise ValueError("--classes and --shape must be passed together: they replace the data set")
    if classes < 2 or len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            "--classes must be at least 2 and --shape three numbers H,W,C above 0, got "
            f"{classes} and {list(shape)}"
        )
    # Without images there are no statistics to fall back on.
    if not (c.model.mean and c.model.std):
        raise ValueError(
            "config.model.mean and config.model.std are required with --classes and --shape: one "
            "number per channel, as the network was trained with"
        )
    split = Split(0, tuple(shape))
    return Dataset(split, split, tuple(map(str, range(classes))), (), ())


def export_run(directory, path, names: str = "torchvision", *, trust: bool = False) -> Path:
    """Write a finished run's weights as a PyTorch state_dict in a .safetensors file; returns its
    path.

    names: as in `to_state_dict`. Raises ValueError if the run is missing, unfinished or lacks `trust`.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"the exported file must end in .safetensors, got {path}")
    # Before the weights are read, which may take a while.
    files.check_writable(path.parent)
    state = to_state_dict(load_weights(directory, consent=Consent(trust))[1], names)

    def write(temporary):
        safetensors.numpy.save_file(state, temporary, metadata={"format": "pt"})

    return files.write_with(path, write)


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "directory of the run", flag_values=values)
    flags.DEFINE_integer("classes", None, "number of classes", flag_values=values)
    flags.DEFINE_list("shape", None, "shape H,W,C of an image", flag_values=values)
    flags.DEFINE_enum(
        "names", "torchvision", ("torchvision", "kuangliu"), "set of names", flag_values=values
    )
    return values


def _shape(words: list[str] | None) -> tuple[int, ...] | None:
    if words is None:
        return None
    if not all(word.strip().isdigit() for word in words):
        raise Usage(f"--shape must be three numbers H,W,C such as 32,32,3, got {','.join(words)!r}")
    return tuple(map(int, words))


def _run_command(argv: list[str]) -> str:
    """Do what a command line requests; returns the line to print."""
    values = _flags()
    line = cli.read_flags(values, argv, **config.PARSING)
    # The flags are optional to absl, since only one of the two commands needs them.
    match line.words:
        case ["import", file]:
            if line.config is None:
                raise Usage("--config is missing; import needs --config and --workdir")
            if values.workdir is None:
                raise Usage("--workdir is missing; import needs --config and --workdir")
            shape = _shape(values.shape)
            directory = import_run(file, line.config, values.workdir, values.classes, shape)
            return f"wrote the run {directory}: use it in config.teachers, or with ldl_jax.load"
        case ["export", directory, file]:
            return f"wrote {export_run(directory, file, values.names, trust=line.trust)}"
    raise Usage(
        "the command must be import FILE or export RUN FILE.safetensors, got "
        f"{' '.join(line.words)!r}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 for success, 1 if the result cannot be written, 2
    if the input is wrong.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or cli.HELP & set(argv):
        return cli.status(lambda: say(USAGE))
    return cli.status(lambda: say(escape.line(_run_command(argv))))


if __name__ == "__main__":
    sys.exit(main())
