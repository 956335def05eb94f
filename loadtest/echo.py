"""The yardstick: a bare uvicorn WebSocket that runs webrtcvad on every frame and echoes."""

import sys
from typing import Any

import uvicorn
import webrtcvad

FRAME_BYTES = 640


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    is_speech = webrtcvad.Vad(2).is_speech
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        pcm = message["bytes"]
        for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES):
            is_speech(pcm[at : at + FRAME_BYTES], 16000)
        await send({"type": "websocket.send", "bytes": pcm})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", loop="uvloop", lifespan="off")
