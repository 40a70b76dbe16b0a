"""Files of others: whatever is in them, a reader ends in one sentence that names the file.

Each reader gets files that were made to break it: JSON of another shape, arrays that claim more than
they hold, FIFOs and devices. The long tests repeat the fast ones on more inputs.
"""

import contextlib
import copy
import io
import json
import os
import random
import re
import signal
import socket
import struct
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from ldl_jax import calibrate, cli, config, convert, files, predict, workdir
from ldl_jax.calibrate import base as calibrators
from ldl_jax.checkpoint import checksums
from ldl_jax.data import arrays, imagefolder, own_labels
from ldl_jax.data.base import Request
from ldl_jax.data.readers import array_cache, pillow, records, splits
from ldl_jax.errors import Unreadable, Usage
from ldl_jax.evaluation import csv_table, human, load, predictions, runs
from ldl_jax.files import reading
from ldl_jax.models import spec as specs

LONGEST = 1500  # characters of a sentence
SPEC = {
    "num_classes": 3,
    "classes": ["cat", "dog", "ü"],
    "shape": [8, 8, 1],
    "num_examples": 90,
    "mean": [0.3],
    "std": [0.4],
    "model": {
        "name": "cifar_resnet",
        "dtype": "float32",
        "norm_group": 0,
        "options": {"depth": 8, "width": 1, "stem": 0},
    },
}
# What no config and no network has, and what one might have, at another place.
VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 8, 10, 1202, 10**6, 10**9, 2**31, 2**63, 10**400, -(10**400), 0.0, -0.5, 1e-300,
    1e300, "", "x", "a\0b", "../..", "é" * 300, "os.path", "..", "base", "float64", "bfloat16", "resnet", "wide_resnet",
    "hard", "root", "name", "\udcff", "\ud800", [], [[]], [None], [1, 2, 3], ["a"], [1e308] * 3, [{}], {}, {"": 0},
    {"name": "x"}, {"a": {"b": {"c": []}}}, {"options": {"depth": 8}}, list(range(1000)), [10**9] * 3,
]  # fmt: skip
# The same as texts, where JSON has a word for what Python cannot write.
TEXTS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1" + "0" * 5000,
    "[" * 5000,
    "{",
    "",
    "'",
    "nul",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with weights of zeros: nothing is trained or compiled."""
    folder = tmp_path_factory.mktemp("run")
    init, _ = specs.make_network(SPEC)
    abstract = jax.eval_shape(init, jax.random.key(0))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract)
    workdir.save_weights(folder / workdir.WEIGHTS, variables, step=7)
    files.write_json(folder / workdir.NETWORK, SPEC)
    files.write(folder / workdir.CONFIG, config.to_json(config.default()))
    start = {"command": ["ldl_jax/main.py", "--config=x"], "inputs": {"data.root = x": "ab"}}
    files.write_json(folder / workdir.VERSIONS, {"starts": [start]})
    files.write_json(folder / workdir.SUMMARY, {"weights": "raw"})
    calibrators.save(folder / workdir.CALIBRATION, "temperature", {}, {"temperature": 1.5})
    return folder


def ends_well(reader, path, *, names=()):
    """Whether a reader took a file; it must have refused it in one sentence that names it, else."""
    fault = None
    try:
        reader(path)
    except (ValueError, Usage, OSError, Unreadable) as error:
        fault = error
    if fault is None:
        return True
    text = str(fault)
    # Of the kinds that the commands print as they are; not, say, UnicodeEncodeError.
    assert type(fault).__module__.startswith(("builtins", "ldl_jax")), repr(fault)
    assert not isinstance(fault, UnicodeError), repr(fault)
    assert "\n" not in text, text
    assert len(text) < LONGEST, text
    assert any(str(name) in text for name in (path, Path(path).name, *names)), text
    return False


def places(value, path=()):
    """The paths of all values in a JSON value."""
    yield path
    entries = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, item in entries:
        yield from places(item, (*path, key))


def changed(draw, value):
    """A JSON value with another value at one place, or without it, or with one more."""
    value = copy.deepcopy(value)
    path = draw.choice(list(places(value)))
    if not path:
        return copy.deepcopy(draw.choice(VALUES))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    kind = draw.randrange(6)
    old = parent[path[-1]]
    if kind == 0:
        del parent[path[-1]]
    elif kind == 1:
        parent[path[-1]] = {"a": old}
    elif kind == 2:
        parent[path[-1]] = [old] * draw.choice([1, 2, 40])
    elif isinstance(parent, dict) and kind == 3:
        parent[draw.choice(["", "extra", "name", "options", "a.b", "é"])] = old
    else:
        parent[path[-1]] = copy.deepcopy(draw.choice(VALUES))
    return value


def mutated(draw, value) -> bytes:
    """The bytes of a JSON file with one to three faults."""
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        value = changed(draw, value)
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    kind = draw.randrange(12)
    if kind == 0:
        text = re.sub(r"\d+(\.\d+)?", lambda _: draw.choice(TEXTS), text, count=1)
    elif kind == 1:
        key = draw.choice(re.findall(r'"\w+":', text) or ['"a":'])
        text = text.replace(key, f"{key} 1, {key}", 1)
    elif kind == 2:
        depth = draw.choice([40, 500, 100_000])
        text = text.replace(":", ":" + "[" * depth + "]" * depth + ', "z":', 1)
    content = text.encode(errors="surrogatepass")
    if kind == 3:
        content = content[: draw.randrange(len(content) + 1)]
    elif kind == 4 and content:
        place = draw.randrange(len(content))
        content = content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    elif kind == 5:
        content = draw.choice([b"\xff\xfe", b"\xef\xbb\xbf", b"\0"]) + content
    return content


def fuzz(path, value, reader, count, seed=0):
    """Numbers of `count` mutated files that a reader took and refused; all others are failures."""
    draw = random.Random(seed)
    taken = 0
    failures = []
    for _ in range(count):
        content = mutated(draw, value)
        path.write_bytes(content)
        try:
            taken += ends_well(reader, path, names=(path.parent,))
        except Exception as error:
            failures.append((content[:500], f"{type(error).__name__}: {error}"[:500]))
    assert not failures, (len(failures), failures[:3])
    return taken, count - taken


@contextlib.contextmanager
def copied(run, name):
    """The path of a file of the run, which is as it was afterwards."""
    path = run / name
    content = path.read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(content)


def read_network(path):
    """All that reads a spec: a model, a teacher, and the check of a run that goes on."""
    load.load(path.parent)
    with contextlib.suppress(ValueError):
        workdir.check_data(path.parent, SPEC, {})


def read_config(path):
    """All that reads the config of a run."""
    stored = workdir.read_config(path.parent)
    load.shorter_side(path.parent)
    load.turns_by_exif(path.parent)
    runs.settings(stored)
    config.differences(stored, config.default())
    c = config.read(path)
    # What a check says names a field, not the file: the flags may have set it.
    with contextlib.suppress(ValueError):
        config.check(c)


def read_calibration(path):
    """A calibrator whose checksum fits."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        content = json.loads(path.read_text())
        content.pop("sha256", None)
        content["sha256"] = files.digest(content)
        path.write_text(json.dumps(content))
    calibrators.load(path)
    load.check_calibrator(path, calibrate.load(path), 3)


READERS = {
    workdir.NETWORK: (read_network, lambda: SPEC),
    workdir.CONFIG: (read_config, lambda: json.loads(config.to_json(config.default()))),
}


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_of_a_run_end_in_one_sentence(run, name):
    reader, value = READERS[name]
    with copied(run, name) as path:
        taken, refused = fuzz(path, value(), reader, 100)
    assert taken > 2
    assert refused > 50


@pytest.mark.nightly
@pytest.mark.parametrize("name", READERS)
def test_many_mutated_files_of_a_run_end_in_one_sentence(run, name):
    reader, value = READERS[name]
    with copied(run, name) as path:
        assert sum(fuzz(path, value(), reader, 1000, seed=1)) == 1000


OTHERS = {
    workdir.VERSIONS: lambda path: workdir.read_starts(path.parent),
    workdir.SUMMARY: workdir.read_json,
    workdir.CALIBRATION: read_calibration,
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_json_files_of_a_run_end_in_one_sentence_too(run, name):
    with copied(run, name) as path:
        _, refused = fuzz(path, json.loads(path.read_text()), OTHERS[name], 60)
    assert refused > 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1, "a": 2}', "it has the key 'a' 2 times"),
        (b"[" * 33 + b"]" * 33, "more than 32 levels deep"),
        (b"[" * 10**6, "more than 32 levels deep"),
        (b'{"a": NaN}', "its numbers must be finite, got NaN"),
        (b"1e999", "its numbers must be finite, got 1e999"),
        (b"1" * 5000, "Exceeds the limit"),
        (b'"\xff"', "it is not UTF-8: byte 1 is 0xff"),
        (b'"\\ud800"', "is not valid Unicode"),
        (b"", "it is not valid JSON"),
        (b"{'a': 1}", "it is not valid JSON"),
    ],
)
def test_json_is_read_strictly(tmp_path, content, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x.json: cannot be read as JSON \(.*{reason}.*\)$"):
        reading.read_json(path)


def test_json_may_hold_what_it_must():
    assert reading.parse('[1, 2.5, null, "ü", "\\udcff", {"a": [true]}]') == [
        1, 2.5, None, "ü", "\udcff", {"a": [True]},
    ]  # fmt: skip
    assert np.isnan(reading.parse("NaN", finite=False))
    deep = "[" * 32 + "]" * 32
    assert reading.parse(deep)


def test_a_file_of_two_gigabytes_is_not_read(tmp_path, run):
    """The files are sparse, and take no room on the disk."""
    path = tmp_path / "x.json"
    with open(path, "wb") as file:
        file.truncate(2**31 + 1)
    began = time.perf_counter()
    tracemalloc.start()
    readers = (
        reading.read_json,
        workdir.read_log,
        calibrators.load,
        config.read,
        specs.read_spec,
        lambda path: cli.class_names(str(path)),
    )
    for reader in readers:
        assert not ends_well(reader, path)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_classes": 10**9}, "num_classes must be the number of classes"),
        ({"shape": [10**6, 10**6, 1]}, "shape must be three lengths of at most"),
        ({"shape": [8, 8, -1]}, "shape must be three lengths"),
        ({"model": {"options": {"depth": 8, "width": 8192}}}, "does not fit model.npz"),
        ({"model": {"options": {"depth": 1202, "width": 1}}}, "does not fit model.npz"),
        ({"model": {"options": {"depth": 10**9, "width": 1}}}, "depth must be 6n"),
        ({"model": {"options": {"depth": True}}}, "depth must be an integer"),
        ({"model": {"options": {"deep": 8}}}, "has no option 'deep'"),
        ({"model": {"name": "base"}}, "model.name must be one of cifar_resnet"),
        ({"model": {"dtype": "int8"}}, "model.dtype must be one of float32"),
        ({"std": [0.0]}, "std must have a positive number for each channel"),
        ({"classes": ["a", "b", 3]}, r"classes\[2\] must be a string, got 3"),
    ],
)
def test_a_network_of_absurd_size_is_refused_before_it_is_made(run, change, says):
    model = {**SPEC["model"], **change.get("model", {})}
    with copied(run, workdir.NETWORK) as path:
        files.write_json(path, {**SPEC, **change, "model": model})
        began = time.perf_counter()
        tracemalloc.start()
        with pytest.raises(ValueError, match=says) as told:
            load.load(run)
        assert tracemalloc.get_traced_memory()[1] < 10**8
        tracemalloc.stop()
        assert time.perf_counter() - began < 20
        assert str(run) in str(told.value)


def test_weights_of_another_network_are_named(run):
    with copied(run, workdir.NETWORK) as path:
        deeper = {**SPEC["model"], "options": {"depth": 14, "width": 1}}
        files.write_json(path, {**SPEC, "model": deeper})
        with pytest.raises(ValueError, match=r"network.json does not fit model.npz"):
            load.load(run)
    with copied(run, workdir.WEIGHTS) as path:
        whole = dict(np.load(path))
        for name, array in (("params/more/kernel", np.ones(2)), ("params/fc/bias", np.ones(4))):
            np.savez(path, **{**whole, name: array})
            with pytest.raises(ValueError, match=rf"does not fit model.npz \(.*{name[7:9]}"):
                load.load(run)
        for name, array in (
            ("params/fc", np.ones(2)), ("notes/step", np.ones(2)), ("params/fc/bias", np.array(["a", "b", "c"])),
        ):  # fmt: skip
            np.savez(path, **{**whole, name: array})
            assert not ends_well(lambda path: load.load(path.parent), path)
    assert load.load(run).logits(np.zeros((8, 8, 1), np.uint8)).shape == (3,)


@pytest.mark.parametrize(
    "params",
    [{}, {"temperature": "1"}, {"temperature": None}, {"temperature": [1]}, {"temperature": {"dtype": "O"}},
     {"temperature": {"dtype": "V1000000000", "shape": [1], "values": [0]}}, {"temperature": {"dtype": "f8"}},
     {"temperature": 0.0}, {"temperature": 1.0, "interval_low": "x", "interval_high": []}],
)  # fmt: skip
def test_a_calibrator_that_cannot_be_applied_is_refused_with_its_run(run, params):
    with copied(run, workdir.CALIBRATION) as path:
        content = {
            "format": calibrators.FORMAT,
            "version": calibrators.VERSION,
            "name": "temperature",
            "options": {},
        }
        content["params"] = params
        files.write_json(path, {**content, "sha256": files.digest(content)})
        assert not ends_well(lambda path: load.load(path.parent), path)


@pytest.mark.parametrize(
    "line",
    ["[" * 10**5, '{"step": "1"}', '{"step": true}', '{"step": 1, "loss": "x"}', '{"step": 1, "loss": 1e999}',
     '{"step": 1, "loss": [1]}', '{"step": 1, "loss": {}}', '{"step": 1' + "0" * 400 + "}", '{"step": NaN}', "\x00"],
)  # fmt: skip
def test_a_line_of_a_log_is_a_row_of_numbers(tmp_path, line):
    path = tmp_path / workdir.METRICS
    path.write_text(
        f'{{"step": 1, "loss": null}}\n{line}\n{{"step": 2}}\n', errors="surrogateescape"
    )
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: not a JSON object with a 'step'"):
        workdir.read_log(path)
    workdir.cut_log_back(tmp_path, 2)
    rows = workdir.read_log(path)
    assert [row["step"] for row in rows] == [1, 2]
    assert np.isnan(rows[0]["loss"])


def test_checksums_of_others_are_a_block_of_texts(tmp_path):
    (tmp_path / "5").mkdir()
    own = checksums.Checksums(tmp_path)
    for text in ("[1]", "{", "[" * 10**5, '{"../../etc/passwd": "0"}', '{"a": {}}', '{"": 1}'):
        own.path(5).write_text(text)
        fault = own.fault(5)
        assert fault
        assert str(tmp_path) in fault
        assert "\n" not in fault


def npy(header, data=b"", version=(1, 0)):
    """An .npy file with a header as it is given."""
    text = header.encode() if isinstance(header, str) else header
    size = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def header(descr="'<f8'", shape="(3,)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


HUGE = 10**12
ARRAYS = {
    "shape beyond the file": npy(header(shape=f"({HUGE}, 3)"), b"\0" * 24),
    "shape beyond any memory": npy(header(shape=f"({2**62}, {2**62})"), b"\0" * 24),
    "negative shape": npy(header(shape="(-3, 2)"), b"\0" * 24),
    "shape of texts": npy(header(shape="('a',)"), b"\0" * 24),
    "elements of no bytes": npy(header("'<U0'", shape=f"({HUGE},)")),
    "void of no bytes": npy(header("'|V0'", shape=f"({HUGE},)")),
    "objects": npy(header("'|O'"), b"\0" * 24),
    "fields": npy(header("[('a', '<f8'), ('b', '|O')]"), b"\0" * 48),
    "plain fields": npy(header("[('a', '<f8')]"), b"\0" * 24),
    "nested type": npy(header("('<f8', (10, 10))"), b"\0" * 24),
    "unknown type": npy(header("'<q77'"), b"\0" * 24),
    "deep header": npy("[" * 3000),
    "deep header of signs": npy("-" * 9000 + "1"),
    "deep header of calls": npy("(" * 60_000),
    "header that claims 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "header that is cut off": b"\x93NUMPY\x01\x00\xff\x7f{",
    "header of code": npy("__import__('os').system('true')"),
    "header that is no UTF-8": npy(b"\xff" * 40),
    "header without a shape": npy("{'descr': '<f8'}"),
    "version 3": npy(header(), b"\0" * 24, (3, 0)),
    "version 9": npy(header(), b"\0" * 24, (9, 9)),
    "text": b"hello",
    "nothing": b"",
}


def zipped(content, *, name="logits.npy", compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def in_both(content, find, replace):
    """An archive with other numbers in the local header and in the directory."""
    return content.replace(find, replace)


def archives():
    """{what is wrong: the bytes of an .npz}."""
    good = npy(header(shape="(300,)"), np.arange(300.0).tobytes())
    packed = zipped(good, compression=zipfile.ZIP_DEFLATED)
    size = struct.pack("<I", len(good))
    made = {f"{kind}, {name}": zipped(content, compression=compression)
            for kind, compression in (("stored", zipfile.ZIP_STORED), ("packed", zipfile.ZIP_DEFLATED))
            for name, content in ARRAYS.items()}  # fmt: skip
    start = packed.index(b"logits.npy") + len("logits.npy")
    made["bad deflate stream"] = packed[:start] + b"\xff" * 40 + packed[start + 40 :]
    made["another checksum"] = in_both(
        packed, struct.pack("<I", zlib.crc32(good)), struct.pack("<I", 1)
    )
    made["size beyond the stream"] = in_both(packed, size, struct.pack("<I", 2**32 - 2))
    made["size below the stream"] = in_both(packed, size, struct.pack("<I", 100))
    for flags, what in ((1, "encrypted"), (1 << 5, "patched")):
        content = bytearray(packed)
        content[6] |= flags
        content[packed.index(b"PK\1\2") + 8] |= flags
        made[what] = bytes(content)
    for method in (9, 12, 14, 93, 99):
        content = bytearray(packed)
        content[8] = content[packed.index(b"PK\1\2") + 10] = method
        made[f"compression {method}"] = bytes(content)
    made["truncated"] = packed[:-30]
    made["truncated at its start"] = packed[30:]
    made["twice the same name"] = twice(good)
    made["a bare .npy"] = good
    made["no members"] = b"PK\5\6" + b"\0" * 18
    made["text with the first bytes of an archive"] = b"PK\3\4 no archive"
    return made


def twice(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("logits.npy", content)
        archive.writestr("Logits.npy", content)
    return buffer.getvalue().replace(b"Logits", b"logits")


ARRAY_READERS = {
    "npz": files.read_npz,
    "npz mapped": lambda path: files.read_npz(path, mapped=True),
    "predictions": lambda path: predictions.read(path, labelled=False),
    "weights": workdir.read_weights,
    "state_dict": convert.read,
    "images": lambda path: arrays.read_images(path, (8, 8, 1), 3),
    "data": lambda path: arrays.make(Request(str(path))),
    "votes": human._table,
    "labels": lambda path: own_labels._read(
        "config.data.labels_file", str(path), "labels_name", ""
    ),
}


@pytest.mark.parametrize("reader", ARRAY_READERS)
def test_an_npz_made_to_break_its_reader_is_refused_in_one_sentence(tmp_path, reader):
    path = tmp_path / "x.npz"
    tracemalloc.start()
    for what, content in archives().items():
        path.write_bytes(content)
        taken = ends_well(ARRAY_READERS[reader], path)
        # What a reader has no use for, it need not look at; an empty archive has no arrays.
        assert not taken or what == "no members" or reader in ("labels",), what
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()


@pytest.mark.parametrize("what", ARRAYS)
def test_an_npy_made_to_break_its_reader_is_refused_in_one_sentence(tmp_path, what):
    path = tmp_path / "x.npy"
    path.write_bytes(ARRAYS[what])
    for reader in (
        files.read_npy,
        human._table,
        ARRAY_READERS["labels"],
        ARRAY_READERS["predictions"],
    ):
        assert not ends_well(reader, path)


def test_the_sentence_says_which_of_the_two_formats_it_is(tmp_path):
    np.savez(tmp_path / "x.npy.npz", a=np.ones(3))
    (tmp_path / "x.npy.npz").rename(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"x.npy: .*it is an .npz archive, not an .npy file"):
        files.read_npy(tmp_path / "x.npy")
    with open(tmp_path / "x.npz", "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"x.npz: .*it is an .npy file of one array, not an .npz"):
        files.read_npz(tmp_path / "x.npz")


def test_a_compressed_bomb_is_refused_by_the_size_that_it_declares(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(10**6), b=np.zeros(10**6))
    assert files.read_npz(tmp_path / "x.npz")["a"].size == 10**6  # small ones may be all zeros
    monkeypatch.setattr(files.npz, "LARGEST_UNPACKED", 10**7)
    with pytest.raises(ValueError, match=r"x.npz: .*unpack from [\d,]+ to 16,000,\d+ bytes"):
        files.read_npz(tmp_path / "x.npz")
    assert files.read_npz(tmp_path / "x.npz", names=["a"])["a"].size == 10**6
    np.savez_compressed(tmp_path / "x.npz", a=np.random.default_rng(0).random(2 * 10**6))
    assert files.read_npz(tmp_path / "x.npz")["a"].size == 2 * 10**6  # scores are no bomb


def test_a_cache_made_to_break_its_reader_is_rebuilt(tmp_path, capsys):
    path = tmp_path / "x.npz"
    for content in archives().values():
        path.write_bytes(content)
        assert array_cache.load(path) is None
    assert capsys.readouterr().err.count("is damaged and will be rebuilt") == len(archives())


def read_file(path):
    """Read an example of an image folder."""
    reason = pillow.decode(path, 8)
    if isinstance(reason, str):
        raise ValueError(f"{path} {reason}")


def read_record(path):
    with records.opened(str(path)) as (read, _):
        read(0, 12)


FILE_READERS = {
    **ARRAY_READERS,
    "npy": files.read_npy,
    "is npz": files.is_npz,
    "digest": files.sha256,
    "json": reading.read_json,
    "spec": specs.read_spec,
    "config": config.read,
    "run": lambda path: workdir.read_config(path.parent),
    "log": workdir.read_log,
    "calibrator": calibrate.load,
    "csv": csv_table.read,
    "class names": lambda path: cli.class_names(str(path)),
    "safetensors": lambda path: convert.read(path),
    "image": read_file,
    "record": read_record,
}
ENDINGS = {"csv": "x.csv", "npy": "x.npy", "safetensors": "x.safetensors", "run": "config.json",
           "config": "x.json", "image": "x.png", "log": "metrics.jsonl"}  # fmt: skip


@contextlib.contextmanager
def special(kind, path):
    """A path that is a FIFO, a socket, a device or a folder."""
    with contextlib.ExitStack() as stack:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            # The address of a socket has at most 108 bytes, so it is bound by a short name.
            stack.enter_context(contextlib.chdir(path.parent))
            server.bind(path.name)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        yield path


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder"])
def test_nothing_but_regular_files_is_opened(tmp_path, kind):
    """A FIFO would wait for a writer for ever, and /dev/zero would fill the memory."""

    def stop(*_):
        raise AssertionError(f"{name} hangs")

    old = signal.signal(signal.SIGALRM, stop)
    try:
        for name, reader in FILE_READERS.items():
            folder = tmp_path / name.replace(" ", "_")
            folder.mkdir()
            with special(kind, folder / ENDINGS.get(name, "x.npz")) as path:
                signal.alarm(20)
                assert not ends_well(reader, path, names=(path.parent,)), name
                signal.alarm(0)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def test_fifos_and_devices_in_image_folders_are_left_out_and_counted(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "own" / label / "deep").mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8))
            image.save(tmp_path / "own" / label / "deep" / f"{number}.png")
    os.mkfifo(tmp_path / "own/a/5.png")
    (tmp_path / "own/b/deep/5.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "own/b/notes.txt")
    made = imagefolder.make(Request(str(tmp_path / "own")), cache=str(tmp_path / "cache"))
    assert made.train.num_examples + made.test.num_examples == 8
    options = {"share": None, "seed": 0}
    streamed = splits.read(str(tmp_path / "own"), "imagefolder", index=tmp_path, **options)
    assert len(streamed.train.names) + len(streamed.test.names) == 8
    assert made.notes == streamed.notes
    said = " ".join(made.notes)
    assert (
        "left out 2 that are no regular files, 1 .txt (files that are not read as images)" in said
    )


def test_a_fifo_given_to_predict_is_an_image_that_cannot_be_read(run, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    shown = predict.find([tmp_path], SPEC, 0)
    assert shown.names == ["a.png", "b.png"]
    good, bad = shown.pixels
    assert good.shape == (8, 8, 1)
    assert bad == "cannot be read (it is a FIFO, not a regular file)"
