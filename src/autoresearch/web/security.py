"""Decides on every request before a page sees it, and limits what a page may do in the browser.

- The name in `Host` must be one of this server's, so that a foreign name that resolves to this
  address (DNS rebinding) reads nothing.
- Another site's page can neither read from here nor post to here: `Origin` and `Sec-Fetch-Site`
  must be this server's own, and a post needs a header that a form of another site cannot set.
- With a token, nothing is answered without it: in the address once, then in a cookie.
- Answers forbid inline scripts, other hosts, frames, and guessing a file's type.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OWN_HEADER = "x-autoresearch"  # of a post; a form of another site cannot set it
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Rules:
    """`token`: None for a page that needs none. `names`: host names beside the loopback's.
    `is_loopback`: nothing but this machine can connect."""

    token: str | None
    is_loopback: bool
    port: int
    names: frozenset[str] = field(default_factory=frozenset)

    @property
    def cookie(self) -> str:
        """The cookie's name: browsers share cookies among the ports of a host."""
        return f"autoresearch-{self.port}"

    def is_own_name(self, host: str) -> bool:
        """Whether the `Host` of a request is this server's. A numeric address cannot be rebound."""
        name = (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
        if name in LOOPBACK_NAMES or name in self.names:
            return True
        return not self.is_loopback and _is_address(name)

    def is_right(self, token: str) -> bool:
        return self.token is not None and hmac.compare_digest(token.encode(), self.token.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Gate:
    """ASGI middleware that applies `Rules`."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refuse(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refuse(self, scope: Scope) -> Response | None:
        """An answer in the page's place; None to let the request pass."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not _parses(host) or not self._is_own(host):
            return PlainTextResponse(
                f"{host!a} is no name of this server: use the address that `autoresearch watch` "
                "printed, or add the name by --name\n",
                421,
            )
        if trouble := _find_foreign(scope["method"], headers, host):
            return PlainTextResponse(f"refused: {trouble}\n", 403)
        return None if self._rules.token is None else self._ask_token(scope, headers)

    def _is_own(self, host: str) -> bool:
        return self._rules.is_own_name(host)

    def _ask_token(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and self._rules.is_right(given):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            path = "/" + scope["path"].lstrip("/")  # `//host` would lead to another server
            response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            response.set_cookie(self._rules.cookie, given, httponly=True, samesite="lax")
            return response
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._rules.is_right(bearer) or self._rules.is_right(self._read_cookie(headers)):
            return None
        text = "this page needs a token: open the address that `autoresearch watch` printed\n"
        return PlainTextResponse(text, 401)

    def _read_cookie(self, headers: Headers) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._rules.cookie)
        except CookieError:
            return ""
        return morsel.value if morsel else ""


def _parses(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname is not None and "/" not in host and "@" not in host
    except ValueError:
        return False


def _find_foreign(method: str, headers: Headers, host: str) -> str | None:
    """What shows that another site's page makes this request; None if nothing does."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and urlsplit(origin).netloc != host:
        return "it comes from a page of another site"
    if method in ("GET", "HEAD"):
        is_link = headers.get("sec-fetch-mode") == "navigate"
        foreign = site in ("cross-site", "same-site") and not is_link
        return "it comes from a page of another site" if foreign else None
    if method != "POST":
        return f"the method {method}"
    if site not in (None, "same-origin"):
        return "it comes from a page of another site"
    if headers.get(OWN_HEADER) is None:
        return f"a post needs the header {OWN_HEADER}"
    return None
