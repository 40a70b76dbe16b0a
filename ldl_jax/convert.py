"""The command that exchanges weights with PyTorch: a state_dict becomes a finished run, or the
other way round.

python -m ldl_jax.convert import FILE --config=CONFIG [--config.FIELD=VALUE ...] --workdir=RUN
python -m ldl_jax.convert export RUN FILE.safetensors

A parameter's PyTorch name is its flax path with dots: every underscore of a module's name is one,
as in `layer1_0/downsample_0/kernel`, which is layer1.0.downsample.0.weight. Convolutions are OIHW
there and HWIO here, linear layers transposed. BatchNorm's running variance is carried over as it
is, so that a network predicts the same on either side; trained further, PyTorch keeps the unbiased
variance of a batch and flax the biased one, n / (n - 1) apart.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import flags
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax import cli, config, files, workdir
from ldl_jax.contract import PyTree
from ldl_jax.data.base import Dataset, Split
from ldl_jax.data.loading import make_dataset, statistics
from ldl_jax.errors import UnreadableFile, Usage, one_line
from ldl_jax.evaluation.load import load_weights
from ldl_jax.models.spec import make_network, network_spec

USAGE = """usage: python -m ldl_jax.convert import FILE --config=CONFIG [options] --workdir=RUN
       python -m ldl_jax.convert export RUN FILE.safetensors [--names=torchvision|kuangliu]

import: a state_dict of PyTorch, as .safetensors or .npz, becomes a finished run: a teacher, or ldl_jax.load's.
  --config=FILE          a config whose model and data are the network's; its statistics must be what it was trained on
  --config.FIELD=VALUE   overrides a field, such as config.model.mean and config.model.std
  --workdir=DIR          the run's directory, which must hold none yet
  --classes=K            number of classes, and
  --shape=H,W,C          shape of an image, where the data set is not on this disk; then model.mean and std are needed
export: a finished run becomes a state_dict with PyTorch's names and layouts, for load_state_dict(strict=True).
  --names=kuangliu       shortcut and linear instead of torchvision's and RepDistiller's downsample and fc
"""
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
# kuangliu's pytorch-cifar, PS-KD, RepDistiller's resnetv2
OTHER_NAMES = {"shortcut": "downsample", "linear": "fc"}
WRAPPERS = ("state_dict", "model", "module")  # of a checkpoint, or of DataParallel
SHOWN = 3  # differences that a sentence tells


def torch_name(path: tuple[str, ...]) -> str:
    """The PyTorch name of a parameter or statistic, from its flax path without the collection."""
    *modules, leaf = path
    return ".".join([*(module.replace("_", ".") for module in modules), LEAVES.get(leaf, leaf)])


def _axes(ndim: int) -> tuple[int, ...]:
    """Which of our axes are PyTorch's: HWIO to OIHW, and a matrix transposed."""
    return (3, 2, 0, 1) if ndim == 4 else tuple(reversed(range(ndim)))


def to_state_dict(variables: PyTree, names: str = "torchvision") -> dict[str, np.ndarray]:
    """A network's variables under PyTorch's names, in PyTorch's layouts; BatchNorm's counts of
    batches are left out.

    names: 'torchvision' (downsample, fc), or 'kuangliu' (shortcut, linear).
    """
    others = {ours: theirs for theirs, ours in OTHER_NAMES.items()} if names == "kuangliu" else {}
    flat = traverse_util.flatten_dict(variables)
    return {
        _renamed(torch_name(path[1:]), others): np.ascontiguousarray(
            np.transpose(leaf, _axes(leaf.ndim))
        )
        for path, leaf in flat.items()
    }


def _renamed(name: str, others: dict[str, str]) -> str:
    return ".".join(others.get(part, part) for part in name.split("."))


def plain(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state_dict under one set of names: no wrappers, no counts of batches, downsample and fc."""
    for wrapper in WRAPPERS:
        for mark in (f"{wrapper}/", f"{wrapper}."):
            if any(name.startswith(mark) for name in state):
                state = {
                    name.removeprefix(mark): value
                    for name, value in state.items()
                    if name.startswith(mark)
                }
    kept = {
        name: value for name, value in state.items() if not name.endswith("num_batches_tracked")
    }
    return {_renamed(name, OTHER_NAMES): value for name, value in kept.items()}


def from_state_dict(state: dict[str, np.ndarray], abstract: PyTree, name: str) -> PyTree:
    """The variables of the shapes and types `abstract`, from a state_dict called `name`.

    Raises ValueError with the first names that differ: missing, of another shape, or unknown to the
    network.
    """
    state = plain(state)
    leaves = {
        torch_name(path[1:]): (path, leaf)
        for path, leaf in traverse_util.flatten_dict(abstract).items()
    }
    faults = [_fault(key, state.get(key), _torch_shape(leaf)) for key, (_, leaf) in leaves.items()]
    faults += [
        f"{key} {list(array.shape)} is not in it"
        for key, array in state.items()
        if key not in leaves
    ]
    faults = [fault for fault in faults if fault]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(
            f"{name} does not fit the network of the config: {'; '.join(faults[:SHOWN])}{more}"
        )
    flat = {
        path: state[key].transpose(np.argsort(_axes(leaf.ndim))).astype(leaf.dtype, order="C")
        for key, (path, leaf) in leaves.items()
    }
    return traverse_util.unflatten_dict(flat)


def _torch_shape(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    return tuple(leaf.shape[axis] for axis in _axes(leaf.ndim))


def _fault(name: str, array: np.ndarray | None, shape: tuple[int, ...]) -> str:
    """What is wrong with an array of a state_dict; '' where nothing is."""
    if array is None:
        return f"{name} {list(shape)} is missing"
    if array.shape != shape:
        return f"{name} is {list(array.shape)}, needed is {list(shape)}"
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return f"{name} is {array.dtype}, needed are floating-point numbers"
    return ""


def read(path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors or .npz file by name. Raises ValueError where it cannot be read
    as one.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(
            f"{path} is neither .safetensors nor .npz; in PyTorch, write one with "
            f"safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        )
    if path.suffix == ".npz":
        return files.read_npz(path, "a state_dict")
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, *files.UNREADABLE) as error:
        raise UnreadableFile(path, "a state_dict", one_line(error)) from None


def import_run(path, c: ConfigDict, directory, classes: int | None = None, shape=None) -> Path:
    """Write the run directory of the network of `c` with the weights of a state_dict; returns the
    directory.

    classes, shape [H, W, C]: of a network whose data set is not on this disk. Raises ValueError
    where the file or the config does not fit, or the directory holds a run; then nothing is
    written.
    """
    config.check(c)
    directory = Path(directory)
    for name in (workdir.CONFIG, workdir.WEIGHTS):
        if (directory / name).exists():
            raise ValueError(
                f"--workdir {directory} holds a run already ({name}); allowed is a directory without one"
            )
    dataset = _dataset(c, classes, shape)
    spec = network_spec(c, dataset, *statistics(c.model, dataset))
    init, _ = make_network(spec)
    abstract = jax.eval_shape(lambda: init(jax.random.key(0)))
    variables = from_state_dict(read(path), abstract, str(path))
    origin = {"file": str(path), "sha256": files.sha256(path)}
    workdir.claim(directory, c, spec | {"imported": origin}, {}, total=0)
    workdir.save_weights(directory / workdir.WEIGHTS, variables, step=0)
    return directory


def _dataset(c: ConfigDict, classes: int | None, shape) -> Dataset:
    """The data set of a config, or one that has no examples but classes and a shape."""
    if classes is None and shape is None:
        return make_dataset(c.data)
    if classes is None or shape is None:
        raise ValueError("--classes and --shape come together: they stand for the data set")
    if classes < 2 or len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"--classes is {classes} and --shape {list(shape)}; allowed are K from 2, and H,W,C from 1"
        )
    if not (c.model.mean and c.model.std):
        raise ValueError("config.model.mean and config.model.std are needed with --classes and --shape: what the "
                         "network was trained on, one number for each channel")  # fmt: skip
    split = Split(0, tuple(shape))
    return Dataset(split, split, tuple(map(str, range(classes))), (), ())


def export_run(directory, path, names: str = "torchvision") -> Path:
    """Write a finished run's weights as a PyTorch state_dict in a .safetensors file; returns its
    path.

    names: as in `to_state_dict`. Raises ValueError where the run is missing or unfinished.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} does not end in .safetensors, the only kind that is written")
    state = to_state_dict(load_weights(directory)[1], names)
    write = safetensors.numpy.save_file
    return files.write_with(
        path, lambda temporary: write(state, temporary, metadata={"format": "pt"})
    )


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run's directory", flag_values=values)
    flags.DEFINE_integer("classes", None, "number of classes", flag_values=values)
    flags.DEFINE_list("shape", None, "H,W,C of an image", flag_values=values)
    flags.DEFINE_enum(
        "names", "torchvision", ("torchvision", "kuangliu"), "whose names", flag_values=values
    )
    return values


def _shape(words: list[str] | None) -> tuple[int, ...] | None:
    if words is not None and not all(word.strip().isdigit() for word in words):
        raise Usage(
            f"--shape is {','.join(words)!r}; allowed are three numbers H,W,C, as in 32,32,3"
        )
    return None if words is None else tuple(map(int, words))


def _command(argv: list[str]) -> str:
    """Do what a command line asks for; returns what to tell of it."""
    values = _flags()
    line = cli.read_flags(values, argv, read=config.read, unknown_field=config.unknown_field)
    match line.words:
        case ["import", file]:
            if line.config is None or values.workdir is None:
                raise Usage(
                    f"--{'config' if line.config is None else 'workdir'} is missing; import needs both"
                )
            directory = import_run(
                file, line.config, values.workdir, values.classes, _shape(values.shape)
            )
            return f"wrote the run {directory}: name it in config.teachers, or read it with ldl_jax.load"
        case ["export", directory, file]:
            return f"wrote {export_run(directory, file, values.names)}"
    allowed = "allowed are import FILE, and export RUN FILE.safetensors"
    raise Usage(f"{' '.join(line.words)!r} is not understood; {allowed}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 the result cannot be written, 2 the input
    is not right.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or cli.HELP & set(argv):
        return cli.status(lambda: print(USAGE))
    return cli.status(lambda: print(_command(argv)))


if __name__ == "__main__":
    sys.exit(main())
