"""The choice of the engine, its threads, and the compiled loops' own mathematics."""

import hashlib
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from backends import by_compiled, compiled
from mpmath import mp
from numpy.testing import assert_allclose, assert_array_equal

from kd_notes import _engine, kd_loss, kd_loss_and_grad, set_engine

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="Numba is not installed")
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(autouse=True)
def engine_is_restored():
    with mock.patch("kd_notes._engine._engine", _engine._engine):
        yield


def run(code, **variables):
    """Run Python code in a new process, in which every warning is an error."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def logits(rng, rows, classes, dtype=np.float32):
    """Rows for either formula, mixed."""
    student, teacher = rng.normal(scale=3, size=(2, rows, classes)).astype(dtype)
    student[::2] = teacher[::2] + student[::2] * dtype(0.05)
    return student, teacher


def test_an_engine_that_does_not_exist():
    text = "engine must be one of ['auto', 'compiled', 'numpy']; got 'fast'"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        set_engine("fast")


@pytest.mark.parametrize(
    ("threads", "error", "text"),
    [
        (0, ValueError, "threads must be at least 1; got 0"),
        (2.0, TypeError, "threads must be an integer; got "),
    ],
)
def test_a_number_of_threads_that_is_none(threads, error, text):
    with pytest.raises(error, match=f"^{text}"):
        set_engine(threads=threads)


def test_the_environment_chooses_before_the_first_call(monkeypatch):
    monkeypatch.setattr(_engine, "_engine", None)
    monkeypatch.setenv("KD_NOTES_ENGINE", "numpy")
    kd_loss([1.0, 0.0], [0.0, 1.0])
    assert _engine._engine == (False, 1)
    monkeypatch.setattr(_engine, "_engine", None)
    monkeypatch.setenv("KD_NOTES_ENGINE", "fast")
    with pytest.raises(ValueError, match=r"^KD_NOTES_ENGINE must be one of .*; got 'fast'$"):
        kd_loss([1.0, 0.0], [0.0, 1.0])


WITHOUT_NUMBA = """
import numpy as np
from kd_notes import kd_loss, set_engine
logits = np.random.default_rng(1).normal(size=(2, 500, 1000))
automatic = kd_loss(*logits, 4.0)
set_engine("numpy")
assert np.array_equal(automatic, kd_loss(*logits, 4.0))
try:
    set_engine("compiled")
except ImportError as error:
    print(error)
"""


def test_without_numba_numpy_computes():
    done = run("import sys; sys.modules['numba'] = None" + WITHOUT_NUMBA, KD_NOTES_ENGINE="auto")
    assert done.stderr == ""
    assert done.stdout.startswith(
        'engine "compiled" needs Numba, as of pip install "kd-notes[fast]"; got: '
    )


def test_with_a_numba_that_cannot_be_imported_numpy_computes(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 1.26 or less')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = run(WITHOUT_NUMBA, KD_NOTES_ENGINE="auto", PYTHONPATH=path)
    assert done.stderr == ""
    assert done.stdout.endswith("got: Numba needs NumPy 1.26 or less\n")


@pytest.mark.parametrize("classes", [10, 64, 65, 200, 201, 1000])
@each_dtype
def test_threads_change_no_bit(classes, dtype, rng):
    student, teacher = logits(rng, 200_000 // classes, classes, dtype)
    for name in ["numpy", "compiled" if find_spec("numba") else "numpy"]:
        set_engine(name, threads=1)
        alone = kd_loss_and_grad(student, teacher, 4.0)
        for threads in [2, 3]:
            set_engine(name, threads=threads)
            together = kd_loss_and_grad(student, teacher, 4.0)
            assert_array_equal(together[0], alone[0])
            assert_array_equal(together[1], alone[1])


@needs_numba
@pytest.mark.parametrize("classes", [10, 1000])
@each_dtype
def test_large_blocks_change_no_bit(classes, dtype, rng):
    """A block holds more rows that need no copy than rows of a view, which do."""
    student, teacher = logits(rng, 300, classes, dtype)
    set_engine("compiled", threads=1)
    whole = kd_loss_and_grad(student, teacher, 4.0)
    for name in ["BLOCK", "IN_PLACE"]:
        with mock.patch(f"kd_notes._kernel.{name}", 70 * student[0].nbytes):
            in_blocks = kd_loss_and_grad(student, teacher, 4.0)
            of_views = kd_loss_and_grad(student[::2], teacher[::2], 4.0)
        for found, of_view, expected in zip(in_blocks, of_views, whole, strict=True):
            assert_array_equal(found, expected)
            assert_array_equal(of_view, expected[::2])


def test_an_error_in_any_thread_is_raised():
    def fail_at(row):
        def compute(rows):
            if rows.start <= row < rows.stop:
                raise MemoryError

        return compute

    set_engine("numpy", threads=3)
    for row in [0, 5, 9]:
        with pytest.raises(MemoryError):
            _engine.in_parts(fail_at(row), 10, 10 * _engine.LEAST)


FORK = """
import multiprocessing, warnings
import numpy as np
from kd_notes import kd_loss, set_engine
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
set_engine("auto", threads=2)
logits = np.random.default_rng(1).normal(size=(2, 500, 1000))
def in_child(_):
    return kd_loss(*logits, 4.0)
expected = in_child(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(np.array_equal(loss, expected) for loss in pool.map(in_child, range(4)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_threads_of_its_own():
    done = run(FORK, KD_NOTES_ENGINE="auto")
    assert (done.stderr, done.returncode) == ("", 0)


@needs_numba
@each_dtype
@pytest.mark.parametrize("temperature", [1.0, 4.0, 1e4, np.inf])
def test_both_engines_agree_to_a_few_eps(temperature, dtype, rng):
    student, teacher = logits(rng, 40, 1000, dtype)
    expected = kd_loss_and_grad(*map(np.float64, (student, teacher)), temperature)
    loss, grad = by_compiled(student, teacher, temperature)
    eps = float(np.finfo(dtype).eps)
    # Logits of order 10, and a difference of 1/20 in every second row, which they round.
    assert_allclose(loss, expected[0], rtol=500 * eps)
    assert (abs(grad - expected[1]).max(axis=1) <= 500 * eps * abs(grad).max(axis=1)).all()


@needs_numba
def test_the_compiled_loops_serve_what_they_are_said_to_serve(rng):
    from kd_notes import _compiled, _compiled_divergences

    set_engine("compiled", threads=1)
    for module, divergence, of_few, of_many in [
        (_compiled, "forward_kl", "compute_groups", "compute_rows"),
        (_compiled_divergences, "reverse_kl", "load_groups", "load_rows"),
    ]:
        for classes, name in [(2, of_few), (200, of_few), (201, of_many)]:
            with mock.patch.object(module, name, wraps=getattr(module, name)) as spy:
                kd_loss(*logits(rng, 3, classes), 4.0, divergence=divergence)
                assert spy.call_count == 1
                kd_loss(*logits(rng, 3, classes), np.inf, divergence=divergence)
                assert spy.call_count == 1


@needs_numba
@pytest.mark.parametrize("layout", ["float16", "swapped", "unaligned", "strided", "read-only"])
def test_logits_of_every_layout_and_a_place_for_the_gradient(layout, rng):
    student, teacher = logits(rng, 6, 201)
    expected = by_compiled(student, teacher, 4.0)
    place = np.empty_like(student)
    if layout == "float16":
        teacher = teacher.astype(np.float16)
        expected = by_compiled(student, teacher.astype(np.float32), 4.0)
    elif layout == "swapped":
        student = student.astype(student.dtype.newbyteorder())
    elif layout == "unaligned":
        student = unaligned(student)
        place = unaligned(place)
    elif layout == "strided":
        student = np.repeat(student, 2, axis=1)[:, ::2]
        place = np.repeat(place, 2, axis=1)[:, ::2]
    else:
        student.flags.writeable = teacher.flags.writeable = False
    with compiled():
        loss, _ = kd_loss_and_grad(student, teacher, 4.0, out=place)
    assert_array_equal(loss, expected[0])
    assert_array_equal(place, expected[1])


def unaligned(rows):
    memory = np.empty(rows.nbytes + 1, np.uint8)[1:]
    copy = memory.view(rows.dtype).reshape(rows.shape)
    copy[:] = rows
    assert not copy.flags.aligned
    return copy


@needs_numba
@each_dtype
def test_the_exponential_is_right_to_the_last_unit_and_below_the_smallest_normal_number(dtype):
    from numba import njit

    from kd_notes import _compiled

    info, c = np.finfo(dtype), _compiled.numbers(np.dtype(dtype))
    compute = njit(lambda x, c: _compiled.exp(x, c))
    lowest = float(np.log(info.smallest_subnormal))
    for x in np.linspace(lowest - 2, 3, 3001).astype(dtype):
        true = mp.exp(mp.mpf(float(x)))
        error = abs(mp.mpf(float(compute(x, c))) - true)
        assert error <= max(1.01 * info.eps * true, 1.01 * float(info.smallest_subnormal))
    assert compute(dtype(-np.inf), c) == 0


@needs_numba
def test_the_coefficients_of_the_exponential_are_those_of_the_interpolating_polynomial():
    from kd_notes import _compiled

    for name, coefficients in _compiled.EXP.items():
        n = len(coefficients)
        with mp.workdps(50):
            reach = mp.mpf("0.505") * mp.log(2)
            points = [reach * mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
            g = [(mp.exp(r) - 1 - r) / r**2 if abs(r) > 1e-20 else mp.mpf(0.5) for r in points]
            vandermonde = mp.matrix([[r**power for power in range(n)] for r in points])
            true = mp.lu_solve(vandermonde, mp.matrix(g))
        assert coefficients == [float(a) for a in true], name


@needs_numba
def test_the_coefficients_of_the_logarithm_are_those_of_the_interpolating_polynomial():
    from kd_notes import _compiled

    for name, coefficients in _compiled.ARTANH.items():
        n = len(coefficients)
        with mp.workdps(50):
            points = [(1 + mp.cos(mp.pi * (2 * k + 1) / (2 * n))) / 18 for k in range(n)]
            g = [(mp.atanh(mp.sqrt(w)) / mp.sqrt(w) - 1) / w for w in points]
            vandermonde = mp.matrix([[w**power for power in range(n)] for w in points])
            true = mp.lu_solve(vandermonde, mp.matrix(g))
        assert coefficients == [float(a) for a in true], name


@needs_numba
@each_dtype
def test_the_logarithm_and_its_remainder_are_right_to_a_few_units(dtype):
    from numba import njit

    from kd_notes import _compiled, _compiled_divergences

    c = _compiled.numbers(np.dtype(dtype))
    compute = njit(lambda u, m, c: _compiled_divergences.log1p(u, m, c))
    small = [*np.linspace(-0.5, 1, 301), 1e-30, -1e-10]
    for u in np.array([*small, *np.geomspace(1.01, 1e30, 101), -0.9, -0.999], dtype):
        m = dtype(1) + u
        exact, above = mp.mpf(float(u)), mp.mpf(float(m))
        results = compute(u, m, c)
        with mp.workdps(90):
            log = mp.log(1 + exact) if -0.5 <= u <= 1 else mp.log(above)
            true = [log, (exact - log) / exact**2, log / exact] if u else [log, 0.5, 1]
        for x, y in [*zip(results, true, strict=True)][: 3 if -0.5 <= u <= 1 else 1]:
            assert abs(mp.mpf(float(x)) - y) <= 4 * np.finfo(dtype).eps * abs(y)


@needs_numba
def test_a_change_of_the_shared_loops_is_one_of_the_file_that_stores_others():
    """Numba looks for changes in that file alone, and not in what its functions call."""
    from kd_notes import _compiled, _compiled_divergences

    text = Path(_compiled.__file__).read_bytes()
    assert hashlib.sha256(text).hexdigest()[:16] == _compiled_divergences.OF_SHARED


@needs_numba
@each_dtype
def test_a_sum_of_equal_numbers_is_right_to_two_units(dtype):
    """Partial sums of equal numbers are all rounded to the same side; `CHUNK` keeps them short.

    This is the error with vector registers of 256 bits; shorter ones add up more numbers each.
    """
    from numba import njit

    from kd_notes import _compiled

    c = _compiled.numbers(np.dtype(dtype), beta=1)
    compute = njit(lambda x, top, out, c: _compiled.exponentials(x, top, out, c))
    x, out, *_ = _compiled.workspace(1503, np.dtype(dtype))
    for value in np.linspace(-5, -3, 101).astype(dtype):
        x.reshape(-1)[:1503] = value
        total = float(compute(x, dtype(0), out, c))
        expected = 1503 * float(out[0, 0])
        assert abs(total - expected) <= 2 * np.finfo(dtype).eps * expected


@needs_numba
@pytest.mark.slow
def test_no_loop_over_few_classes_stores_by_mask(tmp_path):
    """On processors of AMD whose registers have 256 bits, such loops took twice the time."""
    code = """
import numpy as np
from kd_notes import _compiled, kd_loss_and_grad
for dtype in (np.float32, np.float64):
    kd_loss_and_grad(np.zeros((64, 9), dtype), np.eye(64, 9, dtype=dtype))
loops = ["tops", "exponentials", "quick_terms", "mean", "near_terms", "all_terms"]
for name in loops:
    versions = getattr(_compiled, f"group_{name}").inspect_asm().values()
    print(name, bool(versions), any("vmaskmov" in version for version in versions))
"""
    done = run(code, KD_NOTES_ENGINE="compiled", NUMBA_CACHE_DIR=str(tmp_path))
    found = [line.split() for line in done.stdout.splitlines()]
    assert len(found) == 6
    assert all(rest == ["True", "False"] for _, *rest in found)


@needs_numba
@pytest.mark.slow
def test_the_first_call_says_nothing_and_is_stored(tmp_path):
    code = """
import numpy as np
from kd_notes import kd_loss
kd_loss(np.zeros((2, 201), np.float32), np.zeros((2, 201), np.float32))
"""
    done = run(code, KD_NOTES_ENGINE="compiled", NUMBA_CACHE_DIR=str(tmp_path))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert list(tmp_path.rglob("*.nbi"))


@needs_numba
@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", ["float32", "float64", "bfloat16", "float16"])
def test_the_loss_for_pytorch_uses_it_on_a_cpu(name, rng):
    import torch

    from kd_notes import _compiled
    from kd_notes.torch import kd_loss as torch_kd_loss

    dtype = getattr(torch, name)
    student, teacher = (torch.tensor(x, dtype=dtype) for x in logits(rng, 6, 201, np.float64))
    student.requires_grad_()
    with (
        compiled(),
        mock.patch.object(_compiled, "compute_rows", wraps=_compiled.compute_rows) as spy,
    ):
        loss = torch_kd_loss(student, teacher, 4.0)
        (grad,) = torch.autograd.grad(loss.sum(), student)
    assert spy.called
    wide = torch.float64 if name == "float64" else torch.float32
    arrays = (x.detach().to(wide).numpy() for x in (student, teacher))
    expected = by_compiled(*arrays, 4.0)
    assert_array_equal(loss.detach().to(wide).numpy(), expected[0])
    assert_array_equal(grad.to(wide), torch.tensor(expected[1]).to(dtype).to(wide))


@needs_numba
def test_divergences_with_extreme_parameters_are_left_to_numpy():
    from kd_notes import _compiled_divergences
    from kd_notes._f_divergences import as_formula
    from kd_notes.divergences import Alpha, JensenShannon, ReverseKL, SkewKL

    served = [ReverseKL(), JensenShannon(0.5), SkewKL(1e-5), Alpha(-1), Alpha(2), Alpha(0.01)]
    left = [JensenShannon(1e-7), SkewKL(1e-20), Alpha(1e-9), Alpha(-1e-9), Alpha(2.1)]
    assert all(_compiled_divergences.can_serve(as_formula(d)) for d in served)
    assert not any(_compiled_divergences.can_serve(as_formula(d)) for d in left)
