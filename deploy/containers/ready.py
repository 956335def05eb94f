"""Exit code 0 if the server at that port of this container is ready: HEALTHCHECK, so without slow
imports. Without TLS, or else with it; the certificate is for other names than this one."""

import ssl
import sys
from http.client import HTTPConnection, HTTPSConnection, RemoteDisconnected

HERE = "127.0.0.1", int(sys.argv[1])


def is_ready(connection: HTTPConnection) -> bool:
    connection.request("GET", "/v1/ready")
    return connection.getresponse().status == 200


def find_out() -> bool:
    try:
        return is_ready(HTTPConnection(*HERE, timeout=2))
    except RemoteDisconnected:
        context = ssl._create_unverified_context()
        return is_ready(HTTPSConnection(*HERE, timeout=2, context=context))


try:
    sys.exit(not find_out())
except OSError as error:
    sys.exit(f"no server: {error}")
