"""Weights on disk: where they are, whether they are complete, and downloading them.

The profile `cpu` has no weights: its engines come in wheels.
"""

import fnmatch
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from serve_app.config import Config
from serve_app.config.weighted import HasWeights, ModelsConfig
from serve_app.models.gpu_plan import Need, Shape, Share, check, check_one, need, shape


class Absent(Exception):
    """Weights are missing; the text says where they should be."""


class Known(NamedTuple):
    """A model's size: the bytes of its files, and its shape."""

    weights: int
    shape: Shape


REALTIME = Shape(26, 8, 128, 3072, 9216, 131072, 8192, 2 * 2 * 32 * 2048 * 750)
KNOWN = {
    "mistralai/Voxtral-Mini-4B-Realtime-2602": Known(8_900_000_000, REALTIME),
    "mistralai/Voxtral-Mini-3B-2507": Known(9_360_000_000, Shape(30, 8, 128, 3072, 8192, 131072)),
    "mistralai/Voxtral-Small-24B-2507": Known(
        48_500_000_000, Shape(40, 8, 128, 5120, 32768, 131072)
    ),
    "Qwen/Qwen3-4B-Instruct-2507": Known(8_050_000_000, Shape(36, 8, 128, 2560, 9728, 151936)),
    "Qwen/Qwen2.5-1.5B-Instruct": Known(3_090_000_000, Shape(28, 2, 128, 1536, 8960, 151936)),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": Known(
        61_100_000_000, Shape(48, 4, 128, 2048, 6144, 151936)
    ),
    "hexgrad/Kokoro-82M": Known(355_000_000, Shape()),
}
"""Published sizes, rounded; models on disk are measured."""


def folder_of(models: ModelsConfig, model: str) -> Path:
    """The folder of a model's files, whether or not they are there."""
    given = Path(model).expanduser()
    if given.is_dir() or given.is_absolute() or model.startswith("."):
        return given
    return Path(models.directory).expanduser() / model


def files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of a model that its engine reads."""
    found = (file for pattern in patterns for file in sorted(folder.glob(pattern)))
    return [file for file in dict.fromkeys(found) if file.is_file()]


def is_here(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether all weight files exist; `problems` checks whether they are complete."""
    heavy = [it for it in patterns if it.endswith((".safetensors", ".pth", ".pt"))]
    return all(files(folder, [pattern]) for pattern in heavy)


def ensure(models: ModelsConfig, leaf: HasWeights) -> Path:
    """The folder with the model's files, after a download if allowed. Raises `Absent`."""
    folder = folder_of(models, leaf.model)
    if is_here(folder, leaf.files):
        return folder
    if models.offline or folder == Path(leaf.model).expanduser():
        raise Absent(f"no weights of {leaf.model} in {folder}; run: voxray models download")
    fetch(models, leaf)
    return folder


def fetch(models: ModelsConfig, leaf: HasWeights, **progress: Any) -> Path:
    """Download what is missing; an interrupted download is resumed. Raises `Absent`."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise Absent("huggingface_hub is not installed: pip install 'voxray[gpu]'") from error
    folder = folder_of(models, leaf.model)
    try:
        snapshot_download(leaf.model, local_dir=folder, allow_patterns=list(leaf.files), **progress)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise Absent(f"{leaf.model} cannot be downloaded: {error}") from error
    return folder


def problems(folder: Path, patterns: Sequence[str]) -> Iterator[str]:
    """Problems with a model's files: missing, truncated, or changed since the download."""
    if not is_here(folder, patterns):
        yield "files are missing"
    for file in files(folder, patterns):
        if file.suffix == ".safetensors" and (problem := _truncated(file)):
            yield f"{file.name}: {problem}"
        elif (wanted := _checksum(folder, file)) and wanted != _sha256(file):
            yield f"{file.name}: its SHA-256 differs from the hub's"


def _truncated(file: Path) -> str | None:
    """A safetensors file has its length in its header
    (github.com/huggingface/safetensors, "Format")."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            head = json.loads(opened.read(length))
        except ValueError:
            return "its header cannot be read"
    ends = [it["data_offsets"][1] for name, it in head.items() if name != "__metadata__"]
    missing = 8 + length + max(ends, default=0) - file.stat().st_size
    return f"{missing} bytes are missing" if missing else None


def _checksum(folder: Path, file: Path) -> str | None:
    """The ETag that huggingface_hub stored; for a large file it is the SHA-256."""
    note = folder / ".cache/huggingface/download" / f"{file.relative_to(folder)}.metadata"
    lines = note.read_text().splitlines() if note.is_file() else []
    return lines[1] if len(lines) > 1 and len(lines[1]) == 64 else None


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def size(folder: Path, patterns: Sequence[str]) -> int:
    """Bytes of the weight files."""
    heavy = [it for it in patterns if not fnmatch.fnmatch(it, "*.json")]
    return sum(file.stat().st_size for file in files(folder, heavy))


def known(models: ModelsConfig, leaf: HasWeights) -> Known | None:
    """The measured size of a model on disk, or else the published one; None if unknown."""
    folder = folder_of(models, leaf.model)
    if not is_here(folder, leaf.files):
        return KNOWN.get(leaf.model)
    wanted = "params.json" if "params.json" in leaf.files else "config.json"
    described = folder / wanted
    config = json.loads(described.read_text()) if described.is_file() else {}
    return Known(size(folder, leaf.files), shape(config))


def needed(models: ModelsConfig, leaf: HasWeights, engine: str) -> Need | None:
    """The memory that an engine will need; None if its model is unknown."""
    model = known(models, leaf)
    if model is None:
        return None
    return need(engine, model.weights, model.shape, leaf.tokens, leaf.at_once)


def check_plan(config: Config) -> None:
    """Check the plan before anything loads. Raises `DoesNotFit`."""
    if not config.gpu.memory_gib:
        return
    shares = []
    for kind, leaf in config.with_weights.items():
        name, own = config.engines[kind]
        memory = needed(config.models, leaf, f"{kind} {name} ({leaf.model})")
        if memory and own.scale.num_gpus:
            shares.append(Share(memory, own.scale.num_gpus, own.scale.min_replicas))
    check(shares, config.gpu.memory_gib, config.gpu.count)


def check_here(models: ModelsConfig, leaf: HasWeights, engine: str, gpus: float) -> None:
    """Check one engine against the GPU of this process. Raises `DoesNotFit`."""
    memory = needed(models, leaf, engine)
    gib = gpu_gib() if gpus else None
    if memory and gib:
        check_one(memory, gpus, gib)


def gpu_gib() -> float | None:
    """Memory of this process's GPU, from nvidia-smi, because that needs no CUDA context."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(
            [*query, f"--id={device}"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        return float(output.split()[0]) / 1024
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def stay_offline() -> None:
    """For this process and its children; call it before importing Hugging Face's libraries."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
