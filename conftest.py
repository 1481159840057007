"""The engine of tests and chapters, their order, and what lacks PyTorch, Numba or Triton."""

import os
from importlib.util import find_spec

# The stored outputs are the digits of NumPy; tests of the compiled engine choose it themselves.
os.environ.setdefault("KD_NOTES_ENGINE", "numpy")

collect_ignore = []
if find_spec("torch") is None:
    collect_ignore += [
        "kd_notes/torch",
        "notebooks/12_in_pytorch.ipynb",
        "tests/live_memory.py",
        "tests/planted_torch_losses.py",
    ]
if find_spec("numba") is None:
    collect_ignore += ["kd_notes/_compiled.py", "kd_notes/_compiled_divergences.py"]
if find_spec("triton") is None:
    collect_ignore += ["kd_notes/torch/_triton.py"]


def pytest_collectstart(collector):
    """Leave out SVG where nbval compares outputs, as it leaves out bitmaps by itself.

    A figure of rounding errors, as in chapter 14, differs between processors.
    """
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("image/svg+xml",)


def pytest_collection_modifyitems(items):
    """Compile the loops in one process, and store them before another needs them."""
    items.sort(key=lambda item: item.path.name != "test_engine.py")
