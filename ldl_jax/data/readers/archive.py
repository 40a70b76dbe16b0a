"""Published data sets on disk: found as a folder or as an archive, checked, and read.

Archives are read without extracting them. Nothing is downloaded, and nothing that is read is
trusted: checksums are compared, members are read one by one into memory, and a pickle may build
lists, names, numbers and uint8 arrays, but nothing else.
"""

import hashlib
import math
import pickle
import posixpath
import tarfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldl_jax.errors import one_line
from ldl_jax.files.reading import check_file

LARGEST = 2**30  # bytes of one file; no published file that is read here is larger
ALGORITHMS = {32: "md5", 40: "sha1"}  # by the number of hexadecimal digits of a checksum


class Published(NamedTuple):
    """One published form of a data set."""

    archive: str  # its file name
    md5: str  # the archive's
    folder: str  # the folder that its members are in
    # files to read -> published MD5 or SHA-1, in hexadecimal; '' if none is known
    files: dict[str, str]


class Found(NamedTuple):
    """What was read of a published data set."""

    version: Published
    place: Path  # the folder or the archive
    files: dict[str, bytes]  # name -> content

    def name(self, file: str) -> str:
        """How a message names one of the files."""
        if self.place.is_dir():
            return str(self.place / file)
        return f"{self.place} ({self.version.folder}/{file})"


def read(root: str, versions: tuple[Published, ...], *, verify: bool) -> Found:
    """Read the files of the first version found at `root` into memory.

    root: the folder that holds the published folders or archives, or one of these itself. An
    earlier version is preferred to a later one, and a folder to the archive of the same version.
    With `verify`, the MD5 of the archive or the checksums of the extracted files are compared.
    Raises ValueError with one sentence that names the file if it is missing (and where it
    belongs), truncated, or has another checksum.
    """
    for version in versions:
        # A folder is read much faster than an archive, which has to be decompressed.
        folder = _find_folder(root, version)
        if folder:
            return Found(version, folder, _from_folder(folder, version, verify))
        archive = _find_archive(root, version)
        if archive:
            return Found(version, archive, _from_archive(archive, version, verify))
    choices = []
    for version in versions:
        choices.append(
            f"the archive {version.archive} (MD5 {version.md5}) or its folder {version.folder} "
            f"with {', '.join(version.files)}"
        )
    raise ValueError(
        f"config.data.root must hold the data set, got {root!r}; put there {', or '.join(choices)}"
    )


def _find_folder(root: str, version: Published) -> Path | None:
    if not root:
        return None
    path = Path(root)
    if (path / version.folder).is_dir():
        return path / version.folder
    if not path.is_dir():
        return None
    # A renamed folder is recognized by its files.
    complete = all((path / name).is_file() for name in version.files)
    return path if path.name == version.folder or complete else None


def _find_archive(root: str, version: Published) -> Path | None:
    if not root:
        return None
    path = Path(root)
    if path.is_file() and path.name == version.archive:
        return path
    inside = path / version.archive
    return inside if inside.is_file() else None


def _from_folder(folder: Path, version: Published, verify: bool) -> dict[str, bytes]:
    content = {}
    for name, published in version.files.items():
        path = folder / name
        try:
            # Look at the size first, so that a wrong file cannot fill the memory.
            check_file(path)
            size = path.stat().st_size
            if size > LARGEST:
                raise ValueError(
                    f"{path} has {size:,} bytes; no published file is larger than {LARGEST:,}"
                )
            content[name] = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path} cannot be read ({error.strerror}); it is a file of {version.archive} "
                f"(MD5 {version.md5})"
            ) from None
        if verify and published:
            algorithm = ALGORITHMS[len(published)]
            digest = hashlib.new(algorithm, content[name], usedforsecurity=False).hexdigest()
            _compare(path, algorithm, digest, published, f"of {version.archive}")
    return content


def _from_archive(path: Path, version: Published, verify: bool) -> dict[str, bytes]:
    if verify:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        _compare(path, "md5", digest.hexdigest(), version.md5, "of that name")
    wanted = {f"{version.folder}/{name}": name for name in version.files}
    content = {}
    try:
        # Read as a stream: looking for members by name would decompress the archive twice.
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = wanted.get(posixpath.normpath(member.name))
                # Links are not followed: they may lead out of the archive.
                if name is None or not member.isreg():
                    continue
                if member.size > LARGEST:
                    raise tarfile.TarError(f"{member.name} claims {member.size:,} bytes")
                content[name] = archive.extractfile(member).read()
                if len(content) == len(wanted):
                    break
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as a .tar.gz archive; it is truncated or damaged ({error})"
        ) from None
    missing = [member for member, name in wanted.items() if name not in content]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; it is truncated, or another archive of that name"
        )
    return content


def _compare(path: Path, algorithm: str, digest: str, published: str, which: str) -> None:
    if digest != published:
        raise ValueError(
            f"{path} has the {algorithm.upper()} {digest}, but the published file {which} has "
            f"{published}; it is truncated or changed (config.data.verify=False reads it anyway)"
        )


class _PickledArray:
    """Stands in for a numpy array while a pickle is read, so that no code of numpy's sees its
    bytes.
    """

    def __init__(self, *args):
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        # Pickles of Python 2 hold the bytes as a text.
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        plain = isinstance(dtype, _PickledType) and isinstance(raw, bytes)
        if not plain or math.prod(shape) != len(raw):
            raise pickle.UnpicklingError(
                f"an array of shape {shape} does not match its {len(raw)} bytes"
            )
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _PickledType:
    """Stands in for numpy's uint8 type; others are refused."""

    def __init__(self, name, *args):
        name = name.decode() if isinstance(name, bytes) else name
        if name not in ("u1", "|u1", "uint8"):
            raise pickle.UnpicklingError(f"its arrays must be uint8, got type {name!r}")

    def __setstate__(self, state):
        pass


def _encode(text, encoding="latin1"):
    """What Python 3 calls for bytes in a pickle of protocol 2."""
    return text.encode(encoding if encoding in ("latin1", "latin-1", "ascii") else "ascii")


# The only names that a pickle may use, each replaced by something harmless.
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(
                f"it uses {module}.{name}, which no data set needs and which is refused"
            )
        return _GLOBALS[module, name]


def unpickle(name: str, content: bytes) -> dict[str, object]:
    """Read a pickled dict of lists, names, numbers and uint8 arrays; names become text.

    Raises ValueError naming the file `name` if it is not such a pickle, and what else it uses.
    """
    try:
        unpickled = _Unpickler(BytesIO(content), encoding="bytes").load()
        if not isinstance(unpickled, dict):
            raise pickle.UnpicklingError(f"it must hold a dict, got {type(unpickled).__name__}")
        return {_text(key): _plain(value) for key, value in unpickled.items()}
    except Exception as error:  # damaged bytes may raise anything
        raise ValueError(
            f"{name} is not a pickle of lists, names and uint8 arrays ({one_line(error)})"
        ) from None


def _text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _plain(value):
    if isinstance(value, _PickledArray):
        return value.value
    return [_text(part) for part in value] if isinstance(value, list) else _text(value)
