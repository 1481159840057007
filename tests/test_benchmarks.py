"""What the README says of speed is what was measured, and the contenders compute one loss."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from chapters import ROOT
from numpy.testing import assert_allclose

from benchmarks.contenders import CONTENDERS
from benchmarks.figures import fill_in
from benchmarks.ratios import ratios
from kd_notes import kd_loss_and_grad

RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text())
NEEDS = {"PyTorch": "torch", "kd_notes.torch, NumPy": "torch", "SciPy": "scipy"}


def test_the_readme_has_the_measured_ratios():
    readme = (ROOT / "README.md").read_text()
    assert readme == fill_in(readme, RESULTS), "benchmarks/figures.py writes its table"
    assert RESULTS["machine"]["cores"] == 2
    bits = RESULTS["machine"]["registers"]
    assert f"loss and gradient on two cores, whose registers\nhave {bits} (" in readme


def test_the_stored_ratios_are_those_of_the_stored_times():
    found = ratios(RESULTS["speed"])
    assert found.keys() == RESULTS["ratios"].keys()
    for own, others in found.items():
        for other, values in others.items():
            for value, stored in zip(values, RESULTS["ratios"][own][other], strict=True):
                assert value == pytest.approx(stored, rel=1e-9)


def test_a_ratio_is_a_geometric_mean_of_which_rounds_give_the_spread():
    timed = [
        {
            "temperature": 4.0,
            "seconds": {"kd_notes, NumPy": [1, 1, 2], **dict.fromkeys(others, times)},
        }
        for times in ([8, 1, 4], [2, 4, 1])
        for others in [["SciPy", "PyTorch", "torch.compile", "JAX", "addition"]]
    ]
    [found] = ratios(timed)["kd_notes, NumPy"]["JAX"]
    assert_allclose([found["ratio"], found["least"], found["most"]], [2, 1, 4], rtol=1e-12)
    assert (found["faster"], found["cases"]) == (0, 2)


@pytest.mark.parametrize("name", ["kd_notes, NumPy", "kd_notes, NumPy, out=", *NEEDS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_contender_computes_the_scaled_loss_and_its_gradient(name, dtype, rng):
    if name in NEEDS and not find_spec(NEEDS[name]):
        pytest.skip(f"needs {NEEDS[name]}")
    pair = rng.normal(scale=3, size=(2, 30, 10)).astype(dtype)
    loss, grad = CONTENDERS[name][0](*pair, 4.0)()
    expected_loss, expected_grad = kd_loss_and_grad(*pair, 4.0)
    assert np.asarray(loss).dtype == np.asarray(grad).dtype == dtype
    # the usual formulas lose a factor τ² in the loss and τ in the gradient
    assert_allclose(np.asarray(loss), expected_loss, rtol=1e3 * np.finfo(dtype).eps)
    assert_allclose(np.asarray(grad), expected_grad, atol=1e2 * np.finfo(dtype).eps)
