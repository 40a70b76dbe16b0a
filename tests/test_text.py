"""What comes from files of others acts nowhere: as text in any format, or as a link in a run; and
every command ends with a sentence, in any locale and with any stdout.
"""

import csv
import io
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from ldl_jax import cli, convert, errors, escape, files, predict, workdir
from ldl_jax.config.study import METRICS
from ldl_jax.report import figure_tables, html, tables
from ldl_jax.study import tables as study_tables
from ldl_jax.training.log import Log

ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
HOSTILE = (
    "x\n\\input{/etc/passwd}",
    "x\r\\write18{id}\x85y\u2028z",
    "=HYPERLINK(\"http://x\")",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "a;=1",
    "a\n=1",
    "\x1b]0;title\x07\x1b[2J",
    "\x9b31mred",
    "\u202egnp.exe",
    "![x](http://x) [y](javascript:1) **b** _i_ ~~s~~ `c` $m$ &lt;",
    "# a heading",
    "- an item",
    "1. an item",
    "a | b",
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "\udcc4.png",
    "\ud800",
    "\x00",
    "[1cm] & \\\\ % # _ ^ ~ { }",
    "*",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table(text):
    return tables.Table([text, "n"], [tables.Group([[text, "1"], ["b", text]], text)], (text,))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_a_terminal_moves_no_cursor_and_starts_no_line(text):
    shown = tables.as_text(table(text), notes=[text])
    assert not ACTING.search(shown)
    # A head, a heading and two rows between rules; a note; after an empty line, another note.
    lines = shown.split("\n")
    assert len(lines) == 7 + 3
    assert len({len(line) for line in lines[:7]}) == 1
    assert "\n" not in escape.line(text)
    assert not ACTING.search(escape.terminal(text))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_a_csv_is_no_formula(text):
    written = tables.as_csv(table(text))
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert len(rows) == 3
    for row in rows:
        assert len(row) == 2
        for cell in row:
            for part in re.split("[;\n]", cell):
                assert not part.lstrip(" ").startswith(FORMULA), cell
    assert not ACTING.search(written)


def test_numbers_in_a_csv_stay_numbers():
    numbers = ["-3.5", "+1e3", "nan", "-inf", "2"]
    assert list(map(escape.csv, numbers)) == numbers
    rows = tables.as_csv(tables.simple(["a", "b"], [[-0.25, None]])).splitlines()
    assert rows == ["a,b", "-0.25,"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_markdown_is_no_markup(text):
    written = tables.as_markdown(table(text), notes=[text])
    lines = written.split("\n")
    rows = lines[:5]
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", row))) == 3, row
    # A backslash before each character that begins markup; pairs of backslashes are text.
    bare = re.sub(r"\\.", "", written)
    assert not re.search(r"[<`\[~&$]", bare)
    assert not re.search(r"(?<!\w)_|_(?!\w)", bare)
    assert "*" not in bare.replace("| **", "").replace("** |", "")
    for paragraph in filter(None, lines[5:]):
        assert not re.match(r"\s*([#>+=-]|\d+[.)]\s|\|)", paragraph), paragraph
    assert len(lines) == 10
    assert not ACTING.search(written)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_latex_is_no_command(text):
    written = tables.as_latex(table(text), notes=[text])
    lines = written.split("\n")
    (first, *live, last) = lines[: lines.index(r"\end{tabular}") + 1]
    assert (first, last) == (r"\begin{tabular}{lr}", r"\end{tabular}")
    assert len(live) == 7
    # All that follows is empty or a comment.
    assert all(line[:1] in ("", "%") for line in lines[lines.index(last) + 1 :])
    for line in live:
        known = r"\\(toprule|midrule|bottomrule|textit|multicolumn|text[a-z]+\{\}|[&%$#_{}\\]|pm)"
        assert "\\" not in re.sub(known, "", line), line
        assert not re.search(r"(?<!\\)[%#_]", line.replace(r"\\", "")), line
        assert not re.match(r"[*\[]", line)
    assert not ACTING.search(written)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_html_is_no_markup(text):
    parts = [html.text(text, strong=text), html.table(table(text)), html.heading(text)]
    page = html.document(text, [html.section(text, *parts)])
    body = page[page.index("<body>") : page.index("</html>")]
    tags = {
        element.tag
        for element in ET.fromstring(
            body.replace("&nbsp;", " ").replace("<br>", "").replace("<wbr>", "")
        ).iter()
    }
    known = {"body", "h1", "h2", "h3", "section", "p", "strong", "div", "table", "tr", "th", "td", "small"}  # fmt: skip
    assert tags <= known
    assert not ACTING.search(page)


@pytest.mark.parametrize("text", HOSTILE)
def test_predictions_show_names_as_text(text, tmp_path):
    names, classes = [text, "b.png"], [text, "other"]
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    rows = list(csv.reader(io.StringIO(predict.table(names, classes, logits), newline="")))
    assert [len(row) for row in rows] == [5, 5, 5]
    for cell in (*rows[0], *rows[1][:2]):
        assert not cell.lstrip(" ").startswith(FORMULA)
        assert not ACTING.search(cell)
    shown = predict.Predicted(names, classes, logits, np.array([0, 1]), tmp_path / "x").lines()
    assert len(shown) == 3
    assert shown[-1].startswith("accuracy 100.00 %")
    assert not any(ACTING.search(line) or "\n" in line for line in shown)


def comparison(name):
    """What `compare` finds for two groups of one run each."""
    value = {"mean": 0.1, "std": None, "n": 1, "floor": 0.01, "seeds": None, "images": [0.0, 0.2]}
    group = {"name": name, "runs": [name], "at_bound": 1, "scaled": None, "raw": {"ece": value}}
    difference = {"name": name, "scaled": None, "raw": {"ece": value | {"verdict": ""}}}
    return {"groups": [group], "differences": [difference], "baseline": name}


@pytest.mark.parametrize("text", HOSTILE)
def test_comparisons_and_studies_show_names_as_text(text):
    shown = figure_tables.comparison(comparison(text))
    notes = figure_tables.comparison_notes(comparison(text))
    values = {name: {"mean": 0.5, "std": None} for name in (*METRICS, "floor")}
    cell = {"cell": text, "n": 1, "seeds": 1, "published": {}, "at_bound": 1, "raw": values}
    cell |= {"parts": None, "train": None}
    results = {"cells": [cell | {"scaled": None}], "findings": [], "comparisons": []}
    texts = [
        tables.as_text(*shown, notes=notes),
        tables.as_markdown(*shown, notes=notes),
        tables.as_latex(*shown, notes=notes),
        tables.as_csv(figure_tables.comparison_numbers(comparison(text))),
        study_tables.text(results),
        study_tables.numbers(results),
    ]
    plain = [
        tables.as_text(*figure_tables.comparison(comparison("a")), notes=notes),
        study_tables.text({**results, "cells": [cell | {"cell": "a", "scaled": None}]}),
    ]
    assert texts[0].count("\n") == plain[0].count("\n")
    assert texts[4].count("\n") == plain[1].count("\n")
    assert not any(ACTING.search(text) for text in texts)
    for written in (texts[3], texts[5]):
        for row in csv.reader(io.StringIO(written, newline="")):
            assert not any(cell.lstrip(" ").startswith(FORMULA) for cell in row)


@pytest.mark.parametrize("text", HOSTILE)
def test_messages_are_one_line_without_control_characters(text, capsys, tmp_path):
    def fail():
        raise ValueError(f"the class {text} is unknown")

    assert cli.status(fail) == 2
    errors.warn(f"the class {text} is unknown")
    log = Log(tmp_path, total_steps=1)
    log.message(f"a note: {text}")
    log.close()
    printed = capsys.readouterr()
    first, second, last = printed.err.split("\n")
    assert (first[:7], second[:9], last) == ("error: ", "warning: ", "")
    assert not ACTING.search(printed.err + printed.out)


def test_a_name_keeps_what_can_be_shown():
    for escaped in (escape.terminal, escape.line, escape.csv, escape.markdown, escape.latex):
        assert escaped("") == ""
    assert escape.terminal("Katze 猫 👩‍🔬 é\n\t100 %") == "Katze 猫 👩‍🔬 é\n\t100 %"
    assert escape.markdown("cifar100_hard-seed0 (95 %)") == "cifar100_hard-seed0 (95 %)"
    assert escape.latex("a_b [lo, hi]") == r"a\_b [lo, hi]"
    # Bytes that UTF-8 can read are shown as what they are, also where the locale is ASCII.
    assert escape.terminal("\udcc3\udc84.png") == "Ä.png"


class Ascii(io.TextIOWrapper):
    """A stream of a terminal that knows ASCII alone."""

    def __init__(self, file=None, **options):
        super().__init__(file or io.BytesIO(), encoding="ascii", **options)


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Ascii())
    errors.say("ECE 1.0 ± 0.1 of 猫")
    assert cli.status(lambda: print("é, as argparse prints it")) == 0
    shown = sys.stdout.buffer.getvalue()
    assert shown == b"ECE 1.0 \\xb1 0.1 of \\u732b\n\\xe9, as argparse prints it\n"


def closed_pipe():
    """A text stream whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


def test_a_pipe_that_closes_early_ends_a_command_quietly(monkeypatch, capfd):
    def say_much():
        for number in range(100_000):
            errors.say(f"line {number}")

    def say_help():
        print("usage")
        raise SystemExit(0)

    def fail():
        print("a table")
        raise ValueError("no")

    for work, code in ((say_much, 141), (lambda: print("one"), 141), (say_help, 141), (fail, 2)):
        with closed_pipe() as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            assert cli.status(work) == code
            pipe.flush()  # as the interpreter does at exit: to the null device
        monkeypatch.undo()
    assert capfd.readouterr().err == "error: no\n"
    # With `2>&1 | head`, stderr is the same pipe.
    with closed_pipe() as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        errors.warn("nobody reads this")
        assert cli.status(fail) == 2
    monkeypatch.undo()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")
def test_output_on_a_full_disk_is_a_sentence(monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.status(lambda: print("a table")) == 1
    assert capsys.readouterr().err.startswith("error: the output cannot be written: ")


def test_a_command_without_any_stream_has_a_status(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.status(lambda: errors.say("nothing")) == 0


def test_memory_that_runs_out_is_a_sentence(capsys):
    def on_device():
        jnp.ones((1 << 44,), jnp.float32).block_until_ready()

    def on_host():
        np.ones(1 << 59, np.uint8)

    for work, place in ((on_device, "on a device"), (on_host, "on this machine")):
        assert cli.status(work, memory=cli.LOWER_BATCH) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: out of memory {place} (")
        assert "lower config.data.batch_size (and raise config.optimizer.accumulate" in error
        assert error.count("\n") == 1

    class JaxRuntimeError(RuntimeError):
        pass

    said = (
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\n" + "buffer\n" * 999
    )
    assert len(errors.out_of_memory(JaxRuntimeError(said))) < 250
    for other in (JaxRuntimeError("INTERNAL: no"), RuntimeError(said), ValueError("x")):
        assert errors.out_of_memory(other) is None
    with pytest.raises(JaxRuntimeError, match="INTERNAL"):
        cli.status(lambda: (_ for _ in ()).throw(JaxRuntimeError("INTERNAL: no")))


def test_a_place_is_tested_without_a_trace(tmp_path, capsys):
    files.check_writable(tmp_path / "new" / "below")
    assert cli.writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    below = tmp_path / "file" / "below"
    with pytest.raises(OSError, match="Not a directory") as fault:
        files.check_writable(below)
    assert fault.value.filename == str(below)
    assert not cli.writable(below)
    assert capsys.readouterr().err.startswith(f"error: {below}: Not a directory; ")


def test_a_full_disk_is_found_by_writing(tmp_path, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs a file that is always full")
    full = partial(open, "/dev/full", "wb", buffering=0)
    monkeypatch.setattr(files.tempfile, "TemporaryFile", lambda **_: full())
    with pytest.raises(OSError, match="No space left"):
        files.check_writable(tmp_path)


def test_an_export_tests_its_place_first(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    target = tmp_path / "file" / "x.safetensors"
    assert convert.main(["export", str(tmp_path / "no-run"), str(target)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file'}: Not a directory\n"


@pytest.fixture
def outside(tmp_path):
    """A file and a folder outside the run, which must stay as they are."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"mine")
    yield tmp_path / "outside"
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]
    assert (tmp_path / "outside" / "file").read_bytes() == b"mine"


def test_writing_replaces_a_link(outside, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    writers = {
        "summary.json": lambda path: files.write_json(path, {}),
        "model.npz": lambda path: files.write_npz(path, x=np.ones(3)),
        "missing.csv": lambda path: files.write(path, "a\n"),
    }
    for name, write in writers.items():
        target = outside / ("new" if name == "missing.csv" else "file")
        (run / name).symlink_to(target)
        write(run / name)
        assert not (run / name).is_symlink()
        assert (run / name).stat().st_size
    assert sorted(path.name for path in run.iterdir()) == sorted(writers)


def test_a_temporary_name_that_is_taken_is_not_written(outside, tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "guessed")
    taken = tmp_path / ".a.json.guessed.tmp"
    taken.symlink_to(outside / "file")
    with pytest.raises(FileExistsError, match=r"a\.json"):
        files.write(tmp_path / "a.json", "x")
    assert taken.is_symlink()  # it is not ours to delete
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("name", [*workdir.IN_PLACE, workdir.PREDICTIONS, workdir.PREDICTED])
def test_a_run_with_a_link_where_results_are_written_is_refused(name, outside, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    is_file = name in (workdir.LOCK, workdir.METRICS, workdir.TIMING)
    (run / name).symlink_to(outside / "file" if is_file else outside)
    with pytest.raises(ValueError, match=f"{name} must not be a symbolic link"):
        workdir.locked(run).__enter__()
    (run / name).unlink()
    (run / name).symlink_to(outside / "new")  # which does not exist yet
    with pytest.raises(ValueError, match="must not be a symbolic link"):
        workdir.locked(run).__enter__()


def test_links_below_the_checkpoints_are_refused_and_a_linked_run_is_not(outside, tmp_path):
    (tmp_path / "run" / "checkpoints" / "10").mkdir(parents=True)
    for place in ("11", "10/state"):
        link = tmp_path / "run" / "checkpoints" / place
        link.symlink_to(outside)
        with pytest.raises(ValueError, match=f"checkpoints/{place} must not be"):
            workdir.locked(tmp_path / "run").__enter__()
        link.unlink()
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    with workdir.locked(tmp_path / "linked"):
        assert (tmp_path / "run" / workdir.LOCK).is_file()


def append(path):
    with open(path, "ab", opener=files.no_link) as file:
        file.write(b"line\n")


def test_lines_are_not_appended_through_a_link_or_to_a_pipe(outside, tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to(outside / "file")
    with pytest.raises(OSError, match="symbolic links"):
        append(tmp_path / "metrics.jsonl")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        append(tmp_path / "pipe")
    for _ in range(2):
        append(tmp_path / "plain")
    assert (tmp_path / "plain").read_bytes() == b"line\n" * 2


def test_the_default_folder_of_results_is_no_link(outside, tmp_path):
    (tmp_path / "evaluation").symlink_to(outside)
    with pytest.raises(ValueError, match="must not be a symbolic link"):
        cli.folder(None, tmp_path / "evaluation")
    assert cli.folder(str(tmp_path / "evaluation"), tmp_path) == tmp_path / "evaluation"


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
def test_a_command_reads_and_writes_utf8_in_an_ascii_locale(tmp_path):
    random = np.random.default_rng(0)
    rows = ["label,猫,é"]
    for label, p in zip(random.integers(0, 2, 40), random.uniform(0.05, 0.95, 40), strict=True):
        rows.append(f"{label},{p:.4f},{1 - p:.4f}")
    (tmp_path / "größe.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "ldl_jax.evaluate", tmp_path / "größe.csv", "--title=Größe"]
    done = subprocess.run(command, env=os.environ | ASCII, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"gr\\xf6\\xdfe: 40 examples" in done.stdout
    report = (tmp_path / "evaluation" / workdir.REPORT).read_text(encoding="utf-8")
    assert "<h1>Größe</h1>" in report
    assert "猫" in report
