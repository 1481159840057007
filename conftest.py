"""The engine of tests and chapters, and what is not collected for want of PyTorch or Triton."""

import os
from importlib.util import find_spec

# The stored outputs are the digits of NumPy; tests of the compiled engine choose it themselves.
os.environ.setdefault("KD_NOTES_ENGINE", "numpy")

collect_ignore = []
if find_spec("torch") is None:
    collect_ignore += [
        "kd_notes/torch",
        "notebooks/12_in_pytorch.ipynb",
        "tests/planted_torch_losses.py",
    ]
if find_spec("triton") is None:
    collect_ignore += ["kd_notes/torch/_triton.py"]
