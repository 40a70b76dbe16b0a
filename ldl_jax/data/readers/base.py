"""What the readers share: where TensorFlow is imported, what a source of encoded images is, and
the wording of its faults.
"""

import contextlib
import os
import re
from typing import Any, Protocol

import numpy as np
from PIL import features

# Endings of image files, in lower or upper case, and Pillow's names of their formats.
_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".dib": "DIB",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".webp": "WEBP",
    ".jp2": "JPEG2000",
    ".avif": "AVIF",
}
# Formats that not every Pillow can read, and the feature that they need.
_FEATURES = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}


def _is_readable(name: str) -> bool:
    """Whether this Pillow reads a format."""
    feature = _FEATURES.get(name)
    known = feature in features.modules or feature in features.codecs
    return feature is None or (known and bool(features.check(feature)))


IMAGE_ENDINGS = tuple(ending for ending, name in _FORMATS.items() if _is_readable(name))
FORMATS = tuple(dict.fromkeys(_FORMATS[ending] for ending in IMAGE_ENDINGS))
# The first bytes of a file.
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std of the pixels in [0, 1]


class Source(Protocol):
    """Encoded images and labels of one split, each reachable by its index."""

    num_examples: int  # N
    num_classes: int  # K; labels are 0 to K - 1
    channels: int  # C, 1 or 3

    def name(self, index: int) -> str:
        """What an example is called in messages."""

    def fields(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """What `read` has to know of examples i32[b], arrays [b]."""

    def read(self, dataset: Any) -> Any:
        """Map a tf.data.Dataset of (sides, places, serial, *fields) to one of (sides, places,
        serial, bytes, label).

        An example that cannot be read has no bytes, or is an error of that element.
        """

    def content(self, index: int) -> tuple[bytes, int]:
        """The bytes and the label of one example, read at once. Raises Unreadable."""


def tensorflow(what: str = "config.data.resident=False"):
    """Import TensorFlow and keep it off the accelerators.

    Raises ValueError if it is not installed; `what` names the setting that needs it.
    """
    # Otherwise TensorFlow prints damaged records byte for byte.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ValueError(
            f"{what} needs TensorFlow, which cannot be imported ({error}); install it with "
            "pip install -e '.[stream]'"
        ) from None
    # This fails if the calling program has already initialized TensorFlow.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf


def crc32c():
    """The function bytes -> int that computes CRC-32C, with the processor's own instructions.

    Raises ValueError if the library is not installed.
    """
    try:
        import google_crc32c
    except ImportError as error:
        raise ValueError(
            "the checksums of TFRecord files need google-crc32c, which cannot be imported "
            f"({error}); install it with pip install -e '.[stream]'"
        ) from None
    return google_crc32c.value


# Beginnings of the lines that TensorFlow adds about its graph; it also adds indented lines.
_OF_GRAPHS = "Graph execution error", "Detected at node", "<stack traces unavailable>", "Node: "
LONGEST = 160  # characters of a reason
_NODES = re.compile(r"\{\{function_node [^}]*\}\}|\[Op:[^\]]*\]( name:)?")


def reason_of(error: Exception) -> str:
    """An error's text without line breaks and without what TensorFlow adds about its graph."""
    text = str(getattr(error, "message", None) or error)
    lines = []
    for line in text.splitlines():
        if not line[:1].isspace() and not line.startswith(_OF_GRAPHS):
            lines.append(line)
    text = " ".join(_NODES.sub("", " ".join(lines)).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
