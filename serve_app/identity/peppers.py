"""The peppers of keys, from the environment."""

from serve_app.config.auth import AuthConfig
from serve_app.identity.api_key import Peppers

MAKE = 'export {variable}="$(openssl rand -base64 32)"'


def peppers_of(auth: AuthConfig) -> Peppers:
    """Raises `ValueError` that says how to make one."""
    make = MAKE.format(variable=auth.pepper_variable)
    if not auth.peppers:
        raise ValueError(
            "keys are stored with a pepper, a secret that is not in the database, and "
            f"${auth.pepper_variable} is not set. Make one and keep it; without it, no key is "
            f"valid: {make}"
        )
    try:
        return Peppers.parse(auth.peppers)
    except ValueError as error:
        raise ValueError(f"${auth.pepper_variable}: {error}; make one with: {make}") from error
