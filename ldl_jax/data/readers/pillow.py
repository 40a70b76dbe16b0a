"""Decode image files with Pillow, as stored or as evaluation shows them to a network."""

import io
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from ldl_jax.data.readers.base import FORMATS
from ldl_jax.errors import Unreadable, one_line
from ldl_jax.files.reading import check_file

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode
UNKNOWN = f"is neither JPEG nor PNG, nor {', '.join(FORMATS[2:-1])} or {FORMATS[-1]}"
ORIENTATION = 0x0112  # tag of EXIF
# Orientation of EXIF -> what brings the image upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
HIGHEST = 65535  # of 16 bits


def decode(
    path: Path, size: int = 0, *, shorter: int = 0, channels: int = 3, exif: bool = False
) -> np.ndarray | str:
    """Decode an image file to u8[H, W, C]; returns what is wrong, as text, if it fails.

    size: pixels; 0: as stored, else the middle square, resized (bicubic, antialiased), or with
    `shorter` the middle of the image after resizing its shorter side to this many pixels
    (bilinear, antialiased: torchvision's Resize and CenterCrop). exif: turn the image as its EXIF
    orientation says, which is ignored otherwise (but Pillow always turns TIFF). Of several images
    in a file, the first is used. Transparency is ignored.
    """
    try:
        check_file(path)
    except FileNotFoundError:
        return "is a link to a missing file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    try:
        image = _opened(path, channels, exif)
        if size:
            image = _in_size(image, size, shorter)
        return np.asarray(image).reshape(image.height, image.width, channels)
    except PIL.UnidentifiedImageError:
        return "is empty" if not Path(path).stat().st_size else UNKNOWN
    except Exception as error:  # damaged bytes may raise anything
        return f"cannot be decoded ({one_line(error)})"


def as_png(content: bytes, *, exif: bool) -> bytes:
    """The bytes of an image file, as a PNG unless they are JPEG or PNG to be shown as stored.

    The pixels are those of `decode`. Raises Unreadable.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.format in ("JPEG", "MPO", "PNG") and _orientation(image) == 1:
                return content
        image = _opened(io.BytesIO(content), 3, exif)
        buffer = io.BytesIO()
        # It is decoded again at once, so compressing it well is not worth the time.
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    except PIL.UnidentifiedImageError:
        raise Unreadable(UNKNOWN) from None
    except Exception as error:  # damaged bytes may raise anything
        raise Unreadable(f"cannot be decoded ({one_line(error)})") from None


def _opened(file, channels: int, exif: bool) -> Image.Image:
    """The first image of a file in 8 bits, grey or RGB. Raises whatever Pillow does."""
    with Image.open(file, formats=FORMATS) as image:
        image.load()
        orientation = _orientation(image) if exif else 1
        # Pillow would clip more than 8 bits to 8 instead of scaling them.
        if image.mode.startswith("I"):
            image = _eight_bits(np.asarray(image))
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers, whose range is not known")
        image = image.convert(MODES[channels])
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _eight_bits(pixels: np.ndarray) -> Image.Image:
    """Grey of 16 bits as grey of 8."""
    if pixels.min() < 0 or pixels.max() > HIGHEST:
        raise ValueError(f"its pixels must be 16-bit numbers, got {pixels.min()} to {pixels.max()}")
    return Image.fromarray((pixels >> 8).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1, upright, if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata may raise anything, and the pixels are good
        return 1


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
