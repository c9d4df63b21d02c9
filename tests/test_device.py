"""Which device and precision are taken, and how memory is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from a2fseg_cli.cli.runtime import prepare_process
from a2fseg_cli.core import device as device_module
from a2fseg_cli.core import memory as memory_module
from a2fseg_cli.core.device import Compute, choose_compute, has_native_bf16
from a2fseg_cli.core.memory import available_memory_bytes
from a2fseg_cli.errors import ResourceError, UsageError, is_out_of_memory, naming_out_of_memory

CPU = torch.device("cpu")
LINUX = sys.platform.startswith("linux")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3", "mps"])
def test_a_device_that_is_not_there_is_never_replaced(name: str) -> None:
    with pytest.raises(UsageError, match=f"^device {name}: .*Take auto or cpu"):
        choose_compute(name)


def test_a_card_number_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert choose_compute("cuda:1").device == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="found 2 CUDA devices"):
        choose_compute("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "cpu:1", "auto:0", "cuda:", "cuda:x", "cuda:-1", "xla", "meta"])
def test_names_that_are_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda, cuda:N or mps"):
        choose_compute(name)


@pytest.mark.parametrize("precision", ["", "half", "float32", "FP32", "int8"])
def test_names_that_are_no_precision(precision: str) -> None:
    with pytest.raises(UsageError, match="expected auto, fp32, bf16 or fp16"):
        choose_compute("cpu", precision)


def test_fp16_is_refused_on_a_cpu() -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        choose_compute("cpu", "fp16")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize(
    ("native", "precision", "dtype"), [(True, "bf16", torch.bfloat16), (False, "fp32", torch.float32)]
)
def test_auto_takes_bf16_only_where_it_is_native(
    device: str, native: bool, precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "has_native_bf16", lambda: native)
    compute = choose_compute(device)
    assert (compute.device, compute.precision, compute.dtype) == (CPU, precision, dtype)
    assert ("no native bf16" in compute.reason) == (not native)
    assert choose_compute(device, "fp32").precision == "fp32"
    assert choose_compute(device, "bf16").precision == "bf16"


@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "bf16"), ((9, 0), "bf16"), ((7, 5), "fp16")])
def test_auto_on_a_card(capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    compute = choose_compute()
    assert (compute.device.type, compute.precision, compute.reason) == ("cuda", precision, "found a card")


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="no /proc/cpuinfo to compare with")
def test_native_bf16_is_what_the_processor_says() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    assert not has_native_bf16() or "avx512_bf16" in flags


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_convolutions_run_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    with Compute(CPU, precision, "").autocast():
        y = torch.nn.functional.conv3d(torch.ones(1, 1, 3, 3, 3), torch.ones(1, 1, 3, 3, 3))
    assert (y.dtype, y.item()) == (dtype, 27)


def test_a_real_failure_to_allocate_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(too_much.value)
    with pytest.raises(RuntimeError) as mismatch:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(mismatch.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (ImportError("libx.so: failed to map segment from shared object"), True),
        (ImportError("libx.so: cannot allocate memory in static TLS block"), True),
        (ImportError("No module named 'torch'"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_what_the_memory_ran_out_for_is_named() -> None:
    words = "case 7 could not be read"
    with pytest.raises(ResourceError, match=f"Out of memory: {words}"), naming_out_of_memory(words):
        raise RuntimeError("std::bad_alloc")
    with pytest.raises(RuntimeError, match="a bug"), naming_out_of_memory(words):
        raise RuntimeError("a bug")


def test_signs_of_no_memory_are_free_of_torch() -> None:
    """The command's last line of defence, for when the libraries themselves did not load."""
    code = "import sys, a2fseg_cli.errors, a2fseg_cli.core.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_available_memory_is_positive_and_within_the_machine() -> None:
    available = available_memory_bytes(CPU)
    assert available > 2**20
    if LINUX:
        total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
        assert available < total


@pytest.mark.skipif(not LINUX, reason="control groups are Linux's")
def test_a_containers_limit_without_the_pages_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB allowed, 90 used, 50 of them pages of files that give way: 60 MB are free."""
    monkeypatch.setattr(memory_module, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("100000000\n")
    (tmp_path / "memory.current").write_text("90000000\n")
    (tmp_path / "memory.stat").write_text("anon 40000000\nfile 50000000\ninactive_file 50000000\n")
    kept = memory_module._kept_bytes()
    assert available_memory_bytes(CPU) == pytest.approx(60_000_000 + kept, abs=5e6)
    (tmp_path / "memory.current").write_text("190000000\n")
    assert available_memory_bytes(CPU) == pytest.approx(kept, abs=5e6)
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory_bytes(CPU) > 100_000_000


@pytest.mark.skipif(not Path("/lib/x86_64-linux-gnu/libc.so.6").exists(), reason="needs glibc")
def test_pages_are_kept() -> None:
    """100 MB that were written to and freed still belong to the process."""
    code = """
from pathlib import Path
from a2fseg_cli.core.memory import keep_pages
keep_pages()
def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
large = b"x" * 100_000_000
before = resident_mb()
del large
assert resident_mb() > before - 10, (before, resident_mb())
"""
    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.skipif(not Path("/lib/x86_64-linux-gnu/libc.so.6").exists(), reason="needs glibc 2.33")
def test_pages_that_are_kept_count_as_free() -> None:
    """1 GB that was written to and freed is taken for the system, and free for us; while it is held, for neither.

    Both are read one after the other: what other processes take meanwhile shows in both.
    """
    code = """
import torch
from pathlib import Path
from a2fseg_cli.core.memory import available_memory_bytes, keep_pages
keep_pages()
def beyond_the_system():
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return available_memory_bytes(torch.device("cpu")) - int(fields["MemAvailable"].split()[0]) * 1024
before = beyond_the_system()
large = torch.ones(1_000_000_000, dtype=torch.uint8)
held = beyond_the_system() - before
del large
freed = beyond_the_system() - before
assert abs(held) < 0.2e9, held
assert 0.8e9 < freed < 1.2e9, freed
"""
    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_algorithms_are_tried_where_asked_unless_deterministic() -> None:
    """cuDNN's autotuning pays for crops of one size, costs time for brains of many, and is not deterministic."""
    try:
        states = []
        for settings in ({"autotune": True}, {}, {"autotune": True, "deterministic": True}):
            prepare_process(**settings)
            states.append(torch.backends.cudnn.benchmark)
    finally:
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(False)
    assert states == [True, False, False]


@pytest.mark.cuda
def test_memory_of_a_card() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert 0 < available_memory_bytes(torch.device("cuda")) <= torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(too_much.value)


@pytest.mark.skipif(sys.platform != "linux", reason="asks GNU OpenMP, which torch has on Linux")
@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_let_the_core_go_unless_the_user_says_otherwise(own: str | None, expected: str) -> None:
    """The library itself says what it read when torch loaded."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | {"OMP_DISPLAY_ENV": "TRUE"}
    environment |= {"OMP_WAIT_POLICY": own} if own else {}
    code = "from a2fseg_cli.cli.runtime import prepare_process; prepare_process()"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert f"OMP_WAIT_POLICY = '{expected}'" in run.stderr
