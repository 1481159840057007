"""Which engine computes losses: NumPy alone, or compiled loops, and in how many threads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

from kd_notes._checks import as_count

__all__ = ["set_engine"]

ENGINES = ("auto", "compiled", "numpy")
LEAST = 2**16  # logits for each thread: a thread less is quicker than one with fewer


class Engine(NamedTuple):
    """What computes: whether compiled loops may, and in how many threads."""

    is_compiled: bool
    threads: int


_engine: Engine | None = None  # chosen at the first use, so that this does not import Numba


def set_engine(engine: str = "auto", *, threads: int | None = None) -> None:
    """Choose what computes the losses of distillation and their gradients.

    Parameters
    ----------
    engine
        `"numpy"`: NumPy. `"compiled"`: the forward KL of more than 64 classes in loops that
        Numba compiles, everything else by NumPy. `"auto"`: `"compiled"` where Numba is
        installed, as it is after `pip install "kd-notes[fast]"`, and `"numpy"` elsewhere.
        Where this function is not called, the environment variable `KD_NOTES_ENGINE` gives
        the engine, and `"numpy"` is what it is without that.
    threads
        How many threads share the rows of a batch. By default 1 for `"numpy"`; for `"compiled"`
        the environment variable `OMP_NUM_THREADS`, or one for each processor.

    Raises
    ------
    ValueError
        If there is no such engine, or `threads` is less than 1.
    TypeError
        If `threads` is not an integer.
    ImportError
        If `"compiled"` is chosen and Numba is not installed.

    Notes
    -----
    Both engines keep the same promise of accuracy, but their results may differ in the last
    digits. With either, the result of a row depends on that row alone: the number of threads
    changes no bit. The loops are compiled when they are first needed, which takes some seconds,
    and stored on disk.

    Examples
    --------
    >>> from kd_notes._engine import set_engine
    >>> set_engine("numpy")
    """
    global _engine
    _engine = _chosen(engine, threads)


def current_engine() -> Engine:
    """Return the engine that was chosen, by `set_engine` or by the environment."""
    global _engine
    if _engine is None:
        _engine = _chosen(os.environ.get("KD_NOTES_ENGINE", "numpy"), None)
    return _engine


def _chosen(engine: str, threads: int | None) -> Engine:
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {[*ENGINES]}; got {engine!r}")
    has_numba = find_spec("numba") is not None
    if engine == "compiled" and not has_numba:
        raise ImportError('the compiled engine needs Numba: pip install "kd-notes[fast]"')
    is_compiled = has_numba and engine != "numpy"
    if threads is None:
        return Engine(is_compiled, _processors() if is_compiled else 1)
    return Engine(is_compiled, as_count("threads", threads))


def _processors() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else os.cpu_count() or 1


def in_parts(compute: Callable[[slice], None], rows: int, classes: int) -> None:
    """Call a function for all rows, or for some at once in each of several threads."""
    threads = min(current_engine().threads, rows, rows * classes // LEAST)
    if threads <= 1:
        compute(slice(0, rows))
        return
    ends = [rows * i // threads for i in range(threads + 1)]
    parts = [slice(*pair) for pair in itertools.pairwise(ends)]
    others = [_pool().submit(compute, part) for part in parts[1:]]
    compute(parts[0])
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="kd_notes")


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
