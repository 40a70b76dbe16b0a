"""What a run says: its records and its progress."""

import io
import json
import math
import struct
import sys

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from ldl_jax import workdir as run
from ldl_jax.training import log


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set: `clock[0]` in seconds."""
    now = [100.0]
    monkeypatch.setattr(log, "_clock", lambda: now[0])
    return now


def recorded(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def events(folder):
    """[(step, name, value)] of all event files, in the order of their names; and the steps they
    purge from.
    """
    found, purged = [], []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):  # a record: its length u64, u32, itself, u32
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            if event.session_log.status == event.session_log.START and event.HasField(
                "session_log"
            ):
                purged.append(event.step)
    return found, purged


def test_a_record_is_a_line_and_an_event(tmp_path):
    writer = log.Log(tmp_path, total_steps=10)
    writer.scalars(3, {"train/loss": np.float32(0.5), "epoch": 1, "n": np.int64(7)})
    writer.timing(3, {"images_per_second": 1234.5})
    # before the end
    assert recorded(tmp_path, run.METRICS) == [{"step": 3, "train/loss": 0.5, "epoch": 1, "n": 7}]
    writer.close()
    writer.close()
    writer.scalars(4, {"train/loss": 1.0})  # says nothing any more
    assert (
        tmp_path / run.METRICS
    ).read_text() == '{"step": 3, "train/loss": 0.5, "epoch": 1, "n": 7}\n'
    assert recorded(tmp_path, run.TIMING) == [{"step": 3, "images_per_second": 1234.5}]
    assert events(tmp_path)[0] == [
        (3, "train/loss", 0.5),
        (3, "epoch", 1),
        (3, "n", 7),
        (3, "images_per_second", 1234.5),
    ]


def test_what_is_not_finite_is_a_null_and_comes_back_as_nan(tmp_path):
    writer = log.Log(tmp_path, total_steps=10)
    writer.scalars(1, {"loss": math.nan, "norm": np.float32(np.inf), "rate": 0.1})
    writer.close()
    text = (tmp_path / run.METRICS).read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == {
        "step": 1, "loss": None, "norm": None, "rate": 0.1,
    }  # fmt: skip
    (row,) = run.read_log(tmp_path / run.METRICS)
    assert math.isnan(row["loss"])
    assert math.isnan(row["norm"])
    assert row["rate"] == 0.1


def test_only_the_main_process_writes(tmp_path, capsys):
    writer = log.Log(tmp_path / "run", total_steps=10, main=False)
    writer.message("hello")
    writer.scalars(1, {"loss": 1.0})
    writer.timing(1, {"seconds": 1.0})
    writer.progress(1, {"loss": 1.0})
    writer.close()
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")


def test_a_resumed_run_goes_on_where_its_records_are_cut(tmp_path):
    first = log.Log(tmp_path, total_steps=10)
    for step in range(1, 6):
        first.scalars(step, {"loss": float(step)})
        first.timing(step, {"seconds": 0.5})
    first.close()
    kept = (tmp_path / run.METRICS).read_text().splitlines()[:3]
    run.cut_log_back(tmp_path, 3)
    second = log.Log(tmp_path, total_steps=10, start_step=3)
    second.scalars(4, {"loss": 40.0})
    second.close()
    assert (tmp_path / run.METRICS).read_text().splitlines() == [*kept, '{"step": 4, "loss": 40.0}']
    assert [row["step"] for row in recorded(tmp_path, run.TIMING)] == [1, 2, 3]
    found, purged = events(tmp_path)
    assert purged == [1, 4]  # what the first start wrote from step 4 on is hidden
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert {value for step, _, value in found if step == 4} == {4.0, 0.5, 40.0}


def test_cutting_back_drops_what_is_no_row_and_leaves_the_rest_alone(tmp_path):
    rows = [
        '{"step": 1,  "a": 1.50}',
        "[1, 2]",
        '{"epoch": 3}',
        '{"step": 2}',
        '{"step": 9}',
        '{"step": 1, "los',
    ]
    (tmp_path / run.METRICS).write_text("\n".join(rows))
    run.cut_log_back(tmp_path, 2)
    assert (tmp_path / run.METRICS).read_text() == '{"step": 1,  "a": 1.50}\n{"step": 2}\n'
    before = (tmp_path / run.METRICS).stat()
    run.cut_log_back(tmp_path, 2)
    assert (tmp_path / run.METRICS).stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in tmp_path.iterdir()] == [run.METRICS]


def test_a_last_line_that_is_half_written_is_not_read(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 1, "a": 2}\n{"step": 2, "a')
    assert run.read_log(path) == [{"step": 1, "a": 2}]
    path.write_bytes(b'{"step": 1}\n\xff\xfe{')
    assert run.read_log(path) == [{"step": 1}]
    path.write_text("")
    assert run.read_log(path) == []


@pytest.mark.parametrize("broken", ['{"step": 1, "a', "7", '{"a": 1}'])
def test_a_line_that_is_broken_amid_others_is_refused(tmp_path, broken):
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 0}\n' + broken + '\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl, line 2: not a JSON object with a 'step'"):
        run.read_log(path)


def test_progress_without_a_terminal_is_a_line_now_and_then(tmp_path, capsys, clock):
    writer = log.Log(tmp_path, total_steps=200)
    for step in range(1, 201):
        writer.progress(step, {"loss": 1 / 3, "epoch": step})
        clock[0] += 0.5
    writer.message("done")
    writer.close()
    lines = capsys.readouterr().out.splitlines()
    # the first step, every ten seconds (20 steps), the last step
    assert [int(line.split()[1].split("/")[0]) for line in lines[:-1]] == [*range(1, 200, 20), 200]
    assert lines[0] == "step   1/200    0.5 %  - steps/s  -:--:-- left  loss 0.3333  epoch 1"
    assert lines[1] == "step  21/200   10.5 %  2 steps/s  0:01:30 left  loss 0.3333  epoch 21"
    assert lines[2] == "step  41/200   20.5 %  2 steps/s  0:01:20 left  loss 0.3333  epoch 41"
    assert lines[-2] == "step 200/200  100.0 %  2 steps/s  0:00:00 left  loss 0.3333  epoch 200"
    assert lines[-1] == "done"


def test_the_time_left_counts_hours_from_where_a_run_went_on(tmp_path, capsys, clock):
    writer = log.Log(tmp_path, total_steps=5000, start_step=1000)
    writer.progress(1001, {})
    clock[0] += 100
    writer.progress(1011, {})
    writer.close()
    assert (
        capsys.readouterr().out.splitlines()[1]
        == "step 1011/5000   20.2 %  0.1 steps/s  11:04:50 left"
    )


def test_progress_in_a_terminal_is_a_bar(tmp_path, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    writer = log.Log(tmp_path, total_steps=40, start_step=10)
    writer.message("before")
    writer.progress(11, {"loss": 0.25})
    writer.progress(40, {"loss": 0.125})
    writer.message("after")
    writer.close()
    assert "40/40" in terminal.getvalue()
    assert "loss 0.125" in terminal.getvalue()
    assert capsys.readouterr().out.split() == ["before", "after"]


def test_a_warning_goes_to_stderr(capsys):
    log.warn("the disk is nearly full")
    assert capsys.readouterr() == ("", "warning: the disk is nearly full\n")


def test_in_a_terminal_what_is_said_after_the_last_step_comes_below_the_bar(capsys):
    bar = log._Bar(3)
    bar.say("begin")
    bar.show(1, "loss 2")
    bar.show(3, "loss 1")
    bar.say("table")
    said = capsys.readouterr()
    assert said.out == "begin\ntable\n"
    assert "3/3" in said.err
    assert said.err.rstrip(" ").endswith("\n")  # the bar is left behind as a line of its own
    bar.close()
    assert capsys.readouterr().err == ""
