"""A training set larger than memory, or of more patients than a process may open files, is read from its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from a2fseg_cli.training.data import CachedSample, _mapped

WHERE = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def write_sample(folder: Path, index: int, shape: tuple[int, int, int]) -> CachedSample:
    """Write a patient of two modalities, zeros that take no room on the disk, and its number in the first voxel."""
    files = folder / f"{index}.images.npy", folder / f"{index}.classes.npy"
    for file, size, kind in ((files[0], (2, *shape), np.float16), (files[1], shape, np.uint8)):
        array = np.lib.format.open_memmap(file, "w+", dtype=kind, shape=size)
        array.ravel()[0] = index % 250
        array.flush()
    return CachedSample(f"p{index}", *files, (True, True), ())


@WHERE
def test_patients_of_the_cache_do_not_keep_their_files_open(tmp_path: Path) -> None:
    """200 patients, 400 files: 64 stay open at most, and what is read is each one's own."""
    samples = [write_sample(tmp_path, index, (3, 3, 3)) for index in range(200)]
    _mapped.cache_clear()
    before = len(os.listdir("/proc/self/fd"))
    for index, sample in enumerate(samples):
        assert sample.images.shape == (2, 3, 3, 3)
        assert (sample.images[0, 0, 0, 0], sample.classes[0, 0, 0]) == (index, index)
    assert len(os.listdir("/proc/self/fd")) - before == 64
    _mapped.cache_clear()
    assert len(os.listdir("/proc/self/fd")) == before


TRAINING = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_large_training_set import write_sample
from training_toys import trainer
folder = Path(sys.argv[1])
samples = [write_sample(folder, index, (128, 160, 160)) for index in range(480)]
size = sum(path.stat().st_size for path in folder.glob("*.npy"))
peak = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
limit = peak + 2 * 2**30
assert size > 2 * limit, (size, limit)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
one = trainer(folder / "run", train=samples, validation=[])
for step in range(20):
    assert one.step() >= 0
print(size, limit, one.state.step)
"""


@WHERE
@pytest.mark.slow
def test_a_training_set_larger_than_the_address_space_trains(tmp_path: Path) -> None:
    """480 patients of 16 MB, 7.9 GB in all, where 2 GiB more may be mapped than Python and torch have already."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path)], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    size, limit, steps = map(int, done.stdout.split())
    assert (size > limit, steps) == (True, 20)
