"""`GET /docs`: Swagger UI from an installed package, so that it works without the internet."""

from importlib.resources import files

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
"""Swagger UI writes styles into its elements, hence 'unsafe-inline' for them."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>voxray API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true});\n'


def install(app: FastAPI) -> None:
    assets = str(files("fastapi_offline") / "static")
    app.mount("/docs/assets", StaticFiles(directory=assets), "docs assets")
    app.include_router(_router())


def _router() -> APIRouter:
    routes = APIRouter(prefix="/docs", include_in_schema=False)

    @routes.get("")
    async def page() -> Response:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": CSP})

    @routes.get("/start.js")
    async def start() -> Response:
        return Response(START, media_type="text/javascript")

    return routes
