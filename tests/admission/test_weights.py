"""Which share is whose, and who is refused first when there is no room for all."""

from collections import Counter
from contextlib import ExitStack

import pytest

from serve_app.admission.admission import Admission
from serve_app.admission.budget import Shares
from serve_app.admission.weights import LATELY_S, MOST, Weights
from serve_app.config.admission import AdmissionConfig
from serve_app.config.tenants import TenantConfig
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.limits.settings import TenantSettings
from serve_app.observability.metrics import Metrics
from serve_app.security.concurrency import ConcurrencyLimit


def weights(**tenants: float) -> Weights:
    return Weights(TenantSettings({name: TenantConfig(weight=it) for name, it in tenants.items()}))


def test_who_is_alone_has_everything() -> None:
    alone = weights()
    assert alone.due("acme", {}) == alone.due("acme", {"acme": 7}) == 0
    assert [alone.has_room("acme", {"acme": used}, 100) for used in (90, 99, 100)] == [
        True,
        True,
        False,
    ]


def test_a_named_tenant_has_its_share_before_it_asks() -> None:
    assert weights(heavy=3.0).due("other", {"other": 7}) < 0
    assert weights(heavy=3.0).due("heavy", {"other": 7}) == pytest.approx(0.75 * 8 - 1)
    assert weights(default=3.0).due("other", {"other": 7}) == 0, "`default` is no tenant"


def test_who_has_not_asked_for_long_does_not_count() -> None:
    all_ = weights()
    all_.asks("quiet", 0.0)
    assert all_.due("greedy", {"greedy": 5}) < 0
    all_.asks("greedy", LATELY_S + 1)
    assert all_.due("greedy", {"greedy": 5}) == 0


def test_a_bounded_number_of_tenants_is_remembered() -> None:
    all_ = weights()
    for number in range(MOST + 10):
        all_.asks(str(number), 0.0)
    assert len(all_._asked) == MOST


def test_a_payer_has_the_weight_of_its_tenant_as_it_is_now() -> None:
    settings = TenantSettings({})
    payers = Weights(settings)
    assert payers.payer(Principal("acme")).weight == 1
    settings.override({("acme", ""): {"weight": 5.0}})
    assert payers.payer(Principal("acme")).weight == 5


def full(**more: float) -> Admission:
    """Ten places, however busy the machine is."""
    config = AdmissionConfig(cpu_share=1e-9, min_sessions=10)
    admission = Admission(config, Shares(1, 1, 1), Metrics(), lambda: 1, weights(**more))
    admission.sessions = lambda: admission._places.held.total() - admission._places.reserved
    return admission


def let_in(admission: Admission, *asking: str) -> Counter[str]:
    inside: Counter[str] = Counter()
    for tenant in asking:
        try:
            admission.reserve(tenant)
        except ClientError:
            continue
        inside[tenant] += 1
    return inside


def test_a_quiet_tenant_is_let_in_while_a_greedy_one_has_more_than_its_share() -> None:
    assert let_in(full(), *["greedy"] * 20, "quiet") == {"greedy": 10, "quiet": 1}


def test_a_greedy_tenant_leaves_room_to_one_that_the_configuration_names() -> None:
    assert let_in(full(quiet=1.0), *["greedy"] * 20, "quiet", "quiet") == {"greedy": 9, "quiet": 2}


def test_both_are_refused_when_each_has_its_share() -> None:
    turns = ["greedy", "quiet"] * 5
    assert let_in(full(), *turns, "greedy", "quiet") == {"greedy": 5, "quiet": 5}


def test_a_single_tenant_gets_what_it_got_without_shares() -> None:
    assert let_in(full(), *["acme"] * 20) == {"acme": 10}


def test_who_leaves_gives_the_place_to_who_is_below_its_share() -> None:
    admission = full()
    places = [admission.reserve("greedy") for _ in range(10)]
    assert let_in(admission, "quiet") == {"quiet": 1}
    for place in places[:2]:
        admission.leave(place)
        admission.leave(place)
    assert let_in(admission, "greedy", "quiet") == {"quiet": 1}


def test_a_request_holds_no_place_and_gets_none_beyond_what_fits() -> None:
    admission = full()
    let_in(admission, *["greedy"] * 10)
    with pytest.raises(ClientError, match="no capacity"):
        admission.request("quiet")
    assert admission._places.held == {"greedy": 10}


def test_requests_leave_some_of_their_limit_to_others() -> None:
    by_share = weights(quiet=1.0)
    limit = ConcurrencyLimit(10, "too_many_requests", "requests", lambda: 1, weights=by_share)
    with ExitStack() as held:
        for _ in range(9):
            held.enter_context(limit.slot("greedy"))
        with pytest.raises(ClientError, match="too many requests"):
            limit.check("greedy")
        with limit.slot("quiet"):
            assert limit.in_use == 10
        assert limit.in_use == 9
    assert limit.in_use == 0
