"""Where and how precisely the network computes, and a memory allocator that keeps its pages."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from a2fseg_cli.errors import ResourceError, UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

CGROUP = Path("/sys/fs/cgroup")  # a container's memory limit, where Linux has one


@dataclass(frozen=True)
class Compute:
    """A device, a precision, and why they were taken."""

    device: torch.device
    precision: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the network's maps."""
        return DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context under which convolutions run in `dtype`."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.precision != "fp32")


def has_native_bf16() -> bool:
    """Return whether the CPU multiplies bf16 in hardware; elsewhere it is emulated and slower than fp32."""
    cpu = torch.backends.cpu.get_cpu_capability()
    if cpu.startswith("AVX512"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())
    return False


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """Return the device and precision for a request.

    `auto` takes CUDA, then MPS, then the CPU; a device asked for by name never falls back.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto (bf16 where it is native, fp16 on other CUDA cards, else fp32), fp32, bf16 or fp16.

    Raises:
        UsageError: a name that is none of these.
        ResourceError: the device asked for is not there.
    """
    chosen, reason = _choose_device(device)
    if precision not in ("auto", *DTYPES):
        raise UsageError(f"--precision {precision}: expected auto, fp32, bf16 or fp16.")
    if precision != "auto":
        if precision == "fp16" and chosen.type == "cpu":
            raise UsageError("--precision fp16 needs a GPU; on a CPU take bf16 or fp32.")
        return Compute(chosen, precision, reason)
    if chosen.type == "cuda":
        native = torch.cuda.get_device_capability(chosen) >= (8, 0)
        return Compute(chosen, "bf16" if native else "fp16", reason)
    if chosen.type == "cpu" and has_native_bf16():
        return Compute(chosen, "bf16", f"{reason}; native bf16")
    return Compute(chosen, "fp32", f"{reason}; no native bf16")


def _choose_device(name: str) -> tuple[torch.device, str]:
    kind = name.split(":")[0]
    if kind not in ("auto", "cpu", "cuda", "mps") or (kind in ("auto", "cpu") and name != kind):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps.")
    if kind == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"found {torch.cuda.get_device_name()}"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "found an Apple GPU"
        why = "no CUDA device found" if torch.version.cuda else "this torch is built without CUDA"
        return torch.device("cpu"), f"{torch.get_num_threads()} threads; {why}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps.") from error
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            why = "" if torch.version.cuda else " (this torch is built without CUDA)"
            raise ResourceError(f"--device {name}: found {count} CUDA devices{why}. Take --device auto or cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ResourceError("--device mps: no Apple GPU found. Take --device auto or cpu.")
    return device, "as asked"


def keep_pages() -> None:
    """Make the C allocator keep freed pages, in huge ones where the kernel allows; Linux with glibc only.

    A fresh large tensor costs more in page faults than the arithmetic on it: kept pages took one whole-brain
    pass of the bundled network from 0.41 to 0.32 s, huge pages to 0.23 s. Call before the first tensor.
    """
    if not sys.platform.startswith("linux"):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_max = -1, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out; torch has no type of its own for it but on CUDA."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    torch_signs = ("DefaultCPUAllocator", "could not create a primitive", "MPS backend out of memory")
    cuda_signs = ("CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
    signs = (*torch_signs, *cuda_signs, "std::bad_alloc", "Failed to allocate memory")  # the last two: C++, ITK
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


@contextmanager
def naming_out_of_memory(what: str) -> Iterator[None]:
    """Make an error of the block that says that memory ran out one that says of what. Raises: ResourceError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(f"Out of memory: {what}. Close other programs or take another machine.") from error


def available_memory_bytes(device: torch.device) -> int:
    """Return how much memory a computation on the device may take now: free on the card, or on the host.

    On Linux the host's figure is MemAvailable, lowered to what a container's limit leaves. The container is
    charged for the files it has read too; pages of files not in use give way, so they count as free. So does what
    this process keeps for its next tensors: one patient after another has the same windows, and the same mask.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    candidates = []
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        candidates.append(int(fields["MemAvailable"].split()[0]) * 1024)
        used = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        free = int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text())
        candidates.append(free + int(used["inactive_file"]))
    except (OSError, KeyError, ValueError):  # not Linux, or no limit ("max")
        pass
    return max(0, min(candidates)) + _kept_bytes() if candidates else 4 * 2**30


class _Mallinfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns: ten sizes, the eighth and ninth those of the used and the free blocks."""

    _fields_ = [("sizes", ctypes.c_size_t * 10)]


def _kept_bytes() -> int:
    """Return how much the C allocator holds in memory that no tensor uses; 0 where it does not say so."""
    try:
        mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        resident = int(fields["RssAnon"].split()[0]) * 1024
    except (OSError, AttributeError, KeyError, ValueError):
        return 0
    mallinfo.restype = _Mallinfo
    used, free = mallinfo().sizes[7:9]
    return int(min(free, max(0, resident - used)))  # free blocks that were never touched are the system's
