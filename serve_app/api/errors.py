"""Renders the errors of all routes in OpenAI's shape, without internal details."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from serve_app.api.methods import allowed
from serve_app.errors import ClientError, field, reason
from serve_app.observability.metrics import Metrics
from serve_app.observability.requests import route_of, tenant_of

log = logging.getLogger("voxray.api")

UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade"}
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def install(app: FastAPI, metrics: Metrics) -> None:
    """Render errors and count them by code."""

    async def on_client_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ClientError)
        return _answer(error, metrics)

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            return _on_method(request, metrics)
        code = HTTP_CODES.get(error.status_code, "invalid_request")
        message = f"{request.method} {request.url.path}: {error.detail}"
        return _answer(ClientError(code, message), metrics, error.status_code, error.headers)

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _answer(_invalid(error), metrics)

    async def on_bug(request: Request, error: Exception) -> Response:
        scope = request.scope
        fields = {"method": request.method, "route": route_of(scope), "tenant": tenant_of(scope)}
        log.error("request_failed", exc_info=error, extra=fields)
        return _answer(ClientError("internal_error", "Internal error; see the server log"), metrics)

    app.add_exception_handler(ClientError, on_client_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_bug)


def _on_method(request: Request, metrics: Metrics) -> Response:
    """The path supports other methods; OPTIONS asks for them."""
    allow = allowed(request)
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": allow})
    reason = f"{request.method} {request.url.path}: this path supports only {allow}"
    return _answer(ClientError("method_not_allowed", reason), metrics, headers={"Allow": allow})


def _invalid(error: RequestValidationError) -> ClientError:
    first = error.errors()[0]
    where, *location = first["loc"]
    if first["type"] == "json_invalid":
        return ClientError("invalid_json", f"the body is not JSON: {first['ctx']['error']}")
    if where == "body":
        param = field(location, error.body, first["type"] == "missing")
    else:
        param = ".".join(map(str, location))
    message = f"{param}: {reason(first)}" if param else reason(first)
    return ClientError("invalid_request", message, param=param or None)


SHOULD_RETRY = {"rate_limit_exceeded": "true", "quota_exceeded": "false"}
"""Tells OpenAI's clients whether to try again. Without it they try again after every 429."""


def error_headers(error: ClientError) -> dict[str, str]:
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.code in SHOULD_RETRY:
        headers["x-should-retry"] = SHOULD_RETRY[error.code]
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    elif error.code == "missing_scope":
        headers["WWW-Authenticate"] = 'Bearer error="insufficient_scope"'
    return headers


def _answer(
    error: ClientError, metrics: Metrics, status: int | None = None, headers: object = None
) -> Response:
    metrics.count_error(error.code)
    return JSONResponse(
        error.body(),
        status or error.status,
        {
            **(headers if isinstance(headers, dict) else {}),
            **error_headers(error),
            **(UPGRADE if error.code == "upgrade_required" else {}),
        },
    )
