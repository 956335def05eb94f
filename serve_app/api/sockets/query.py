"""The query of a handshake."""

from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from picows import WSUpgradeRequest

from serve_app.errors import ClientError
from serve_app.identity.gate import Arrival

MAX_FIELDS = 20


def arrival(request: WSUpgradeRequest) -> Arrival:
    """For the gate."""
    return Arrival(request.headers, _raw_query(request))


def _raw_query(request: WSUpgradeRequest) -> str:
    return urlsplit(request.path.decode("latin-1")).query


def query_of(request: WSUpgradeRequest) -> dict[str, str]:
    """Each parameter's first value. Raises `ClientError` for too many parameters."""
    try:
        values = parse_qs(_raw_query(request), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        reason = f"the query has more than {MAX_FIELDS} parameters"
        raise ClientError("invalid_request", reason) from error
    return {name: first for name, (first, *_) in values.items()}


def checked_query(request: WSUpgradeRequest, known: Collection[str]) -> dict[str, str]:
    """Raises `ClientError` for a parameter that is not among `known`."""
    query = query_of(request)
    for name in query.keys() - set(known):
        param = name[:64]
        raise ClientError("invalid_request", f"{param}: there is no such parameter", param=param)
    return query
