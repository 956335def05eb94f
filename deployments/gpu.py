"""The GPU, if there is one: which to use, and one engine at a time to load onto it."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone_on_the_gpu() -> Iterator[None]:
    """Engines that share a GPU load one after the other: vLLM measures what is free meanwhile."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not devices:
        yield
        return
    lock = Path(tempfile.gettempdir()) / f"voxray-gpu-{devices.replace(',', '-')}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def best_device() -> str:
    """Where PyTorch computes fastest here: `cuda`, `mps` or `cpu`."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def chosen_device(asked: str, memory: float) -> str:
    """The device to compute on, `auto` resolved; of a GPU no more than the share `memory`."""
    import torch

    device = best_device() if asked == "auto" else asked
    if memory and device == "cuda":
        torch.cuda.set_per_process_memory_fraction(memory)
    return device
