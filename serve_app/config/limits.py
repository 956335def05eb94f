"""What a client may ask for, and how many replicas there are."""

from typing import Self

from pydantic import Field, model_validator

from serve_app.config.model import ConfigModel


class Scale(ConfigModel):
    """How many replicas a deployment has, and what one may take of a node."""

    min_replicas: int = Field(1, ge=1, description="Replicas kept at all times.")
    max_replicas: int = Field(4, ge=1, description="Replicas at most.")
    sessions_per_replica: int = Field(
        500,
        ge=1,
        description="Live sessions, or requests at once, that one replica should carry; more "
        "start another.",
    )
    upscale_delay_s: float = Field(5.0, ge=0, description="Seconds of need before scaling up.")
    downscale_delay_s: float = Field(
        300.0, ge=0, description="Seconds without need before scaling down."
    )
    num_cpus: float = Field(0.1, ge=0, description="CPUs that Ray reserves for a replica.")
    num_gpus: float = Field(0.0, ge=0, description="GPUs, or a fraction of one, for a replica.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self


class Limits(ConfigModel):
    """What a client may ask for; every refusal names the limit it met."""

    max_sessions: int = Field(
        1200, ge=1, description="Live sessions on one Ingress replica; more are refused with 503."
    )
    retry_after_s: int = Field(
        5, ge=1, description="Seconds after which a refused client is told to come back."
    )
    max_chunk_bytes: int = Field(
        1_048_576, ge=2, description="Bytes of audio in one message of a live session."
    )
    max_buffered_audio_s: float = Field(
        60.0,
        gt=0,
        description="Seconds of audio that a client may be ahead of what has been recognised.",
    )
    max_utterance_s: float = Field(
        20.0, gt=0, description="Seconds of speech after which an utterance is cut in two."
    )
    max_session_s: float = Field(3600.0, gt=0, description="Seconds a live session may last.")
    max_silence_s: float = Field(
        600.0, gt=0, description="Seconds of audio without speech after which a session ends."
    )
    idle_timeout_s: float = Field(
        60.0, gt=0, description="Seconds without any message after which a session ends."
    )
    closing_timeout_s: float = Field(
        60.0, gt=0, description="Seconds that a closing session waits for its last finals."
    )
    client_write_timeout_s: float = Field(
        10.0, gt=0, description="Seconds that a client may leave a message unread."
    )
    max_unsent_events: int = Field(
        256, ge=8, description="Finals and notices kept for a client that does not read."
    )
    max_hotwords: int = Field(100, ge=0, description="Hotwords in one session.")
    max_grammar_bytes: int = Field(
        16_384, ge=0, description="Bytes of JSGF grammar in one session."
    )
    max_upload_bytes: int = Field(
        104_857_600, ge=1, description="Bytes of a recording sent to POST /v1/transcribe."
    )
    upload_timeout_s: float = Field(
        600.0, gt=0, description="Seconds a recording's body may take to arrive."
    )
    json_timeout_s: float = Field(
        30.0, gt=0, description="Seconds any other body may take to arrive."
    )
    min_body_bytes_per_s: int = Field(
        4096, ge=1, description="Bytes a second at which every body must arrive, at least."
    )
    slow_body_s: float = Field(
        20.0,
        gt=0,
        description="Seconds that a body may be slower than that, or stand still, before it is "
        "refused.",
    )
    max_uploads: int = Field(
        64,
        ge=1,
        description="Recordings received at once on one Ingress replica, before they are "
        "transcribed.",
    )
    max_recording_s: float = Field(
        7200.0, gt=0, description="Seconds of audio decoded from one recording."
    )
    max_recordings: int = Field(
        8, ge=1, description="Recordings transcribed at once on one Ingress replica."
    )
    decode_timeout_s: float = Field(
        120.0, gt=0, description="Seconds of processor time for decoding one recording."
    )
    max_conversations: int = Field(
        200, ge=1, description="Conversations on one Ingress replica; more are refused with 503."
    )
    max_requests: int = Field(
        256, ge=1, description="REST calls for speech or chat at once on one Ingress replica."
    )
    max_speech_chars: int = Field(
        4096, ge=1, description="Characters of text in one call for speech."
    )
    max_chat_chars: int = Field(
        400_000, ge=1, description="Characters of all messages in one chat request."
    )
    max_items: int = Field(512, ge=8, description="Items that a conversation's client may create.")
    max_item_chars: int = Field(
        100_000, ge=1, description="Characters of text in one item or in the instructions."
    )
    max_tools: int = Field(128, ge=0, description="Tools of a conversation or a chat request.")
    max_json_bytes: int = Field(4_194_304, ge=1, description="Bytes of a JSON body of a REST call.")
    max_event_bytes: int = Field(
        16_777_216, ge=1, description="Bytes of one event from a conversation's client."
    )
