"""Exit code 0 if this container's server is ready: HEALTHCHECK, so without slow imports."""

import sys
from http.client import HTTPConnection

connection = HTTPConnection("127.0.0.1", 8000, timeout=4)
try:
    connection.request("GET", "/v1/ready")
    sys.exit(connection.getresponse().status != 200)
except OSError as error:
    sys.exit(f"no server: {error}")
