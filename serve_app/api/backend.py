"""What the ingress uses: the model replicas, their engines, and the cluster."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployments.interfaces import Option, Voice
from serve_app.lanes.pool import ReplicaSet
from serve_app.live.fence import Claim, Fence, SessionElsewhere
from serve_app.live.options import Engines
from serve_app.observability.history import Ring, Sample, ring
from serve_app.observability.metrics import Snapshot
from serve_app.security.keys import KEY_BYTES
from serve_app.security.signing import SigningKeys


class Cluster(Protocol):
    """All replicas of all deployments, as one ingress replica sees them."""

    async def snapshots(self) -> list[Snapshot]:
        """The metrics of every replica."""

    async def histories(self) -> list[list[Sample]]:
        """The last hour of every ingress replica."""

    async def model_states(self) -> list[dict[str, Any]]:
        """Every model replica with its engine, model and state."""

    async def deployments(self) -> dict[str, Any]:
        """Every deployment with its status and its replicas by state."""

    async def nodes(self) -> list[dict[str, Any]]:
        """The usage of every machine; see `node.usage`."""

    async def change_settings(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Change settings on all ingress replicas, also on those that start later. Returns all
        changes since the start."""

    async def fence(self, claims: Sequence[Claim]) -> Sequence[SessionElsewhere]:
        """At all ingress replicas, end older connections to these sessions. Returns what each knows
        of them."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Each deployment's replicas, the properties of the engines, and the cluster."""

    vad: ReplicaSet
    transcriber: ReplicaSet
    chat: ReplicaSet
    speaker: ReplicaSet
    diarizer: ReplicaSet
    engines: Engines
    voices: Callable[[], Awaitable[Sequence[Voice]]]
    generated: Callable[[], Awaitable[dict[str, dict[str, int]]]]
    """Tokens of Chat and samples of Speaker since their start, over all replicas."""
    cluster: Cluster | None = None
    """None if everything runs in this process."""
    keys: SigningKeys = field(
        default_factory=lambda: SigningKeys([secrets.token_bytes(KEY_BYTES)]), repr=False
    )
    """Sign what clients bring back; the same for all ingress replicas."""
    samples: Ring = field(default_factory=ring)
    """The last hour of this ingress."""
    fence: Fence = field(default_factory=Fence)
    """The live sessions of this ingress that can be resumed elsewhere."""

    @property
    def understands(self) -> bool:
        """The transcriber answers questions about audio."""
        return Option.PROMPT in self.engines.transcriber.options
