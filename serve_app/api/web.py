"""`GET /web/…`: the files that browsers load from here, as the client `voxray.js`."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles


def install(app: FastAPI) -> None:
    app.mount("/web", StaticFiles(directory=str(files("serve_app") / "web")), "web")
