"""What pytest does not collect where PyTorch is not installed."""

from importlib.util import find_spec

if find_spec("torch") is None:
    collect_ignore = [
        "kd_notes/torch",
        "notebooks/12_in_pytorch.ipynb",
        "tests/planted_torch_losses.py",
    ]
