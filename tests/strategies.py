"""Random arguments for the laws.

Logits are multiples of 1/16, so that a shift by a whole number, a permutation and the
difference of two logits are exact, and a law needs a tolerance for the library's rounding alone.
"""

import numpy as np
from hypothesis import strategies as st

SHIFTS = st.integers(-1000, 1000)
TEMPERATURES = st.sampled_from([0.5, 1.0, 3.0, 20.0, 1e3, 1e6])
ALPHAS = st.floats(0, 1)

_logit = st.integers(-256, 256).map(lambda n: n / 16)
LOGIT_PAIRS = st.lists(st.tuples(_logit, _logit), min_size=2, max_size=7).map(
    lambda pairs: tuple(np.array(pairs).T)
)


def _normalized(pairs):
    weights = np.array(pairs, float).T
    return tuple(weights / weights.sum(axis=-1, keepdims=True))


_weights = st.tuples(st.integers(1, 99), st.integers(1, 99))
DISTRIBUTION_PAIRS = st.lists(_weights, min_size=2, max_size=7).map(_normalized)
