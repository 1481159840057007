"""What every test shares: the same random numbers and examples in each run."""

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("kd_notes", derandomize=True, deadline=None, database=None)
settings.load_profile("kd_notes")


@pytest.fixture
def rng():
    return np.random.default_rng(20240807)
