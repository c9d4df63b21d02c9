"""The processes that train one network together, as `torchrun` starts them: who they are and how they talk."""

from __future__ import annotations

import atexit
import importlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from a2fseg_cli.errors import A2FSegError, UsageError, is_out_of_memory

Item = TypeVar("Item")

# The others wait for the slowest, which may be preprocessing its share of the patients.
_PATIENCE = timedelta(hours=2)
_LOST = (
    "a process of this training is gone: it ended with an error of its own, or was killed. All end with it. Start all "
    "again with resume; what was trained since the last epoch is done anew."
)


class ProcessLostError(A2FSegError):
    """Another process of a training is gone; its text is empty in all but the first process that noticed it."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; alone by default.

    Attributes:
        rank: 0 for the one that writes.
        size: Number of processes.
        store: What torchrun keeps for all of them, and outlives each.
    """

    rank: int = 0
    size: int = 1
    store: Any = field(default=None, compare=False, repr=False)

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return which of the items are this process's."""
        return items[self.rank :: self.size]

    def collect(self, shares: Sequence[Item]) -> list[Item]:
        """Return every process's results for its `share` of the items, in the order of the items."""
        if self.size == 1:
            return list(shares)
        every: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(every, list(shares))
        count = sum(map(len, every))
        return [every[index % self.size][index // self.size] for index in range(count)]

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Make every parameter's gradient the sum over all processes, in one message.

        A parameter that no process has a gradient of, such as an encoder whose modality no crop of the step has,
        keeps None, as it would in one process.
        """
        if self.size == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=gradients[0].device)
        message = torch.cat([*(gradient.reshape(-1) for gradient in gradients), has])
        with self._together():
            dist.all_reduce(message)
        parts = torch.split(message, [*(gradient.numel() for gradient in gradients), len(has)])
        for parameter, part, count in zip(parameters, parts, parts[-1].tolist(), strict=False):
            parameter.grad = part.reshape(parameter.shape).to(memory_format=_layout(parameter)) if count else None

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Make what gloo or nccl say in the block, when a process is gone, one error. Raises: ProcessLostError."""
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise ProcessLostError(_LOST if self._first_to_say() else "") from error

    def _first_to_say(self) -> bool:
        try:
            return self.store is None or self.store.add("a2fseg/lost", 1) == 1
        except RuntimeError:  # the store is gone too
            return True

    def sum(self, value: float) -> float:
        """Return the sum of every process's value."""
        return sum(self.collect([value]))

    def from_first(self, value: float) -> float:
        """Return the value that process 0 has."""
        return self.collect([value])[0]

    def wait(self) -> None:
        """Return once every process has come here."""
        self.collect([0])


def _layout(parameter: Tensor) -> torch.memory_format:
    five = parameter.ndim == 5 and parameter.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if five else torch.contiguous_format


def device_of_process(device: str) -> str:
    """Return the device a process should ask for: under torchrun `auto` and `cuda` are one card a process.

    Raises:
        UsageError: one card is asked for by number, for all processes of a machine.
    """
    local = os.environ.get("LOCAL_RANK")
    if _variable("WORLD_SIZE", 1, 1) == 1 or not local:
        return device
    if device.startswith("cuda:") and _variable("LOCAL_WORLD_SIZE", 1, 1) > 1:
        raise UsageError(f"device {device}: torchrun gives each process a card of its own. Take cuda.")
    return f"cuda:{local}" if torch.cuda.is_available() and device in ("auto", "cuda") else device


def _variable(name: str, default: int, least: int, most: float = math.inf) -> int:
    """Return the whole number in a variable of the environment. Raises: UsageError for anything else."""
    text = os.environ.get(name, str(default))
    with suppress(ValueError):
        if least <= int(text) <= most:
            return int(text)
    upto = f" to {most:g}" if most < math.inf else ""
    raise UsageError(f"{name} {text}: expected a whole number from {least}{upto}; torchrun sets it.")


def join_processes() -> Processes:
    """Return the processes that torchrun started, connected; this one alone where it did not.

    CPU tensors go through gloo, CUDA tensors through nccl.

    Raises:
        UsageError: torchrun's variables are incomplete, or not the numbers they should be.
    """
    size = _variable("WORLD_SIZE", 1, 1)
    if size == 1:
        return Processes()
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(f"WORLD_SIZE is {size}, but {missing[0]} is not set: start several processes with torchrun.")
    _variable("RANK", 0, 0, size - 1)
    _variable("MASTER_PORT", 0, 0, 65535)
    if not dist.is_initialized():
        # torch.optim imports the compiler at its first step. A group that is older than that import outlives
        # destroy_process_group, and gloo's threads, not joined, may abort the process while Python ends.
        importlib.import_module("torch._dynamo")
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        store, rank, _ = next(rendezvous("env://", timeout=_PATIENCE))
        # torchrun keeps its store over a restart, with the addresses of the processes before: one of two restarts
        # read one of these, and "Connection refused" ended it.
        store = dist.PrefixStore(f"a2fseg/{_restarts()}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, timeout=_PATIENCE, store=store, rank=rank, world_size=size)
        atexit.register(dist.destroy_process_group)
        return Processes(rank, size, store)
    return Processes(dist.get_rank(), dist.get_world_size())


def restarted() -> bool:
    """Return whether torchrun has started these processes again, after one of them was lost (`max-restarts`)."""
    return _restarts() > 0


def _restarts() -> int:
    return _variable("TORCHELASTIC_RESTART_COUNT", 0, 0)
