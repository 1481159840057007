"""The Triton kernel: on a GPU, or, with TRITON_INTERPRET=1 from the start, in NumPy on a CPU.

`TRITON_INTERPRET=1 pytest tests/test_triton.py`; and to search for the worst rows,
`TRITON_INTERPRET=1 python tests/search.py --backend triton`.
"""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from backends import OF_FUNCTIONS, OF_SCRIPTS, by_triton, triton_on
from families import FAMILIES, begin
from numpy import inf, nan
from rows import Row
from search import PROMISE, evaluate
from worst_rows import WORST

from kd_notes import kd_loss_and_grad

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (IS_INTERPRETED or torch.cuda.is_available()):
    pytest.skip("there is no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)

import triton.language as tl  # noqa: E402

from kd_notes.torch import _drivers, _triton, kd_loss  # noqa: E402

DEVICE = "cpu" if IS_INTERPRETED else "cuda"
TEMPERATURES = [0.01, 4.0, inf]
EPS = float(np.finfo(np.float32).eps)

each_temperature = pytest.mark.parametrize("temperature", TEMPERATURES)


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Count the calls of the kernel: nothing here is to be computed by PyTorch unnoticed."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return _triton.by_triton(*args, **kwargs)

    monkeypatch.setattr(_drivers, "_import_triton_kernel", lambda: counted)
    return calls


def logits(rng, *shape):
    return rng.normal(scale=2, size=(2, *shape)).astype(np.float32)


def assert_near(actual, expected, units=8):
    """Compare to some units of the largest entry of each row."""
    with np.errstate(invalid="ignore"):
        for one, other in zip(actual, expected, strict=True):
            largest = abs(other) if other.ndim == 1 else abs(other).max(axis=1, keepdims=True)
            is_near = abs(one - other) <= units * EPS * largest
            assert (is_near | (one == other) | (np.isnan(one) & np.isnan(other))).all()


def in_float64(z, v, temperature, **options):
    return kd_loss_and_grad(z.astype(float), v.astype(float), temperature, **options)


def assert_promise(rows):
    scores = zip(rows, evaluate(rows, by_triton), strict=True)
    assert not [(row, score) for row, score in scores if score.both > PROMISE]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_promise_is_kept(family, rng, calls):
    assert_promise([begin(family, "float32", rng) for _ in range(4)])
    assert calls


def test_the_promise_is_kept_where_the_teachers_top_class_is_the_only_outlier():
    """The clipped mean from this class is far off; its square would cancel nearly all of S."""
    assert_promise([Row("float32", [5.0, 0.0], [0.001, 0.0], [1, 3000])])


@pytest.mark.slow
def test_the_worst_rows_of_earlier_searches_keep_the_promise():
    served = [row for row in WORST if row.dtype == "float32" and row.divergence == "forward_kl"]
    assert_promise(served)


@pytest.mark.parametrize("temperature", [4.0, inf])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("num_classes", [1, 2, _triton.CHUNK, _triton.CHUNK + 1])
def test_any_number_of_classes_is_served(num_classes, scaled, temperature, rng):
    z, v = logits(rng, 2, num_classes)
    args = z, v, temperature, scaled
    assert_near(by_triton(*args), in_float64(z, v, temperature, scaled=scaled))


@each_temperature
def test_the_top_class_may_be_in_any_chunk_and_in_several(temperature, rng, monkeypatch):
    monkeypatch.setattr(_triton, "CHUNK", 16)
    z, v = logits(rng, 4, 40)
    v[0, 0], v[1, -1], v[2, [5, -5]], z[3, -1] = 9, 9, 9, 30
    z[2, -5] = -inf
    assert_near(by_triton(z, v, temperature), kd_loss_and_grad(z, v, temperature), units=16)


@each_temperature
def test_excluded_and_invalid_classes_are_as_in_numpy(temperature, rng):
    z, v = logits(rng, 10, 40)
    z[0, 3] = v[0, 3] = v[1, 3] = z[2, 3] = -inf
    z[3, v[3].argmax()] = v[4, z[4].argmax()] = -inf
    z[5], v[6] = -inf, -inf
    z[7, 1], v[8, 2], z[9, 3] = nan, nan, inf
    assert_near(by_triton(z, v, temperature), kd_loss_and_grad(z, v, temperature), units=16)


@each_temperature
def test_equal_logits_cost_exactly_nothing(temperature, rng):
    z, _ = logits(rng, 3, 50)
    loss, grad = by_triton(z, z, temperature)
    assert not loss.any()
    assert not grad.any()


@pytest.mark.parametrize("teacher_temperature", [0.5, 8.0, inf])
def test_the_teacher_may_have_its_own_temperature(teacher_temperature, rng):
    z, v = logits(rng, 3, 50)
    v[0, 1] = -inf
    options = {"teacher_temperature": teacher_temperature}
    assert_near(by_triton(z, v, 2.0, **options), in_float64(z, v, 2.0, **options))


def tensors(rng, *shape, dtype=torch.float32):
    return [torch.tensor(x, device=DEVICE).to(dtype) for x in logits(rng, *shape)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(dtype, rng, calls):
    z, v = tensors(rng, 3, 50, dtype=dtype)
    with triton_on(DEVICE):
        assert torch.equal(kd_loss(z, v, 4.0), kd_loss(z.float(), v.float(), 4.0))
        assert torch.equal(kd_loss(z.float(), v, 4.0), kd_loss(z.float(), v.float(), 4.0))
    assert len(calls) == 4


def test_rows_may_lie_apart(rng, calls):
    z, v = tensors(rng, 6, 50)
    wide = torch.cat([z, v], dim=1)
    with triton_on(DEVICE):
        expected = kd_loss(z, v, 4.0)
        assert torch.equal(kd_loss(wide[:, :50], wide[:, 50:], 4.0), expected)
        assert torch.equal(kd_loss(z[::2], v[::2], 4.0), expected[::2])
        assert torch.equal(kd_loss(z[:1].expand(6, 50), v, 4.0)[0], expected[0])
        blocks = kd_loss(z.view(2, 3, 50), v.view(2, 3, 50), 4.0)
        assert torch.equal(blocks, expected.view(2, 3))
        assert kd_loss(z[:0], v[:0]).shape == (0,)
    assert len(calls) == 6


def test_what_the_kernel_does_not_serve_is_computed_by_pytorch(rng, calls):
    z, v = tensors(rng, 4, 50)
    with triton_on(DEVICE):
        kd_loss(z.double(), v)
        kd_loss(z, v, divergence="reverse_kl")
        kd_loss(z.T, v.T, class_dim=0)  # the classes are adjacent: it serves this one
        kd_loss(z, v, class_dim=0)
        torch.func.vmap(partial(kd_loss, class_dim=0), in_dims=1)(z, v)
        os.environ["KD_NOTES_TRITON"] = "0"
        kd_loss(z, v)
    kd_loss(z, v)
    assert len(calls) == 1


@pytest.mark.filterwarnings(
    OF_FUNCTIONS,
    OF_SCRIPTS,
)
def test_a_compiled_graph_is_computed_by_pytorch(rng, calls):
    z, v = tensors(rng, 4, 50)
    torch.compiler.reset()
    with triton_on(DEVICE):
        loss = torch.compile(kd_loss, fullgraph=True, backend="aot_eager")(z, v, 4.0)
        assert not calls
        torch.testing.assert_close(loss, kd_loss(z, v, 4.0), rtol=1e-5, atol=0)
    assert calls


@triton.jit
def exponentials(x, out, size: tl.constexpr):
    i = tl.arange(0, size)
    tl.store(out + i, _triton._exp(tl.load(x + i)))


def test_the_exponential_is_right_to_its_last_units():
    x = torch.linspace(-105, 4, 2**14, device=DEVICE)
    x[0] = -inf
    out = torch.empty_like(x)
    exponentials[(1,)](x, out, size=len(x), enable_fp_fusion=False)
    true = x.double().exp()
    # A GPU's exp2 has an error of at most two units; denormal numbers are exempt.
    assert bool(((out - true).abs() <= 2 * EPS * true + np.finfo(np.float32).tiny * EPS).all())


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kd_notes.torch._triton import _loss_and_slope

types = dict.fromkeys(_loss_and_slope.arg_names, "fp32")
types |= {"student": "*bf16", "teacher": "*fp16", "loss": "*fp32", "grad": "*fp32"}
types |= {"z_stride": "i64", "v_stride": "i32", "classes": "i32", "chunk": "constexpr"}
source = ASTSource(_loss_and_slope, types, {"chunk": 2048})
options = {"num_warps": 8, "enable_fp_fusion": False}
assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]
"""


@pytest.mark.slow
def test_it_compiles_for_a_gpu_that_is_not_here():
    environment = {k: x for k, x in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", COMPILE], check=True, env=environment)
