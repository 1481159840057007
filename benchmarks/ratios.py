"""How many times as long as `kd_notes` the others take, and how much that varies."""

import numpy as np

OTHERS = ["SciPy", "PyTorch", "torch.compile", "JAX", "addition"]


def ratios(timed):
    """Return how many times as long as `kd_notes` the others take, by the way that it is called.

    A ratio is the geometric mean over shapes and dtypes; of the rounds, it is the median, the
    least and the most. Also the number of cases in which the other is faster.
    """
    temperatures = sorted({case["temperature"] for case in timed})
    own = [name for name in timed[0]["seconds"] if name.startswith("kd_notes")]
    return {
        name: {other: [ratio(timed, name, other, t) for t in temperatures] for other in OTHERS}
        for name in own
    }


def ratio(timed, name, other, temperature):
    pairs = [
        [case["seconds"][which] for which in (name, other)]
        for case in timed
        if case["temperature"] == temperature
    ]
    by_case = np.array([np.divide(others, own) for own, others in pairs])
    by_round = np.exp(np.log(by_case).mean(axis=0))
    return {
        "temperature": temperature,
        "ratio": float(np.median(by_round)),
        "least": float(by_round.min()),
        "most": float(by_round.max()),
        "faster": sum(bool(np.median(others) < np.median(own)) for own, others in pairs),
        "cases": len(pairs),
    }
