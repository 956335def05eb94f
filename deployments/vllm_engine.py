"""vLLM's `AsyncLLM`, watched: one engine in processes of its own under this one.

vLLM never gives up on an engine that hangs, and an engine that died answers nobody who asks from
then on. So a heartbeat goes through the engine's own loop: when it stays away for `stall_s`, or
vLLM says that the engine is dead, its processes are killed and `died` returns.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import psutil

from deployments.gpu import alone_on_the_gpu
from deployments.interfaces import EngineDied, EngineFailed

log = logging.getLogger("voxray.vllm")

MISTRAL = {
    "tokenizer_mode": "mistral",
    "config_format": "mistral",
    "load_format": "mistral",
    "generation_config": "vllm",  # ours: vLLM would look for a file that is not there, with pauses
}
"""Voxtral is read in Mistral's own format: params.json, tekken.json, consolidated.safetensors."""


class Vllm:
    """`settings` are `AsyncEngineArgs`; see docs.vllm.ai, "Engine Arguments"."""

    def __init__(self, stall_s: float, settings: dict[str, Any]) -> None:
        self._stall_s = stall_s
        self._settings = settings
        self._processes: list[psutil.Process] = []
        self._death: str | None = None
        self._dead = asyncio.Event()
        self._heartbeat: asyncio.Task[None] | None = None
        self.engine: Any = None

    async def start(self, warm_up: Callable[[], Awaitable[None]]) -> None:
        """Load the model and ask it a first time, which compiles kernels and may take its time.

        Raises `EngineFailed` with the reason when it cannot be loaded.
        """
        before = _children()
        try:
            self.engine = await asyncio.to_thread(self._load)
        except Exception as error:  # vLLM raises of every kind: a path, a size, a child that died
            _kill(_children() - before)
            raise EngineFailed(f"vLLM cannot load {self._settings['model']}: {error}") from error
        self._processes = list(_children() - before)
        await warm_up()
        self._heartbeat = asyncio.create_task(self._watch())

    def generate(
        self, prompt: Any, params: Any, name: str, batch: bool = False
    ) -> AsyncIterator[Any]:
        """vLLM's outputs for a prompt or a stream of inputs; closing it aborts the request.

        What is `batch` is scheduled after everything that somebody waits for."""
        return self.ask(lambda: self.engine.generate(prompt, params, name, priority=int(batch)))

    async def ask(self, call: Callable[[], Any]) -> AsyncIterator[Any]:
        """What the generator that `call` makes yields; closing this closes that.

        Raises `EngineFailed` for a request that vLLM refuses, `EngineDied` when the engine is gone.
        """
        with self._failures():
            async with contextlib.aclosing(call()) as items:
                async for item in items:
                    yield item

    async def rendered(self, prompt: Any) -> Any:
        """A prompt as the engine takes it: text as tokens, audio as features."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        parsed = parse_model_prompt(self.engine.model_config, prompt)
        (rendered,) = await self.engine.renderer.render_cmpl_async([parsed])
        return rendered

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, control tokens left out."""
        text: str = self.engine.get_tokenizer().decode(list(tokens))
        return text

    async def died(self) -> str:
        await self._dead.wait()
        return self._death or ""

    def failure(self, reason: str) -> Exception:
        """What to raise where vLLM only says that something went wrong."""
        if self._death is None and not self.engine.errored:
            return EngineFailed(reason)
        self.die("its process ended")
        return EngineDied(self._death)

    def die(self, reason: str) -> None:
        """Take the engine's processes down: stopped ones, too, for they hold the GPU's memory."""
        if self._death is None:
            log.error("the engine died: %s", reason)
            self._death = reason
            _kill(self._processes)
            self._dead.set()

    async def stop(self) -> None:
        if self._heartbeat:
            self._heartbeat.cancel()
        if self.engine and self._death is None:
            await asyncio.to_thread(self.engine.shutdown)
        _kill(self._processes)

    def _load(self) -> Any:
        _environment()
        with alone_on_the_gpu():
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            return AsyncLLM.from_engine_args(AsyncEngineArgs(**self._settings))

    async def _watch(self) -> None:
        """Owned by `_heartbeat`. A question that the engine's own loop must answer is its pulse."""
        while True:
            await asyncio.sleep(self._stall_s / 4)
            try:
                async with asyncio.timeout(self._stall_s):
                    await self.engine.is_sleeping()
            except TimeoutError:
                self.die(f"no sign of life for {self._stall_s:g} s")
                return
            except Exception as error:  # EngineDeadError, or what ZeroMQ says of a closed socket
                self.die(type(error).__name__)
                return

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except EngineDeadError as error:
            self.die("its process ended")
            raise EngineDied(self._death) from error
        except (VLLMClientError, ValueError) as error:
            raise EngineFailed(f"the model cannot take this: {error}") from error


def _children() -> set[psutil.Process]:
    """This process's, but for Python's own resource tracker."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may be gone by now
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.add(child)
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _environment() -> None:
    """Before the first import of vllm. Nothing is fetched or reported by an engine."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; half of all memory otherwise
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def written(output: Any) -> list[tuple[int, float]]:
    """The tokens that an output adds, each with its log-probability."""
    return [
        (token, logprobs[token].logprob)
        for completion in output.outputs[:1]
        for token, logprobs in zip(completion.token_ids, completion.logprobs, strict=True)
    ]


def gpu_settings(memory: float, gpus: int, eager: bool) -> dict[str, Any]:
    """The settings that follow from a share of a GPU, or from several whole ones."""
    settings: dict[str, Any] = {"enforce_eager": eager, "enable_log_requests": False}
    settings["scheduling_policy"] = "priority"
    settings["tensor_parallel_size"] = gpus
    if memory:
        settings["gpu_memory_utilization"] = memory
    if not eager:
        # pure FULL graphs are asserted against by Voxtral Realtime
        settings["compilation_config"] = {"cudagraph_mode": "FULL_AND_PIECEWISE"}
    return settings
