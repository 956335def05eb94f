"""Any instruct model on vLLM, in this replica's own process tree.

vLLM's own chat serving writes the reply: chat template, tools, JSON, prefix caching. It answers
with OpenAI's chunks, which are read as in the engine `openai`.
"""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from deployments.chat.openai import OPTIONS, completion, deltas
from deployments.interfaces import ChatDelta, ChatRequest, EngineFailed, Message
from deployments.vllm_engine import MISTRAL, Vllm, gpu_settings


class VllmChat:
    """Implements `ChatEngine` and `Supervised`. See the config for its arguments."""

    name = "vllm"
    options = OPTIONS

    def __init__(
        self,
        model: str,
        max_model_len: int,
        max_requests: int,
        tool_parser: str,
        reasoning_parser: str,
        stall_s: float,
        eager: bool,
        gpu_memory: float = 0.0,
        gpus: int = 1,
    ) -> None:
        self._model = model
        self._tool_parser = tool_parser or None
        self._reasoning_parser = reasoning_parser
        settings = {
            "model": model,
            "max_model_len": max_model_len,
            "max_num_seqs": max_requests,
            "enable_prefix_caching": True,
        }
        formats = MISTRAL if (Path(model) / "params.json").exists() else {}
        self._vllm = Vllm(stall_s, settings | formats | gpu_settings(gpu_memory, gpus, eager))
        self._generated = 0
        self.wait_dead = self._vllm.wait_dead

    async def start(self) -> None:
        """Raises `EngineFailed` when the model cannot be loaded."""
        await self._vllm.start(self._warm_up)

    async def stop(self) -> None:
        await self._vllm.stop()

    def generated(self) -> int:
        return self._generated

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        with self._vllm.priority() as first:
            stream = self._vllm.stream(lambda: self._chunks(request, first))
            async with aclosing(stream) as chunks:  # type: ignore[type-var]
                async with aclosing(deltas(request.session, chunks)) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        self._generated += bool(piece.text or piece.calls)
                        yield piece

    async def _warm_up(self) -> None:
        self._plain = self._new_serving(None)
        self._with_tools = self._new_serving(self._tool_parser)
        request = ChatRequest(0, (Message("user", "hello"),))
        hello = request._replace(options=request.options._replace(max_tokens=4))
        async for _ in self.reply(hello):
            pass

    async def _chunks(self, request: ChatRequest, priority: int) -> AsyncIterator[Any]:
        """OpenAI's chunks. Closing it aborts the request in the engine."""
        from openai.types.chat import ChatCompletionChunk
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        usage = {"include_usage": True, "continuous_usage_stats": True}
        fields = {"model": self._model, "priority": priority, "stream_options": usage}
        asked = ChatCompletionRequest.model_validate(completion(request) | fields)
        # vLLM builds its tool parser again for each reply: 130 ms for Mistral's
        serving = self._with_tools if request.options.tools else self._plain
        answer = await serving.create_chat_completion(asked)
        if not hasattr(answer, "__aiter__"):
            raise EngineFailed(f"the model cannot process this request: {answer.error.message}")
        async with aclosing(answer) as events:
            async for event in events:
                data = event.removeprefix("data: ").strip()
                if data == "[DONE]":
                    return
                if "error" in (chunk := json.loads(data)):
                    raise self._vllm.failure("the engine failed in the middle of a reply")
                yield ChatCompletionChunk.model_validate(chunk)

    def _new_serving(self, tool_parser: str | None) -> Any:
        from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
        from vllm.entrypoints.openai.models.protocol import BaseModelPath
        from vllm.entrypoints.openai.models.serving import OpenAIServingModels
        from vllm.renderers.online_renderer import OnlineRenderer

        engine = self._vllm.engine
        shared = {
            "request_logger": None,
            "chat_template": None,
            "chat_template_content_format": "auto",
            "enable_auto_tools": tool_parser is not None,
            "tool_parser": tool_parser,
            "reasoning_parser": self._reasoning_parser,
        }
        paths = [BaseModelPath(name=self._model, model_path=self._model)]
        return OpenAIServingChat(
            engine,
            OpenAIServingModels(engine, paths),
            response_role="assistant",
            online_renderer=OnlineRenderer(engine.model_config, engine.renderer, **shared),
            **shared,
        )
