"""Usage as metrics: by tenant, and not by any number of them."""

from serve_app.identity.principal import Principal
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import USED
from serve_app.usage.meter import Counted
from serve_app.usage.totals import MOST_TENANTS, OTHERS, Totals


def test_each_tenant_has_its_series_and_the_last_ones_share_one() -> None:
    metrics = Metrics()
    totals = Totals(lambda of, read: metrics.watch(USED, read, *of))
    for number in range(MOST_TENANTS + 20):
        for what, amount in ((Counted.AUDIO, 1.5), (Counted.TOKENS, 2)):
            totals.used(Principal(f"t{number}", "k1"), what, amount)
    totals.used(Principal("t0", "k2"), Counted.AUDIO, 1.0)
    found = metrics.snapshot()[USED.name]
    assert found["audio_seconds", "t0"] == 2.5 and found["tokens", "t99"] == 2
    assert found["audio_seconds", OTHERS] == 30 and found["tokens", OTHERS] == 40
    assert len(found) == 2 * (MOST_TENANTS + 1)
    assert metrics.snapshot()[USED.name] == found, "nothing is counted twice"
