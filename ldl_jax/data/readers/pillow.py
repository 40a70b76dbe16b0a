"""Image files decoded by Pillow: what stands in them, as evaluation shows it to a network."""

from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from ldl_jax.errors import one_line

FORMATS = ("JPEG", "PNG")
MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode


def decode(path: Path, size: int = 0, *, shorter: int = 0, channels: int = 3) -> np.ndarray | str:
    """The image u8[H, W, C] of a JPEG or PNG file, or what is wrong with it, as text.

    size: pixels; 0 = as it is stored, else the middle square, resized (bicubic, antialiased), or
    with `shorter` the middle of the image whose shorter side is brought to so many pixels
    (bilinear, antialiased: torchvision's Resize and CenterCrop). No rotation by EXIF, no
    transparency.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip and not scale
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert(MODES[channels])
        if size:
            image = (
                _middle_of_resized(image, size, shorter) if shorter else _middle_square(image, size)
            )
        return np.asarray(image).reshape(image.height, image.width, channels)
    except FileNotFoundError:
        return "is a link to a file that is not there"
    except PIL.UnidentifiedImageError:
        return "holds no bytes" if not Path(path).stat().st_size else "is neither JPEG nor PNG"
    except Exception as error:  # whatever a decoder makes of damaged bytes
        return f"cannot be decoded ({one_line(error)})"


def _middle_square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    return image.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )


def _middle_of_resized(image: Image.Image, size: int, shorter: int) -> Image.Image:
    side = min(image.size)
    image = image.resize(
        [shorter * length // side for length in image.size], Image.Resampling.BILINEAR
    )
    left, top = (round((length - size) / 2) for length in image.size)
    return image.crop((left, top, left + size, top + size))
