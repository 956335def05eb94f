"""LiveKit's OpenAI plugin, unchanged but for its base URL; prints JSON of what it got.

Run in the clients' environment: `livekit_client.py HOST:PORT speech.wav`.
"""

import asyncio
import json
import sys
import wave

import aiohttp
from livekit import rtc
from livekit.agents import llm
from livekit.agents.types import APIConnectOptions
from livekit.plugins import openai

OPTIONS = APIConnectOptions(max_retry=0, timeout=10)


def frames(path: str, rate: int, ms: int = 50) -> list[rtc.AudioFrame]:
    file = wave.open(path)
    assert file.getframerate() == rate
    pcm = file.readframes(file.getnframes())
    size = rate * ms // 1000 * 2
    return [
        rtc.AudioFrame(pcm[at : at + size], rate, 1, size // 2)
        for at in range(0, len(pcm) - size, size)
    ]


async def stt(base: str, path: str, http: aiohttp.ClientSession, realtime: bool) -> dict:
    plugin = openai.STT(
        model="gpt-4o-transcribe", base_url=base, api_key="any", use_realtime=realtime
    )
    plugin._session = http
    if not realtime:
        event = await plugin.recognize(frames(path, 24000, 1000), conn_options=OPTIONS)
        return {"text": event.alternatives[0].text}
    stream = plugin.stream(conn_options=OPTIONS)
    kinds, text = [], ""

    async def feed() -> None:
        for frame in frames(path, 24000):
            stream.push_frame(frame)
            await asyncio.sleep(0.01)

    feeding = asyncio.create_task(feed())
    async for event in stream:
        kinds.append(str(event.type.value))
        if event.type.value == "final_transcript":
            text = event.alternatives[0].text
            break
    await feeding
    await stream.aclose()
    return {"text": text, "kinds": sorted(set(kinds))}


async def tts(base: str) -> dict:
    plugin = openai.TTS(base_url=base, api_key="any", voice="alloy", model="tts-1")
    seconds = 0.0
    async for audio in plugin.synthesize("One two three four five.", conn_options=OPTIONS):
        seconds += audio.frame.duration
    return {"seconds": round(seconds, 2)}


async def chat(base: str) -> dict:
    plugin = openai.LLM(base_url=base, api_key="any", model="m")
    context = llm.ChatContext()
    context.add_message(role="user", content="hello")
    text = ""
    async for chunk in plugin.chat(chat_ctx=context, conn_options=OPTIONS):
        if chunk.delta and chunk.delta.content:
            text += chunk.delta.content
    return {"text": text}


async def realtime(base: str, path: str, http: aiohttp.ClientSession) -> dict:
    model = openai.realtime.RealtimeModel(
        base_url=base, api_key="any", model="gpt-realtime", http_session=http
    )
    session = model.session()
    got: dict = {"errors": [], "heard": "", "text": "", "audio_s": 0.0, "generations": 0}
    done = asyncio.Event()

    session.on("error", lambda error: got["errors"].append(str(error.error)))
    session.on(
        "input_audio_transcription_completed",
        lambda event: got.update(heard=event.transcript) if event.is_final else None,
    )

    async def read(generation: llm.GenerationCreatedEvent) -> None:
        async for message in generation.message_stream:
            async for text in message.text_stream:
                got["text"] += text
            async for frame in message.audio_stream:
                got["audio_s"] += frame.duration
        got["generations"] += 1
        done.set()

    session.on("generation_created", lambda g: asyncio.ensure_future(read(g)))
    for frame in frames(path, 24000):
        session.push_audio(frame)
        await asyncio.sleep(0.01)
    await asyncio.wait_for(done.wait(), 10)
    done.clear()
    generation = await asyncio.wait_for(session.generate_reply(instructions="Say hello."), 10)
    assert generation.user_initiated
    await asyncio.wait_for(done.wait(), 10)
    await session.aclose()
    return got


async def main(address: str, path: str) -> None:
    base = f"http://{address}/v1"
    async with aiohttp.ClientSession() as http:
        print(
            json.dumps(
                {
                    "stt": await stt(base, path, http, False),
                    "stt_realtime": await stt(base, path, http, True),
                    "tts": await tts(base),
                    "chat": await chat(base),
                    "realtime": await realtime(base, path, http),
                }
            )
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
