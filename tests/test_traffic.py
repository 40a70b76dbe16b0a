"""What a step moves, by formula, against the program that XLA compiles for eight devices."""

import math
import re
from collections import Counter

import frame
import jax
import numpy as np
import pytest
import test_mesh
from frame import Case

from ldl_jax.data.base import Split
from ldl_jax.training import traffic

SIZE, CLASSES, EXAMPLES = 64, 100, 5000
WIDTH = {"f32": 4, "s32": 4, "f16": 2, "bf16": 2, "f64": 8, "u32": 4, "pred": 1}
SCALARS = 16  # bytes: the loss, the gradient's norm

CASES = {
    "a float16 memory under CutMix": Case(
        "online", "cutmix", options=(("dtype", "float16"),), mix_options=(("probability", 0.5),)
    ),
    "a clean pass under RICAP": Case("online", "ricap", options=(("write", "clean"),)),
    "classes, groups within a device": Case("classwise", norm_group=SIZE // 16),
    "a peer, groups of two devices": Case("peer", norm_group=SIZE // 4),
}


def expected(case, devices):
    state = frame.arguments(case)[0]
    split = Split(
        case.examples, frame.SHAPE, given={"table": np.zeros((1, case.num_classes), np.float32)}
    )
    return traffic.moves(
        frame.recipe(case), state, split, norm_group=case.norm_group, devices=devices
    )


@pytest.mark.parametrize("name", frame.slow_but([], CASES))
def test_the_formula_is_what_the_compiled_program_moves(name):
    case = CASES[name]._replace(num_classes=CLASSES, batch=SIZE, examples=EXAMPLES)
    found = Counter()
    for types, kind in test_mesh.COLLECTIVE.findall(test_mesh.compiled(case, 8).as_text()):
        for width, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", types):
            found[kind] += WIDTH[width] * math.prod(int(n) for n in dimensions.split(",") if n)
    said = Counter()
    for move in expected(case, 8):
        said[move.kind] += move.size
    assert set(found) == set(said)
    for kind, size in found.items():
        assert said[kind] <= size <= said[kind] + SCALARS, (kind, said[kind], size)


@pytest.mark.slow
def test_nothing_moves_on_one_device_and_rings_are_bounded():
    case = CASES["a float16 memory under CutMix"]._replace(
        num_classes=CLASSES, batch=SIZE, examples=EXAMPLES
    )
    assert sum(move.sent() for move in expected(case, 1)) == 0
    sent = [sum(move.sent() for move in expected(case, n)) for n in (2, 8, 32, 64)]
    assert sent == sorted(sent)
    assert sent[-1] < 2 * sent[0]  # a device sends less than twice what it does beside one other
    gradients = next(move for move in expected(case, 8) if move.name == "gradients")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(frame.arguments(case)[0].params))
    assert gradients.sent() == pytest.approx(2 * 7 / 8 * 4 * parameters)
