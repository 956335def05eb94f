"""What is used of the processors."""

import time
from pathlib import Path

import pytest

from serve_app.admission import gauges
from serve_app.admission.gauges import Gauges, quota


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None)])
def test_a_containers_limit_counts_as_its_machine(
    tmp_path: Path, text: str, cores: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert quota(tmp_path) == cores
    assert quota(tmp_path / "elsewhere") is None


def test_use_is_measured_against_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 0\nuser_usec 0\n")
    monkeypatch.setattr(gauges, "quota", lambda: 0.5)
    monkeypatch.setattr(gauges, "GROUP", tmp_path)
    began = time.monotonic()
    measured = Gauges()
    spent = 0.0
    while spent < 0.2:
        spent = time.monotonic() - began
    (tmp_path / "cpu.stat").write_text(f"usage_usec {int(spent * 0.25 * 1e6)}\nuser_usec 0\n")
    machine, thread = measured.read()
    assert machine == pytest.approx(0.5, abs=0.2)
    assert thread > 0.05, "this thread was busy, as far as others let it"


def test_shares_are_shares() -> None:
    measured = Gauges()
    for _ in range(20):
        machine, thread = measured.read()
        assert 0 <= machine <= 1.01 and thread >= 0
        time.sleep(0.01)
