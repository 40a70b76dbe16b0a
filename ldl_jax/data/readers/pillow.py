"""Decode image files with Pillow, as stored or as evaluation shows them to a network."""

from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from ldl_jax.errors import one_line

FORMATS = ("JPEG", "PNG")
MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode


def decode(path: Path, size: int = 0, *, shorter: int = 0, channels: int = 3) -> np.ndarray | str:
    """Decode a JPEG or PNG file to u8[H, W, C]; returns what is wrong, as text, if it fails.

    size: pixels; 0: as stored, else the middle square, resized (bicubic, antialiased), or with
    `shorter` the middle of the image after resizing its shorter side to this many pixels
    (bilinear, antialiased: torchvision's Resize and CenterCrop). EXIF rotation and transparency
    are ignored.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            # Pillow would clip 16-bit grey to 8 bits instead of scaling it.
            if image.mode.startswith("I"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert(MODES[channels])
        if size:
            image = _in_size(image, size, shorter)
        return np.asarray(image).reshape(image.height, image.width, channels)
    except FileNotFoundError:
        return "is a link to a missing file"
    except PIL.UnidentifiedImageError:
        return "is empty" if not Path(path).stat().st_size else "is neither JPEG nor PNG"
    except Exception as error:  # damaged bytes may raise anything
        return f"cannot be decoded ({one_line(error)})"


def resized(image: np.ndarray, size: int, *, shorter: int = 0) -> np.ndarray:
    """An image u8[h, w, C] as u8[size, size, C], cropped and resized as `decode` does it."""
    channels = image.shape[2]
    pixels = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return np.asarray(_in_size(pixels, size, shorter)).reshape(size, size, channels)


def _in_size(image: Image.Image, size: int, shorter: int) -> Image.Image:
    return _middle_of_resized(image, size, shorter) if shorter else _middle_square(image, size)


def _middle_square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left = (image.width - side) / 2
    top = (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _middle_of_resized(image: Image.Image, size: int, shorter: int) -> Image.Image:
    side = min(image.size)
    resized = (shorter * image.width // side, shorter * image.height // side)
    image = image.resize(resized, Image.Resampling.BILINEAR)
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))
