"""Which engine computes losses: NumPy alone, or compiled loops too, and in how many threads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from kd_notes._checks import as_count

ENGINES = ("auto", "compiled", "numpy")
VARIABLE = "KD_NOTES_ENGINE"  # of the environment
LEAST = 2**16  # logits for each thread: with fewer, starting it costs more than it saves


class _Engine(NamedTuple):
    may_compile: bool
    threads: int


_engine: _Engine | None = None  # chosen at the first use: the environment may change until then


def set_engine(engine: str = "auto", *, threads: int | None = None) -> None:
    """Choose what computes the distillation losses and their gradients, and in how many threads.

    Parameters
    ----------
    engine
        `"numpy"`: NumPy alone. `"compiled"`: loops that Numba compiles, but for what the notes
        name. `"auto"`: `"compiled"` where Numba can be imported, as after
        `pip install ".[fast]"` in a clone, and `"numpy"` elsewhere. Before the first call of this
        function, the engine is that of the environment variable `KD_NOTES_ENGINE`, or `"auto"`.
    threads
        How many threads share the rows of a batch. If not given: 1 for `"numpy"`, and where Numba
        is not installed; otherwise the environment variable `OMP_NUM_THREADS`, or as many as
        there are processors.

    Raises
    ------
    ValueError
        If there is no such engine, or `threads` is less than 1.
    TypeError
        If `threads` is not an integer.
    ImportError
        If the engine is `"compiled"`, and Numba cannot be imported.

    Notes
    -----
    The choice holds for the whole process, and for `kd_notes.torch` on tensors of a CPU.
    Both engines are held to the same accuracy, at most 16 eps times one plus the condition
    number, but their results may differ in the last digits. With either, the result of a row
    depends on that row alone, so that the number of threads changes no bit.

    With `"compiled"`, NumPy still computes at infinite temperature, for alpha below -1, above 2
    or within 1e-6 of 0, and for mixtures with a weight below 1e-6. Of divergences other than
    forward KL it also computes the rows that have a class excluded by one network alone, or logits
    so many temperatures apart that a ratio of probabilities nears the largest number.

    The loops are compiled when they are first needed, for each dtype and divergence, which takes
    some seconds. They are stored beside the package, or in the user's cache directory where that
    cannot be written, or in `NUMBA_CACHE_DIR`.

    Examples
    --------
    >>> import numpy as np
    >>> from kd_notes import kd_loss, set_engine
    >>> set_engine("numpy", threads=2)
    >>> kd_loss(np.zeros((3, 1000)), np.zeros((3, 1000)))
    array([0., 0., 0.])
    >>> set_engine("numpy")
    """
    global _engine
    _engine = _chosen("engine", engine, threads)


def _chosen(name: str, engine: str, threads: int | None = None) -> _Engine:
    if engine not in ENGINES:
        raise ValueError(f"{name} must be one of {[*ENGINES]}; got {engine!r}")
    if engine == "compiled" and isinstance(loops := _loops(), ImportError):
        raise ImportError(
            f'{name} "compiled" needs Numba, as of pip install "kd-notes[fast]"; got: {loops}'
        ) from loops
    may_compile = engine != "numpy" and find_spec("numba") is not None
    if threads is None:
        return _Engine(may_compile, _processors() if may_compile else 1)
    return _Engine(may_compile, as_count("threads", threads))


def _processors() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    allowed = getattr(os, "sched_getaffinity", None)  # fewer than all in a container
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _current() -> _Engine:
    global _engine
    if _engine is None:
        _engine = _chosen(VARIABLE, os.environ.get(VARIABLE, "auto"))
    return _engine


def compiled_loops(of_forward_kl: bool = True) -> ModuleType | None:
    """Return the module of compiled loops, or None where NumPy computes."""
    if not _current().may_compile:
        return None
    loops = _loops(of_forward_kl)
    return None if isinstance(loops, ImportError) else loops


@cache
def _loops(of_forward_kl: bool = True) -> ModuleType | ImportError:
    """Import the compiled loops, or return why they cannot be: Numba may be too old for NumPy."""
    name = "_compiled" if of_forward_kl else "_compiled_divergences"
    try:
        return import_module(f"kd_notes.{name}")
    except ImportError as error:
        return error


def in_parts(compute: Callable[[slice], None], rows: int, classes: int) -> None:
    """Call a function for all rows, or for some at once in each of several threads."""
    threads = min(_current().threads, rows, rows * classes // LEAST)
    if threads <= 1:
        compute(slice(0, rows))
        return
    ends = [rows * i // threads for i in range(threads + 1)]
    first, *others = (slice(*pair) for pair in itertools.pairwise(ends))
    begun = [_pool().submit(compute, part) for part in others]
    try:
        compute(first)
    finally:
        for other in begun:
            other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="kd_notes")


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
