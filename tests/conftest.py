"""What every test shares: the same random numbers and examples in each run."""

from contextlib import nullcontext

import numpy as np
import pytest
from backends import branchless
from hypothesis import settings

settings.register_profile("kd_notes", derandomize=True, deadline=None, database=None)
settings.load_profile("kd_notes")


@pytest.fixture
def rng():
    return np.random.default_rng(20240807)


@pytest.fixture(params=["eager", "branchless"])
def mode(request):
    """Let `kd_notes.torch` compute by the NumPy core, and then as on another device."""
    with branchless() if request.param == "branchless" else nullcontext():
        yield
