"""pipecat's OpenAI services, unchanged but for their base URL; prints JSON of what they got.

Run in the clients' environment: `pipecat_client.py HOST:PORT speech.wav`.
"""

import asyncio
import json
import sys
import wave

from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.events import (
    AudioConfiguration,
    AudioInput,
    InputAudioTranscription,
    SessionProperties,
)
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService


class Collector(FrameProcessor):
    def __init__(self, until: type) -> None:
        super().__init__()
        self.until = until
        self.done = asyncio.Event()
        self.got: dict = {"heard": "", "text": "", "audio_s": 0.0, "errors": []}

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            self.got["heard"] += frame.text
        if isinstance(frame, TTSTextFrame):
            self.got["text"] += frame.text
        if isinstance(frame, TTSAudioRawFrame):
            self.got["audio_s"] += len(frame.audio) / 48000
        if isinstance(frame, ErrorFrame):
            self.got["errors"].append(frame.error)
        if isinstance(frame, self.until):
            self.done.set()
        await self.push_frame(frame, direction)


async def run(service: FrameProcessor, path: str, until: type, more: tuple = ()) -> dict:
    collector, upstream = Collector(until), Collector(until)
    task = PipelineTask(
        Pipeline([upstream, *more[:1], service, collector, *more[1:]]),
        params=PipelineParams(audio_in_sample_rate=24000, audio_out_sample_rate=24000),
    )
    file = wave.open(path)
    rate = file.getframerate()

    async def feed() -> None:
        await asyncio.sleep(1)  # pipecat does not say when it is connected
        while chunk := file.readframes(rate // 50):
            await task.queue_frame(InputAudioRawFrame(chunk, rate, 1))
            await asyncio.sleep(0.004)
        done = [asyncio.create_task(c.done.wait()) for c in (collector, upstream)]
        await asyncio.wait(done, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.5)  # nor when the last frame of a reply has come
        await task.queue_frame(EndFrame())

    feeding = asyncio.create_task(feed())
    await PipelineRunner(handle_sigint=False).run(task)
    await feeding
    heard = collector.got["heard"] or upstream.got["heard"]
    return {
        **collector.got,
        "heard": heard,
        "errors": collector.got["errors"] + upstream.got["errors"],
    }


async def main(address: str, path: str) -> None:
    url = f"ws://{address}/v1/realtime"
    stt = OpenAIRealtimeSTTService(
        api_key="any", base_url=url, turn_detection={"type": "server_vad"}
    )
    got = {"stt": await run(stt, path, TranscriptionFrame)}
    transcribed = SessionProperties(
        audio=AudioConfiguration(input=AudioInput(transcription=InputAudioTranscription()))
    )
    model = OpenAIRealtimeLLMService(
        api_key="any",
        base_url=url,
        settings=OpenAIRealtimeLLMService.Settings(session_properties=transcribed),
    )
    pair = LLMContextAggregatorPair(LLMContext())
    got["realtime"] = await run(
        model, path, LLMFullResponseEndFrame, (pair.user(), pair.assistant())
    )
    print(json.dumps(got))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
