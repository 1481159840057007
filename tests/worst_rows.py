"""The worst rows that searches have found, for one kernel or another: they keep the promise."""

from numpy import inf
from rows import Row

WORST = [
    Row("float32", [3.3, 0.1, 0.3], [10000.0, 0.0, 0.0], [1, 1, 1]),
    Row("float32", [104.43004, 1.0602074], [103.94559, 0.0], [1, 1]),
    Row("float32", [0.0, 0.0, -10000.0], [0.0, 0.0, -10.0], [1, 1, 1]),
    Row("float64", [0.0, 0.0, -10000.0], [0.0, 0.0, -10.0], [1, 1, 1]),
    Row("float32", [1e20, 0.0, 0.0], [0.0, 0.0, 0.0], [1, 1, 1], tau=inf),
    Row("float32", [3.3, 0.1, 0.3], [1.0, 0.0, 0.5], [1, 1, 1], tau=1e21),
]
