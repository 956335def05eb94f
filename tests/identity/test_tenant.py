"""Names of tenants are safe in paths."""

import pytest

from serve_app.identity.tenant import tenant_name


@pytest.mark.parametrize("name", ["default", "acme", "a", "acme.com", "Team-7_x", "a" * 63])
def test_a_plain_name_is_taken(name: str) -> None:
    assert tenant_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        "../a",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "-a",
        "a.",
        "_a",
        "a" * 64,
    ],
)
def test_a_name_that_could_be_a_path_or_an_option_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 63 letters"):
        tenant_name(name)
