"""The rules of the house, read off the syntax trees."""

import ast
import builtins
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("serve_app/**/*.py"), *ROOT.glob("deployments/**/*.py")])

MAY_IMPORT_RAY = {
    "serve_app/app.py",
    "serve_app/replicas.py",
    "serve_app/cluster/serve_handles.py",
    "serve_app/cluster/serve_ports.py",
    "serve_app/cluster/serve_shutdown.py",
}
HEAVY = {
    "torch",
    "vllm",
    "kokoro",
    "librosa",
    "pocketsphinx",
    "av",
    "webrtcvad",
    "sounddevice",
    "openai",
}
LAYERS = {"deployments/speaker/kokoro_batch.py"}  # subclasses of PyTorch's; imported where needed
PURE = [
    "deployments/audio.py",
    "deployments/diarizer/cepstra.py",
    "deployments/fairness.py",
    "deployments/diarizer/gaussians.py",
    "deployments/speaker/blend.py",
    "deployments/speaker/phonemes.py",
    "deployments/transcriber/token_clock.py",
    "deployments/transcriber/windows.py",
    *(f"serve_app/admission/{name}.py" for name in ("budget", "ladder", "places", "pressure")),
    "serve_app/identity/client_address.py",
    *(
        f"serve_app/client/{name}.py"
        for name in ("continuity", "errors", "events", "options", "retained_audio")
    ),
    *(
        f"serve_app/identity/{name}.py"
        for name in ("api_key", "login_refused", "principal", "subject", "tenant", "token_keys")
    ),
    "serve_app/observability/audit_events.py",
    "serve_app/live/backlog.py",
    "serve_app/identity/origins.py",
    "serve_app/jobs/webhooks/addresses.py",
    "serve_app/security/client_secret.py",
    "serve_app/security/keys.py",
    "serve_app/security/resume_token.py",
    "serve_app/security/signing.py",
    "serve_app/security/json_bounds.py",
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("serve_app/dialects/*.py")),
    "serve_app/conversation/history.py",
    "serve_app/api/ranges.py",
    *(
        f"serve_app/jobs/{name}.py"
        for name in (
            "alignment",
            "export",
            "job",
            "joining",
            "keyring",
            "media",
            "music",
            "private",
            "quality",
            "report",
            "retention",
            "result",
            "encryption",
            "tables",
            "windowing",
        )
    ),
    "serve_app/conversation/context_window.py",
    "serve_app/live/options.py",
    "serve_app/models/gpu_plan.py",
    "serve_app/lanes/quarantine.py",
    "serve_app/lanes/load.py",
    "serve_app/conversation/reply.py",
    "serve_app/cluster/scaling.py",
    "deployments/speaker/clauses.py",
    "serve_app/config/runtime.py",
    "serve_app/live/events.py",
    "serve_app/live/session.py",
    "serve_app/live/audio_buffer.py",
    "serve_app/live/fence.py",
    "serve_app/live/limit_errors.py",
    "serve_app/live/resume_point.py",
    "serve_app/live/pace.py",
    "serve_app/live/tally.py",
    "serve_app/live/utterances.py",
    "serve_app/live/transcript.py",
    "serve_app/conversation/events.py",
    "serve_app/conversation/turn.py",
    "serve_app/conversation/replies.py",
    "serve_app/usage/meter.py",
    *(
        f"serve_app/limits/{name}.py"
        for name in ("account", "day", "lease", "refusals", "settings", "standing", "window")
    ),
    *(f"serve_app/identity/{name}.py" for name in ("credentials", "routes")),
]
IMPURE = {"asyncio", "time", "logging", "threading", "random", "os", "anyio", "datetime"}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "handler", "common", "misc"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(node: ast.AST) -> Iterator[str]:
    """The packages that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
        yield node.module.split(".")[0]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_ray_is_known_in_few_places(path: Path) -> None:
    if name(path) in MAY_IMPORT_RAY or "/cli/" in name(path):
        return
    assert "ray" not in {found for node in ast.walk(tree(path)) for found in imports(node)}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_heavy_imports_wait_until_they_are_needed(path: Path) -> None:
    if name(path) in LAYERS:
        return
    assert not HEAVY & {found for node in tree(path).body for found in imports(node)}


def exception_classes() -> set[str]:
    """The names of all exceptions: Python's own, and what the sources derive from them."""
    found = {key for key, it in vars(builtins).items() if is_exception(it)}
    classes = [
        node for path in SOURCES for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)
    ]
    for _ in range(5):  # as deep as they derive
        found |= {it.name for it in classes if found & {ast.unparse(base) for base in it.bases}}
    return found


def is_exception(it: object) -> bool:
    return isinstance(it, type) and issubclass(it, BaseException)


EXCEPTIONS = exception_classes()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_exception_is_shared(path: Path) -> None:
    """Each raise adds to an exception's traceback, which keeps every frame in it alive."""
    module = tree(path)
    owners: list[ast.Module | ast.ClassDef] = [module]
    owners += [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    assigned = [it for at in owners for it in at.body if isinstance(it, ast.Assign | ast.AnnAssign)]
    calls = [it for at in assigned for it in ast.walk(at) if isinstance(it, ast.Call)]
    assert not EXCEPTIONS & {ast.unparse(call.func).split(".")[-1] for call in calls}


@pytest.mark.parametrize("file", PURE)
def test_pure_files_await_nothing_and_read_no_clock(file: str) -> None:
    module = tree(ROOT / file)
    assert not IMPURE & {found for node in ast.walk(module) for found in imports(node)}
    assert not any(isinstance(node, ast.Await | ast.AsyncFunctionDef) for node in ast.walk(module))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_named_for_what_they_do_and_explain_themselves(path: Path) -> None:
    assert path.stem not in EMPTY_NAMES
    assert ast.get_docstring(tree(path)), "a module says what it is"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_deployments_know_nothing_of_the_application(path: Path) -> None:
    if name(path).startswith("deployments/"):
        assert "serve_app" not in {f for node in ast.walk(tree(path)) for f in imports(node)}


def test_public_classes_are_named_once() -> None:
    """Two classes of one name are read as one."""
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(name(path))
    assert {it: where for it, where in found.items() if len(where) > 1} == {}


def test_no_loop_waits_for_a_handle() -> None:
    """Serve asks Ray's head for one, and blocks: without a head, every session of the loop."""
    tree = ast.parse((ROOT / "serve_app/replicas.py").read_text())
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    asked = [loop.name for loop in loops if "get_deployment_handle" in ast.unparse(loop)]
    assert loops and not asked


def test_functions_are_short() -> None:
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    )
    assert lengths[len(lengths) // 2] < 10
    assert lengths[int(len(lengths) * 0.95)] <= 40


def test_importing_the_transcriber_costs_nothing() -> None:
    import subprocess
    import sys

    check = (
        "import sys, deployments.transcriber; sys.exit(bool({'numpy', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def module(path: Path) -> str:
    return name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_no_files_import_each_other() -> None:
    """At the top of a file or within a function."""
    modules = {module(path) for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        found = graph.setdefault(module(path), set())
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules
                found |= inner or ({node.module} & modules)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
