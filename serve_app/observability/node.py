"""The usage of this machine: CPU, memory, GPUs."""

import platform
from typing import Any

import psutil


def usage() -> dict[str, Any]:
    """Sizes in bytes, usage in per cent; that of the CPU is since the last call."""
    memory = psutil.virtual_memory()
    return {
        "node": platform.node(),
        "cpu": {"count": psutil.cpu_count() or 1, "percent": psutil.cpu_percent()},
        "memory": {
            "total_bytes": memory.total,
            "used_bytes": memory.total - memory.available,
            "percent": memory.percent,
        },
        "gpus": _gpus(),
    }


def _gpus() -> list[dict[str, Any]]:
    """[] without a GPU or NVML."""
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]

        pynvml.nvmlInit()
    except Exception:  # not installed, or no driver
        return []
    try:
        return [_gpu(pynvml, number) for number in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, number: int) -> dict[str, Any]:
    device = nvml.nvmlDeviceGetHandleByIndex(number)
    memory = nvml.nvmlDeviceGetMemoryInfo(device)
    return {
        "name": str(nvml.nvmlDeviceGetName(device)),
        "percent": nvml.nvmlDeviceGetUtilizationRates(device).gpu,
        "memory_total_bytes": memory.total,
        "memory_used_bytes": memory.used,
    }
