"""What a client may ask for, and how many replicas there are."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from serve_app.config.model import WEEK_S, Bytes, ConfigModel, Count, Seconds


class Scale(ConfigModel):
    """How many replicas a deployment has, and what one may take of a node."""

    min_replicas: int = Field(1, ge=1, le=10_000, description="Replicas kept at all times.")
    max_replicas: int = Field(4, ge=1, le=10_000, description="Replicas at most.")
    sessions_per_replica: Count = Field(
        500,
        description="Live sessions, or concurrent requests, that one replica should carry; more "
        "start another replica.",
    )
    upscale_delay_s: float = Field(
        5.0, ge=0, le=3600, description="Seconds of need before scaling up."
    )
    downscale_delay_s: float = Field(
        300.0, ge=0, le=WEEK_S, description="Seconds without need before scaling down."
    )
    max_replicas_per_node: int = Field(
        0, ge=0, le=100, description="Replicas on one node at most; 0: no bound."
    )
    num_cpus: float = Field(0.1, ge=0, le=1024, description="CPUs that Ray reserves for a replica.")
    num_gpus: float = Field(
        0.0, ge=0, le=64, description="GPUs, or a fraction of one, for a replica."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self


UtteranceSeconds = Annotated[float, Field(gt=0, le=600)]
SessionSeconds = Annotated[float, Field(gt=0, le=WEEK_S)]


class Limits(ConfigModel):
    """What a client may ask for; every refusal names the limit that was reached."""

    max_sessions: Count = Field(
        1200, description="Live sessions on one Ingress replica; more are refused with 503."
    )
    retry_after_s: int = Field(
        5, ge=1, le=3600, description="Seconds after which a refused client should come back."
    )
    max_chunk_bytes: int = Field(
        1_048_576,
        ge=2,
        le=1 << 30,
        description="Bytes of audio in one message of a live session.",
    )
    max_buffered_audio_s: Seconds = Field(
        60.0,
        description="Seconds of audio that a client may be ahead of what has been recognised.",
    )
    max_utterance_s: UtteranceSeconds = Field(
        20.0, description="Seconds of speech after which an utterance is cut in two."
    )
    max_session_s: SessionSeconds = Field(
        3600.0, description="Seconds that a live session may last."
    )
    max_silence_s: SessionSeconds = Field(
        600.0, description="Seconds of audio without speech after which a session ends."
    )
    idle_timeout_s: SessionSeconds = Field(
        60.0, description="Seconds without any message after which a session ends."
    )
    closing_timeout_s: Seconds = Field(
        60.0, description="Seconds that a closing session waits for its last finals."
    )
    client_write_timeout_s: Seconds = Field(
        10.0, description="Seconds that a client may leave a message unread."
    )
    max_unsent_events: int = Field(
        256,
        ge=8,
        le=1_000_000,
        description="Finals and notices kept for a client that does not read.",
    )
    max_hotwords: int = Field(100, ge=0, le=100_000, description="Hotwords in one session.")
    max_grammar_bytes: int = Field(
        16_384, ge=0, le=1 << 30, description="Bytes of JSGF grammar in one session."
    )
    max_upload_bytes: Bytes = Field(
        104_857_600, description="Bytes of a recording sent to POST /v1/transcribe."
    )
    upload_timeout_s: Seconds = Field(
        600.0, description="Seconds that the body of a recording may take to arrive."
    )
    json_timeout_s: Seconds = Field(
        30.0, description="Seconds that any other body may take to arrive."
    )
    min_body_bytes_per_s: int = Field(
        4096,
        ge=1,
        le=1 << 30,
        description="Bytes a second at which every body must arrive, at least.",
    )
    slow_body_s: Seconds = Field(
        20.0,
        description="Seconds that a body may be slower than that, or stall, before it is refused.",
    )
    max_uploads: Count = Field(
        64,
        description="Concurrent uploads of recordings to one Ingress replica, before they are "
        "transcribed.",
    )
    max_recording_s: Seconds = Field(
        7200.0, description="Seconds of audio decoded from one recording."
    )
    max_recordings: Count = Field(
        8, description="Recordings transcribed concurrently by one Ingress replica."
    )
    decode_timeout_s: Seconds = Field(
        120.0, description="Seconds of processor time for decoding one recording."
    )
    max_conversations: Count = Field(
        200, description="Conversations on one Ingress replica; more are refused with 503."
    )
    max_requests: Count = Field(
        256, description="Concurrent REST calls for speech or chat on one Ingress replica."
    )
    client_secrets_per_minute: Count = Field(
        60, description="Client secrets that a key may make on one Ingress replica in a minute."
    )
    max_speech_chars: int = Field(
        4096, ge=1, le=10_000_000, description="Characters of text in one call for speech."
    )
    max_chat_chars: int = Field(
        400_000,
        ge=1,
        le=100_000_000,
        description="Characters of all messages in one chat request.",
    )
    max_items: int = Field(
        512, ge=8, le=100_000, description="Items that a conversation's client may create."
    )
    max_item_chars: int = Field(
        100_000,
        ge=1,
        le=100_000_000,
        description="Characters of text in one item or in the instructions.",
    )
    max_tools: int = Field(
        128, ge=0, le=10_000, description="Tools of a conversation or a chat request."
    )
    max_json_bytes: int = Field(
        4_194_304, ge=1, le=1 << 30, description="Bytes of a JSON body of a REST call."
    )
    max_event_bytes: int = Field(
        16_777_216, ge=1, le=1 << 30, description="Bytes of one event from a conversation's client."
    )
