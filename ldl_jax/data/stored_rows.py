"""Files with the distributions that a network gave augmented views of the training images.

A file is an .npz: `classes` u8 or u16[N, V, k] and `probs` [N, V, k], the most probable classes of
each view and their probabilities (float32, float16, or uint8 in units of 1/255), and `header`, JSON
as u8[n]: what they were computed from. Letters in shapes: N training images in published order, V
views, k classes kept, K classes.
"""

import hashlib
import json
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import config, files
from ldl_jax.contract import Stored
from ldl_jax.data.base import Dataset
from ldl_jax.errors import one_line
from ldl_jax.files import reading

FORMAT = "ldl_jax.stored"
VERSION = 1
FIELD = "config.data.train_store"
ARRAYS = ("classes", "probs")
SCALES = {"float32": 1.0, "float16": 1.0, "uint8": 1 / 255}  # type of probs -> value of its 1
REMAINDERS = ("spread", "top")  # who gets what the k classes leave: the others, or the k
# entry of the header -> its type
ENTRIES = {
    "views": int,
    "seed": int,
    "remainder": str,
    "classes": list,
    "images": str,
    "mean": list,
    "augment": dict,
    "sha256": dict,
}


def images_digest(images: np.ndarray) -> str:
    """SHA-256 of images u8[N, H, W, C] and their shape."""
    sha256 = hashlib.sha256(str(images.shape).encode())
    # In parts, since a set may be mapped from a file.
    for begin in range(0, len(images), 4096):
        sha256.update(np.ascontiguousarray(images[begin : begin + 4096]))
    return sha256.hexdigest()


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and contents."""
    sha256 = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    sha256.update(np.ascontiguousarray(array))
    return sha256.hexdigest()


def augment_settings(c: ConfigDict) -> dict[str, Any]:
    """The augmentation of a config: its fields that matter, by name."""
    used = config.in_use(c)
    return {name: value for name, value in used.items() if name.startswith("augment.")}


def write(path, classes: np.ndarray, probs: np.ndarray, header: dict[str, Any]) -> None:
    """Write a file, under a temporary name first."""
    sums = {"classes": array_digest(classes), "probs": array_digest(probs)}
    text = json.dumps({"format": FORMAT, "version": VERSION, **header, "sha256": sums})
    as_bytes = np.frombuffer(text.encode(), np.uint8)
    files.write_npz(path, header=as_bytes, classes=classes, probs=probs)


def read(path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(classes, probs, header) of a file. Raises ValueError naming it if it is none or damaged."""
    path = files.home(path)
    if not files.is_npz(path):
        raise ValueError(f"{FIELD}: {path} must be an .npz that python -m ldl_jax.store wrote")
    missing = {"header", *ARRAYS} - set(files.npz_names(path))
    if missing:
        raise ValueError(
            f"{FIELD}: {path} must be an .npz that python -m ldl_jax.store wrote, but it has no "
            f"array {min(missing)!r}"
        )
    arrays = files.read_npz(path, names=["header", *ARRAYS])
    header = _header(path, arrays["header"])
    for name in ARRAYS:
        if array_digest(arrays[name]) != header["sha256"].get(name):
            raise ValueError(
                f"{FIELD}: {path} is damaged (the checksum of {name!r} is wrong); write it again"
            )
    _check_arrays(path, arrays, header)
    return arrays["classes"], arrays["probs"], header


def _header(path, stored: np.ndarray) -> dict[str, Any]:
    try:
        header = reading.parse(bytes(stored.astype(np.uint8)).decode())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{FIELD}: the header of {path} is no JSON ({one_line(error)})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{FIELD}: {path} must be an .npz that python -m ldl_jax.store wrote")
    if header.get("version") != VERSION:
        raise ValueError(
            f"{FIELD}: {path} must have version {VERSION} of the format, got "
            f"{reading.shown(header.get('version'))}"
        )
    for name, kind in ENTRIES.items():
        reading.item(path, name, header.get(name), kind)
    return header


def _check_arrays(path, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Raise ValueError if the arrays do not fit each other or the header."""
    classes, probs = arrays["classes"], arrays["probs"]
    number = len(header["classes"])
    fits = (
        classes.ndim == 3
        and classes.shape == probs.shape
        and classes.shape[1] == header["views"] >= 1
        and 1 <= classes.shape[2] <= number
        and classes.dtype in (np.uint8, np.uint16)
        and str(probs.dtype) in SCALES
        and header["remainder"] in REMAINDERS
    )
    # What a checksum cannot tell: the file may have been made by somebody.
    if not fits or (classes >= number).any() or not np.isfinite(probs).all() or (probs < 0).any():
        raise ValueError(f"{FIELD}: the arrays of {path} do not fit each other; write it again")
    if not (probs > 0).any(2).all():
        raise ValueError(
            f"{FIELD}: {path} has a view without a probability above 0; write it again"
        )


def attached(dataset: Dataset, c: ConfigDict, spec: dict) -> tuple[Dataset, Stored | None]:
    """The data set with the arrays of `config.data.train_store` as given tables, and what is known
    of them; unchanged and None without a file.

    Raises ValueError, naming the file, if it belongs to other images, classes or augmentation.
    """
    path = c.data.train_store
    if not path:
        return dataset, None
    split = dataset.train
    if split.images is None:
        raise ValueError(
            f"{FIELD} needs images in memory, whose augmentation can be repeated; set "
            "config.data.resident=True and a data set that is not streamed"
        )
    classes, probs, header = read(path)
    expected = {
        "images": images_digest(split.images),
        "classes": list(spec["classes"]),
        "augment": augment_settings(c),
        "mean": list(spec["mean"]),
    }
    # Lists and tuples are the same in JSON.
    expected = json.loads(json.dumps(expected))
    for name, value in expected.items():
        if header[name] != value:
            raise ValueError(f"{FIELD}: {path} {_difference(name, header[name], value)}")
    if len(classes) != split.num_examples:
        raise ValueError(
            f"{FIELD}: {path} must have a row for each of {split.num_examples} images, got "
            f"{len(classes)}"
        )
    given = {**dict(split.given), "stored_classes": classes, "stored_probs": probs}
    stored = Stored(
        header["views"],
        header["seed"],
        SCALES[str(probs.dtype)],
        header["remainder"] == "spread",
    )
    return dataset._replace(train=split._replace(given=given)), stored


def _difference(name: str, stored, value) -> str:
    """What is wrong with an entry of the header, as the end of a sentence."""
    if name == "images":
        return "was made from other training images"
    if name == "classes":
        return f"must have the data's {len(value)} classes, got {reading.shown(stored)}"
    if name == "mean":
        return f"must have the mean pixel {value}, which augmentation fills with, got {stored}"
    fields = []
    for field in sorted({*stored, *value}):
        if stored.get(field) != value.get(field):
            fields.append(f"config.{field} {stored.get(field)!r}, not {value.get(field)!r}")
    return f"was made with another augmentation ({'; '.join(fields)})"
