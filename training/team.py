"""The processes that train together: one alone, or as many as torchrun starts, one for each GPU."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class Team:
    """rank: of this process, 0 writes the files; size: how many processes there are; device: of this process."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process validates and writes."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the team at every backward pass."""
        return DistributedDataParallel(module) if self.size > 1 else module

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            distributed.barrier()


def local_gradients(module: nn.Module) -> AbstractContextManager[None]:
    """Within it, a wrapped module only gathers gradients; all but the last pass of an update happen in it."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


@contextmanager
def join(device: str) -> Iterator[Team]:
    """The team that torchrun's WORLD_SIZE, RANK and LOCAL_RANK describe; without them, this process alone."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    team = Team(rank, size, _own(kind))
    if size == 1:
        yield team
        return
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield team
    finally:
        distributed.destroy_process_group()


def _own(kind: str) -> torch.device:
    if kind == "cpu":
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = True  # a training that was interrupted ends in the same bits
    device = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
