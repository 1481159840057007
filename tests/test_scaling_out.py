"""Beyond memory and beyond one process: the functions as they are, and the same bits."""

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
from dask.distributed import Client, LocalCluster
from numpy.testing import assert_array_equal

from kd_notes import kd_grad, kd_loss, kd_loss_and_grad

# RLIMIT_DATA counts what a process allocates, and not the pages of a file that it maps.
IN_LITTLE_MEMORY = """
import resource
import sys
from pathlib import Path

import numpy as np
from kd_notes import kd_loss_and_grad

folder = Path(sys.argv[1])
used = 1024 * int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
limit = used + 48 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

student, teacher = (np.load(folder / name, mmap_mode="r") for name in sys.argv[2:])
out = np.lib.format.open_memmap(folder / "grad.npy", "w+", student.dtype, student.shape)
loss, _ = kd_loss_and_grad(student, teacher, 4.0, out=out)
np.save(folder / "loss.npy", loss)
try:
    np.array(student)
except MemoryError:
    print("the file itself does not fit")
"""


@pytest.mark.slow
def test_files_larger_than_memory_stream_through(tmp_path, rng):
    names = ["student.npy", "teacher.npy"]
    for name in names:
        logits = rng.standard_normal((34_000, 1000), dtype=np.float32)
        assert logits.nbytes > 128 * 2**20
        np.save(tmp_path / name, logits)
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, tmp_path, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "the file itself does not fit\n"

    rows = [0, 1, 12_345, 33_999]
    student, teacher, loss, grad = (
        np.load(tmp_path / name, mmap_mode="r")[rows] for name in [*names, "loss.npy", "grad.npy"]
    )
    expected_loss, expected_grad = kd_loss_and_grad(student, teacher, 4.0)
    assert_array_equal(loss, expected_loss)
    assert_array_equal(grad, expected_grad)


def test_blocks_on_a_cluster_give_the_same_bits_as_one_process(rng):
    logits = rng.normal(scale=3, size=(2, 3000, 40)).astype(np.float32)
    student, teacher = (da.from_array(array, chunks=(700, 40)) for array in logits)
    losses = da.map_blocks(
        kd_loss, student, teacher, temperature=4.0, drop_axis=1, dtype=student.dtype
    )
    grads = da.map_blocks(kd_grad, student, teacher, temperature=4.0, dtype=student.dtype)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        loss, grad = da.compute(losses, grads)
    assert_array_equal(loss, kd_loss(*logits, 4.0))
    assert_array_equal(grad, kd_grad(*logits, 4.0))
