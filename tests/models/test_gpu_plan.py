"""The memory plan, against the sizes that the models have; and weights on disk."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.config import Config
from serve_app.config.weighted import KokoroConfig, ModelsConfig, VoxtralRealtimeConfig
from serve_app.models import weights
from serve_app.models.gpu_plan import GIB, DoesNotFit, Need, Share, check, memory_share, need, shape
from serve_app.models.weights import KNOWN, REALTIME, Absent

ROOT = Path(__file__).parent.parent.parent


def variants() -> list[dict[str, Any]]:
    """The three of serve_config.gpu.yaml, two of which are commented out."""
    first, *others = (ROOT / "serve_config.gpu.yaml").read_text().split("    # args:\n")
    plans = [yaml.safe_load(first)["applications"][0]["args"]]
    for text in others:
        lines = [line[6:] for line in text.split("\n") if line.startswith("    #   ")]
        plans.append(yaml.safe_load("\n".join(lines)))
    return plans


def test_the_plans_that_are_shipped_fit() -> None:
    plans = variants()
    assert len(plans) == 3
    for args in plans:
        config = Config.model_validate(args)
        assert set(config.with_weights) == {"transcriber", "chat", "speaker"}
        assert all(leaf.model in KNOWN for leaf in config.with_weights.values())
        weights.check_plan(config)


def test_the_same_plans_on_smaller_gpus_are_refused_with_the_numbers() -> None:
    for args in variants():
        args["gpu"]["memory_gib"] = 12
        with pytest.raises(DoesNotFit, match=r"needs [\d.]+ GiB \(weights [\d.]+, KV cache"):
            weights.check_plan(Config.model_validate(args))


def test_shares_must_add_up() -> None:
    small = Need("small", GIB, 0, 0)
    check([Share(small, 0.5, 2), Share(small, 1.0, 1)], 24, 2)
    with pytest.raises(DoesNotFit, match=r"2 x 0.6 \+ 1 x 0.9 do not fit onto 2 GPUs"):
        check([Share(small, 0.6, 2), Share(small, 0.9, 1)], 24, 2)
    with pytest.raises(DoesNotFit, match="allowed are a fraction"):
        check([Share(small, 1.5, 1)], 24, 2)
    check([Share(Need("large", 40 * GIB, 0, 0), 2.0, 1)], 24, 2)


def test_two_engines_on_one_gpu_never_have_more_than_all_of_it() -> None:
    assert memory_share(0.6) + memory_share(0.4) <= 0.95
    assert memory_share(2.0) == 0.95 and memory_share(0.0) == 0.0


def test_voxtrals_keys_and_values_are_counted() -> None:
    """Two numbers of bfloat16 a layer, head and position; and the encoder's window a stream."""
    one = need("x", 0, REALTIME, 1000, 1)
    assert one.kv_cache == 2 * 2 * 26 * 8 * 128 * 1000 + 2 * 2 * 32 * 2048 * 750


def test_shapes_are_read_from_both_formats() -> None:
    text = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "vocab_size": 9}
    assert shape({"text_config": text})[:4] == (2, 4, 16, 64)
    assert shape(text | {"num_key_value_heads": 1, "head_dim": 8})[:3] == (2, 1, 8)
    assert shape({}).layers == 0


def safetensors(size: int) -> bytes:
    head = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(size)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "mistralai" / "Voxtral-Mini-4B-Realtime-2602"
    folder.mkdir(parents=True)
    for name in ("params.json", "tekken.json"):
        (folder / name).write_text("{}")
    (folder / "consolidated.safetensors").write_bytes(safetensors(1000))
    return folder


def test_weights_are_found_measured_and_checked(model: Path, tmp_path: Path) -> None:
    leaf = VoxtralRealtimeConfig()
    models = ModelsConfig(directory=str(tmp_path), offline=True)
    assert weights.ensure(models, leaf) == model
    assert list(weights.problems(model, leaf.files)) == []
    known = weights.known(models, leaf)
    assert known and 1000 < known.weights < 1200
    whole = (model / "consolidated.safetensors").read_bytes()
    (model / "consolidated.safetensors").write_bytes(whole[:-10])
    assert list(weights.problems(model, leaf.files)) == [
        "consolidated.safetensors: 10 bytes are missing"
    ]


def test_what_the_hub_said_of_a_file_is_compared(model: Path) -> None:
    note = model / ".cache/huggingface/download/consolidated.safetensors.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"commit\n{'0' * 64}\n1.0\n")
    (problem,) = weights.problems(model, VoxtralRealtimeConfig().files)
    assert "SHA-256" in problem


def test_offline_means_offline(tmp_path: Path) -> None:
    models = ModelsConfig(directory=str(tmp_path), offline=True)
    with pytest.raises(Absent, match=r"no weights of hexgrad/Kokoro-82M in .*; run: voxray models"):
        weights.ensure(models, KokoroConfig())
    with pytest.raises(Absent, match="no weights of /nowhere"):
        weights.ensure(ModelsConfig(), KokoroConfig(model="/nowhere"))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To `voxray`, the packages of the profile `gpu` look installed."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in ("vllm", "kokoro"):
        (folder / f"{name}.py").touch()
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.usefixtures("packages")
def test_a_plan_that_does_not_fit_is_refused_before_anything_starts(tmp_path: Path) -> None:
    from tests.server import voxray

    plan = yaml.safe_load((ROOT / "serve_config.gpu.yaml").read_text())
    plan["applications"][0]["args"]["gpu"]["memory_gib"] = 16
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump(plan))
    checked = voxray("models", "check", "--config", str(file))
    assert checked.returncode == 1 and "GiB (weights" in " ".join(checked.stderr.split())
    ran = voxray("run", "--config", str(file))
    assert ran.returncode == 1 and "GiB (weights" in " ".join(ran.stderr.split())
    plan["applications"][0]["args"]["gpu"]["memory_gib"] = 24
    plan["applications"][0]["args"]["models"] |= {"directory": str(tmp_path)}
    file.write_text(yaml.safe_dump(plan))
    ran = voxray("run", "--config", str(file))
    assert ran.returncode == 1 and "voxray models download" in " ".join(ran.stderr.split())
    listed = voxray("models", "list", "--config", str(file))
    assert listed.returncode == 0 and "absent" in listed.stderr + listed.stdout
