"""The engine of tests and chapters, and what is not collected where PyTorch is not installed."""

import os
from importlib.util import find_spec

# The stored outputs are the digits of NumPy; tests of the compiled engine choose it themselves.
os.environ.setdefault("KD_NOTES_ENGINE", "numpy")

if find_spec("torch") is None:
    collect_ignore = [
        "kd_notes/torch",
        "notebooks/12_in_pytorch.ipynb",
        "tests/planted_torch_losses.py",
    ]
