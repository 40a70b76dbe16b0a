"""Published data sets on disk: found as a folder or as the archive it came in, read without
extracting, and checked.

Nothing is downloaded, and nothing that is read is trusted: checksums are compared, members are read
one by one into memory, and a pickle may build lists, names, numbers and uint8 arrays, nothing else.
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

LARGEST = 2**30  # bytes of one file; no published one that is read here has more
ALGORITHMS = {32: "md5", 40: "sha1"}  # by the hexadecimal digits of a checksum


class Published(NamedTuple):
    """One published form of a data set."""

    archive: str  # its file name
    md5: str  # the archive's
    folder: str  # that its members lie in
    # those that are read -> published MD5 or SHA-1, in hexadecimal; '' where none is known
    files: dict[str, str]


class Found(NamedTuple):
    """What was read of a published data set."""

    version: Published
    place: Path  # the folder, or the archive
    files: dict[str, bytes]  # name -> content

    def name(self, file: str) -> str:
        """How a message names one of the files."""
        return (
            str(self.place / file)
            if self.place.is_dir()
            else f"{self.place} ({self.version.folder}/{file})"
        )


def read(root: str, versions: tuple[Published, ...], *, verify: bool) -> Found:
    """The files of the first version that lies at `root`, in memory.

    root: the folder that holds the published folders or archives, or one of these itself. An
    earlier version goes before a later one, and of one version the folder before the archive. With
    `verify` the archive's MD5, or those of the extracted files, are compared. Raises ValueError in
    one sentence that names the file: what is missing and where it belongs, what is truncated, what
    has another checksum.
    """
    for version in versions:
        folder, archive = _folder(root, version), _archive(root, version)
        if folder:
            return Found(version, folder, _from_folder(folder, version, verify))
        if archive:
            return Found(version, archive, _from_archive(archive, version, verify))
    wanted = "; or ".join(
        f"the archive {version.archive} (MD5 {version.md5}), or the folder {version.folder} out of it with "
        f"{', '.join(version.files)}"
        for version in versions
    )
    raise ValueError(
        f"config.data.root is {root!r}, where this data set is not; put there {wanted}"
    )


def _folder(root: str, version: Published) -> Path | None:
    if not root:
        return None
    path = Path(root)
    if (path / version.folder).is_dir():
        return path / version.folder
    itself = path.is_dir() and (
        path.name == version.folder or all((path / name).is_file() for name in version.files)
    )
    return path if itself else None


def _archive(root: str, version: Published) -> Path | None:
    if not root:
        return None
    path = Path(root)
    itself = path.is_file() and path.name == version.archive
    return (
        path if itself else path / version.archive if (path / version.archive).is_file() else None
    )


def _from_folder(folder: Path, version: Published, verify: bool) -> dict[str, bytes]:
    content = {}
    for name, published in version.files.items():
        path = folder / name
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError(
                    f"{path}: has {path.stat().st_size:,} bytes; no published file has more than {LARGEST:,}"
                )
            content[name] = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path}: cannot be read ({error.strerror}); it is a file of {version.archive} (MD5 {version.md5})"
            ) from None
        if verify and published:
            algorithm = ALGORITHMS[len(published)]
            digest = hashlib.new(algorithm, content[name], usedforsecurity=False).hexdigest()
            _compare(path, algorithm, digest, published, f"of {version.archive}")
    return content


def _from_archive(path: Path, version: Published, verify: bool) -> dict[str, bytes]:
    if verify:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(
                file, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
        _compare(path, "md5", digest, version.md5, "of that name")
    wanted, content = {f"{version.folder}/{name}": name for name in version.files}, {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = wanted.get(posixpath.normpath(member.name))
                if name is None or not member.isreg():
                    continue
                if member.size > LARGEST:
                    raise tarfile.TarError(f"{member.name} claims {member.size:,} bytes")
                content[name] = archive.extractfile(member).read()
                if len(content) == len(wanted):
                    break
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: cannot be read as a .tar.gz archive; it is truncated or damaged ({error})"
        ) from None
    missing = [member for member, name in wanted.items() if name not in content]
    if missing:
        raise ValueError(
            f"{path}: holds no {', '.join(missing)}; it is truncated, or another archive of that name"
        )
    return content


def _compare(path: Path, algorithm: str, digest: str, published: str, which: str) -> None:
    if digest != published:
        raise ValueError(
            f"{path}: has the {algorithm.upper()} {digest}, but the published file {which} has {published}; it is "
            "truncated or changed (config.data.verify=False reads it all the same)"
        )


class _Array:
    """Stands in for a numpy array while a pickle is read, so that none of numpy's own code meets
    the bytes.
    """

    def __init__(self, *args):
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not (
            isinstance(dtype, _Dtype) and isinstance(raw, bytes) and math.prod(shape) == len(raw)
        ):
            raise pickle.UnpicklingError(
                f"an array of shape {shape} does not have its {len(raw)} bytes"
            )
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands in for numpy's type of a byte; others are refused."""

    def __init__(self, name, *args):
        name = name.decode() if isinstance(name, bytes) else name
        if name not in ("u1", "|u1", "uint8"):
            raise pickle.UnpicklingError(f"it holds an array of type {name!r}; allowed is uint8")

    def __setstate__(self, state):
        pass


def _encode(text, encoding="latin1"):
    """How Python 3 writes bytes in the protocol of Python 2."""
    return text.encode(encoding if encoding in ("latin1", "latin-1", "ascii") else "ascii")


_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no data set needs and which is refused"
            )
        return _GLOBALS[module, name]


def unpickle(name: str, content: bytes) -> dict[str, object]:
    """A pickled dict of lists, names, numbers and uint8 arrays; names that are bytes become text.

    Raises ValueError naming the file `name` where it is no such pickle, and what it asked for
    beyond that.
    """
    try:
        unpickled = _Unpickler(BytesIO(content), encoding="bytes").load()
        if not isinstance(unpickled, dict):
            raise pickle.UnpicklingError(
                f"it holds a {type(unpickled).__name__}; allowed is a dict"
            )
        return {_text(key): _plain(value) for key, value in unpickled.items()}
    except Exception as error:  # whatever bytes that are no such pickle lead to
        raise ValueError(
            f"{name}: is no pickle of lists, names and uint8 arrays ({one_line(error)})"
        ) from None


def _text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _plain(value):
    if isinstance(value, _Array):
        return value.value
    return [_text(part) for part in value] if isinstance(value, list) else _text(value)
