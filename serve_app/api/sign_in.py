"""`/v1/sign_in`: exchanges a key once for a cookie, for people who use the server's own page."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.gate import arrival
from serve_app.errors import ClientError
from serve_app.identity.credentials import MAX_CHARS
from serve_app.identity.gate import Gate
from serve_app.identity.principal import EVERYBODY, Principal
from serve_app.identity.routes import ANY_KEY
from serve_app.security.sign_in import cookie, signed
from serve_app.security.signing import SigningKeys


class SignInAsked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=MAX_CHARS, repr=False)


class SignInRoutes:
    """`lasts_s`: seconds for which a sign-in is valid, if its key is."""

    def __init__(self, gate: Gate, keys: SigningKeys, lasts_s: int) -> None:
        self._gate = gate
        self._keys = keys
        self._lasts_s = lasts_s

    def router(self) -> APIRouter:
        routes = APIRouter(tags=["keys"])
        routes.get("/v1/sign_in")(self.who)
        routes.post("/v1/sign_in")(self.sign_in)
        routes.delete("/v1/sign_in", status_code=204)(self.sign_out)
        return routes

    async def who(self, request: Request) -> dict[str, Any]:
        """Who the caller is, by key or cookie, and whether a key is needed at all."""
        if not self._gate.needs_keys:
            return self._told(EVERYBODY)
        came = arrival(request.scope)
        try:
            if not self._gate.shows_anything(came):  # asking is no attempt to get in
                return self._told(None)
            return self._told(await self._gate.admitted(ANY_KEY, came))
        except ClientError as error:
            if error.status != 401:
                raise
            return self._told(None)

    async def sign_in(self, asked: SignInAsked, request: Request, response: Response) -> Any:
        """Sets a cookie (HttpOnly, SameSite=Strict) that is worth what the key is, for pages of
        this server only. The key is not stored in it."""
        if not self._gate.needs_keys:
            return self._told(EVERYBODY)
        came = arrival(request.scope)._replace(in_band=(asked.key,))
        who = await self._gate.admitted(ANY_KEY, came)
        until = int(min(time.time() + self._lasts_s, who.expires or float("inf")))
        value = signed(self._keys, who, until)
        lasts_s = max(0, until - int(time.time()))
        response.headers["Set-Cookie"] = cookie(value, request.headers, lasts_s)
        return self._told(who, until)

    async def sign_out(self, request: Request) -> Response:
        """Deletes the cookie."""
        return Response(status_code=204, headers={"Set-Cookie": cookie("", request.headers, 0)})

    def _told(self, who: Principal | None, expires: float | None = None) -> dict[str, Any]:
        return {
            "object": "sign_in",
            "needs_key": self._gate.needs_keys,
            "signed_in": who is not None,
            "tenant": who.tenant if who else None,
            "scopes": sorted(who.scopes) if who else [],
            "expires": expires or (who.expires if who else None),
        }
