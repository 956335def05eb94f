"""TLS, and who may reach the server."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from serve_app.config.network import NetworkConfig, TlsConfig


@pytest.mark.parametrize(
    "given", [{"certificate": "/a.pem"}, {"key": "/a.pem"}, {"client_ca": "/a.pem"}], ids=str
)
def test_half_of_tls_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="need"):
        TlsConfig.model_validate(given)


def test_a_file_is_found_from_every_folder() -> None:
    both = {"certificate": "~/a.pem", "key": "/b.pem"}
    assert TlsConfig.model_validate(both).certificate == str(Path.home() / "a.pem")
    with pytest.raises(ValidationError, match="absolute"):
        TlsConfig.model_validate({**both, "key": "b.pem"})


@pytest.mark.parametrize("given", ["10.0.0.1/8", "10.0.0.0/33", "example.org", ""])
def test_a_network_is_a_network(given: str) -> None:
    with pytest.raises(ValidationError, match=r"network|address|host bits"):
        NetworkConfig.model_validate({"allow": [given]})


def test_an_address_is_a_network_of_one() -> None:
    assert NetworkConfig.model_validate({"deny": ["192.0.2.7"]}).deny == ("192.0.2.7/32",)
