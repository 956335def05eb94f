"""vLLM's `AsyncLLM`, supervised: one engine in child processes.

vLLM waits forever for an engine that hangs, and requests to a dead engine get no answer. So a
heartbeat goes through the engine's own loop. When it takes longer than `stall_s`, or vLLM reports
that the engine is dead, or one of its processes is stopped, all are killed and `wait_dead` returns.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import psutil

from deployments.fairness import LEAST, PAYER, FairShares
from deployments.frozen import stopped
from deployments.gpu import exclusive_gpu
from deployments.interfaces import EngineDied, EngineFailed

log = logging.getLogger("voxray.vllm")

STOP_LOOK_S = 1.0

BATCH = 1 << 40
"""Added to the priority of parts of recordings."""

MISTRAL = {
    "tokenizer_mode": "mistral",
    "config_format": "mistral",
    "load_format": "mistral",
    "generation_config": "vllm",  # otherwise vLLM retries to find a file that does not exist
}
"""Mistral's file format: params.json, tekken.json, consolidated.safetensors."""


class Vllm:
    """`settings` are `AsyncEngineArgs`; see docs.vllm.ai, "Engine Arguments"."""

    def __init__(self, stall_s: float, settings: dict[str, Any]) -> None:
        self._stall_s = stall_s
        self._settings = settings
        self._shares = FairShares()
        self._processes: list[psutil.Process] = []
        self._death: str | None = None
        self._dead = asyncio.Event()
        self._watches: list[asyncio.Task[None]] = []
        self.engine: Any = None

    async def start(self, warm_up: Callable[[], Awaitable[None]]) -> None:
        """Load the model and run a first request, which compiles kernels and may take minutes.

        Raises `EngineFailed` with the reason when the model cannot be loaded.
        """
        before = _children()
        try:
            self.engine = await asyncio.to_thread(self._load)
        except Exception as error:  # vLLM raises many kinds
            _kill(_children() - before)
            raise EngineFailed(f"vLLM cannot load {self._settings['model']}: {error}") from error
        self._processes = list(_children() - before)
        await warm_up()
        self._watches = [
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._watch_stops()),
        ]

    async def generate(
        self, prompt: Any, params: Any, name: str, batch: bool = False, cost: float = 1.0
    ) -> AsyncIterator[Any]:
        """vLLM's outputs for a prompt or a stream of inputs; closing it aborts the request."""
        with self.priority(cost, batch) as first:
            request = self.stream(
                lambda: self.engine.generate(prompt, params, name, priority=first)
            )
            async with contextlib.aclosing(request) as outputs:  # type: ignore[type-var]
                async for output in outputs:
                    yield output

    @contextlib.contextmanager
    def priority(self, cost: float = 1.0, batch: bool = False) -> Iterator[int]:
        """Of a request, while it is open: lower ones are scheduled first. Live requests go before
        those with `batch`, and the `PAYER` who has had the least before others."""
        ticket = self._shares.ticket(PAYER.get(), cost, batch)
        try:
            yield int(ticket.rank / LEAST) + batch * BATCH
        finally:
            self._shares.end(ticket)

    async def stream(self, call: Callable[[], Any]) -> AsyncIterator[Any]:
        """Iterate over the generator that `call` returns; closing this closes it.

        Raises `EngineFailed` for a request that vLLM refuses, `EngineDied` when the engine is dead.
        """
        with self._failures():
            async with contextlib.aclosing(call()) as items:
                async for item in items:
                    yield item

    async def rendered(self, prompt: Any) -> Any:
        """The engine's input for a prompt: text as tokens, audio as features."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        parsed = parse_model_prompt(self.engine.model_config, prompt)
        (rendered,) = await self.engine.renderer.render_cmpl_async([parsed])
        return rendered

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without control tokens."""
        text: str = self.engine.get_tokenizer().decode(list(tokens))
        return text

    async def wait_dead(self) -> str:
        await self._dead.wait()
        return self._death or ""

    def failure(self, reason: str) -> Exception:
        """The exception to raise where vLLM only reports that something went wrong."""
        if self._death is None and not self.engine.errored:
            return EngineFailed(reason)
        self.die("its process ended")
        return EngineDied(self._death)

    def die(self, reason: str) -> None:
        """Kill the engine's processes, also stopped ones, because they hold the GPU's memory."""
        if self._death is None:
            log.error("engine_died", extra={"kind": "vllm"})
            self._death = reason
            _kill(self._processes)
            self._dead.set()

    async def stop(self) -> None:
        for task in self._watches:
            task.cancel()
        if self.engine and self._death is None:
            await asyncio.to_thread(self.engine.shutdown)
        _kill(self._processes)

    def _load(self) -> Any:
        _environment()
        with exclusive_gpu():
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            return AsyncLLM.from_engine_args(AsyncEngineArgs(**self._settings))

    async def _watch_stops(self) -> None:
        """Owned by `_watches`. A stopped process is found sooner than one that hangs."""
        while True:
            await asyncio.sleep(STOP_LOOK_S)
            if any(map(stopped, self._processes)):
                self.die("one of its processes is stopped")
                return

    async def _watch(self) -> None:
        """Owned by `_watches`. The heartbeat is a call that the engine's own loop must answer."""
        while True:
            await asyncio.sleep(self._stall_s / 4)
            try:
                async with asyncio.timeout(self._stall_s):
                    await self.engine.is_sleeping()
            except TimeoutError:
                self.die(f"no heartbeat for {self._stall_s:g} s")
                return
            except Exception as error:  # EngineDeadError, or ZeroMQ's error for a closed socket
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
            raise EngineFailed(f"the model cannot process this request: {error}") from error


def _children() -> set[psutil.Process]:
    """The child processes, except Python's resource tracker."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may have ended
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.add(child)
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _environment() -> None:
    """Set before the first import of vllm. Engines send no statistics."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; the default is half of all memory
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def new_tokens(output: Any) -> list[tuple[int, float]]:
    """The new tokens of an output, each with its log-probability."""
    return [
        (token, logprobs[token].logprob)
        for completion in output.outputs[:1]
        for token, logprobs in zip(completion.token_ids, completion.logprobs, strict=True)
    ]


def gpu_settings(memory: float, gpus: int, eager: bool) -> dict[str, Any]:
    """Settings for a share of a GPU, or for several whole ones."""
    settings: dict[str, Any] = {"enforce_eager": eager, "enable_log_requests": False}
    settings["scheduling_policy"] = "priority"
    settings["tensor_parallel_size"] = gpus
    if memory:
        settings["gpu_memory_utilization"] = memory
    if not eager:
        # Voxtral Realtime refuses pure FULL graphs
        settings["compilation_config"] = {"cudagraph_mode": "FULL_AND_PIECEWISE"}
    return settings
