"""The GPU, if there is one: choosing the device, and loading one engine at a time."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive_gpu() -> Iterator[None]:
    """Engines that share a GPU load one after another, because vLLM measures the free memory while
    it loads."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not devices:
        yield
        return
    lock = Path(tempfile.gettempdir()) / f"voxray-gpu-{devices.replace(',', '-')}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def best_device() -> str:
    """The fastest device of PyTorch on this machine: `cuda`, `mps` or `cpu`."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def chosen_device(name: str, memory: float) -> str:
    """The device to compute on. `auto` is the fastest; a GPU is limited to the share `memory`."""
    import torch

    device = best_device() if name == "auto" else name
    if memory and device == "cuda":
        torch.cuda.set_per_process_memory_fraction(memory)
    return device
