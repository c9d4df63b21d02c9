"""Where and how precisely the network computes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from a2fseg_cli.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device, a precision, and why they were taken."""

    device: torch.device
    precision: str
    reason: str

    @property
    def name(self) -> str:
        """What computes, for messages and tables."""
        return str(self.device)

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
        UsageError: a name that is none of these, or the device asked for is not there.
    """
    chosen, reason = _choose_device(device)
    if precision not in ("auto", *DTYPES):
        raise UsageError(f"precision {precision}: expected auto, fp32, bf16 or fp16.")
    if precision != "auto":
        if precision == "fp16" and chosen.type == "cpu":
            raise UsageError("precision fp16 needs a GPU; on a CPU take bf16 or fp32.")
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
        raise UsageError(f"device {name}: expected auto, cpu, cuda, cuda:N or mps.")
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
        raise UsageError(f"device {name}: expected auto, cpu, cuda, cuda:N or mps.") from error
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            why = "" if torch.version.cuda else " (this torch is built without CUDA)"
            raise UsageError(f"device {name}: found {count} CUDA devices{why}. Take auto or cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps: no Apple GPU found. Take auto or cpu.")
    return device, "as asked"
