"""When a session is refused because the server is busy."""

from pydantic import Field

from serve_app.config.model import ConfigModel


class AdmissionConfig(ConfigModel):
    """Admission by what is measured, and what is left out under overload."""

    enabled: bool = Field(
        True,
        description="Refuse sessions and requests that would not fit, and leave out partials while "
        "too much is to be done.",
    )
    cpu_share: float = Field(
        0.7,
        gt=0,
        le=1,
        description="The share of the machine's processors, of the replica's event loop and of the "
        "busiest model replica that sessions may fill.",
    )
    min_sessions: int = Field(
        4,
        ge=0,
        le=1_000_000,
        description="Sessions of one Ingress replica that are admitted however busy the machine "
        "is, as long as answers come in time.",
    )
    handshakes_per_s: int = Field(
        400,
        ge=1,
        le=1_000_000,
        description="New sockets per second on each path for live speech that one machine lets in; "
        "HAProxy refuses more.",
    )
    session_cpu: float = Field(
        0.0,
        ge=0,
        le=1024,
        description="Processors that a session is assumed to take until that has been measured; 0: "
        "what the engine usually takes.",
    )
