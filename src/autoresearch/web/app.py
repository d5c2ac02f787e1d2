"""Maps addresses to pages. Every page is HTML from a template that escapes what it is given."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from autoresearch import formatting
from autoresearch.commands import steer
from autoresearch.errors import AutoresearchError, LedgerError
from autoresearch.report import text
from autoresearch.report.experiments import format_metric
from autoresearch.report.page import describe_trends
from autoresearch.store.imported import ImportedNight
from autoresearch.web import details
from autoresearch.web.chart import chart_data
from autoresearch.web.lineage import list_lineage
from autoresearch.web.model import (
    SORTS,
    Models,
    Selection,
    SessionModel,
    list_statuses,
    select,
)
from autoresearch.web.places import Place
from autoresearch.web.security import Gate, Rules
from autoresearch.web.timing import compare_agents, read_timing

HERE = Path(__file__).parent
ACTIONS = {"pause": steer.pause, "resume": steer.resume, "end": steer.end}
STREAM_S = 0.5  # between two looks of an open stream
ALIVE_LOOKS = 30  # looks without news after which a stream shows that it is alive


def make_app(
    places: Sequence[Place],
    rules: Rules,
    *,
    has_control: bool = False,
    is_ending: Callable[[], bool] = lambda: False,
) -> Starlette:
    """Make the application. `is_ending` tells open streams that the server ends."""
    return Site(places, rules, has_control, is_ending).make()


class Site:
    """The pages of some task folders."""

    def __init__(
        self,
        places: Sequence[Place],
        rules: Rules,
        has_control: bool,
        is_ending: Callable[[], bool],
    ) -> None:
        self._places = {place.name: place for place in places}
        self._rules = rules
        self._has_control = has_control
        self._is_ending = is_ending
        self._models = Models()
        self._templates = make_templates()

    def make(self) -> Starlette:
        session = [
            Route("/", self.session),
            Route("/events", self.events),
            Route("/chart", self.chart),
            Route("/table", self.table),
            Route("/panels", self.panels),
            Route("/compare", self.compare),
            *([Route("/control/{action}", self.control, methods=["POST"])] * self._has_control),
            Route("/{number:int}", self.experiment),
            Route("/{number:int}/log/{run:int}", self.log),
        ]
        routes = [
            Route("/", self.overview),
            Mount("/static", StaticFiles(directory=HERE / "static")),
            Mount("/s/{place}/{tag}", routes=session),
            Route("/imported/{place}/{tag}", self.night),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(Gate, self._rules)],
            exception_handlers={
                AutoresearchError: self._show_error,
                HTTPException: self._show_error,
            },
        )

    # ---- pages -----------------------------------------------------------------------------

    def overview(self, request: Request) -> Response:
        """All sessions of all folders, the latest first."""
        shown = [self._list_place(place) for place in self._places.values()]
        every = [entry for place in shown for entry in place["sessions"]]
        has_nights = any(place["nights"] for place in shown)
        if (
            len(every) == 1
            and len(shown) == 1
            and not has_nights
            and "all" not in request.query_params
        ):
            return RedirectResponse(every[0]["url"], 303)
        return self._page(request, "overview.html", "_overview.html", places=shown)

    def _list_place(self, place: Place) -> dict[str, Any]:
        entries, trouble = [], ""
        nights: list[ImportedNight] = []
        try:
            records = place.list_sessions()
            nights = place.list_nights()
        except AutoresearchError as error:
            records, trouble = [], str(error)
        for record in reversed(records):
            try:
                model = self._models.get(place, record.tag)
                entries.append({"model": model, "summary": model.summary, "trouble": ""})
            except AutoresearchError as error:
                entries.append({"model": None, "summary": None, "trouble": str(error)})
            entries[-1] |= {"tag": record.tag, "url": _address(place, record.tag)}
        return {"place": place, "sessions": entries, "nights": nights, "trouble": trouble}

    def night(self, request: Request) -> Response:
        """An imported night: a table. Raises `LedgerError` if it is not there."""
        place, tag = self._place(request), request.path_params["tag"]
        night = next((night for night in place.list_nights() if night.tag == tag), None)
        if night is None:
            raise LedgerError(f"no imported night {tag!r} here")
        return self._page(request, "imported.html", None, place=place, night=night)

    def session(self, request: Request) -> Response:
        model = self._model(request)
        return self._page(
            request,
            "session.html",
            None,
            model=model,
            summary=model.summary,
            running=details.list_running(model),
            page=select(model.summary.recent, Selection()),
            wanted=Selection(),
        )

    def chart(self, request: Request) -> Response:
        return JSONResponse(chart_data(self._model(request).summary, _number(request, "after", -1)))

    def table(self, request: Request) -> Response:
        model, query = self._model(request), request.query_params
        wanted = Selection(
            query.get("status", ""),
            query.get("agent", ""),
            query.get("text", ""),
            query.get("sort", "number"),
            query.get("order", "") == "up",
            _number(request, "page", 1),
        )
        summary = model.summary
        page = select(summary.recent, wanted)
        return self._fragment("_table.html", model=model, summary=summary, page=page, wanted=wanted)

    def panels(self, request: Request) -> Response:
        """What the first paint does not wait for."""
        model = self._model(request)
        summary, ledger, record = model.summary, model.ledger, model.record
        return self._fragment(
            "_panels.html",
            model=model,
            summary=summary,
            lineage=list_lineage(ledger, record, summary),
            timing=read_timing(ledger, record),
            agents=compare_agents(ledger, record, summary),
            machine=describe_trends(summary.machine) if summary.machine else "",
        )

    def experiment(self, request: Request) -> Response:
        model = self._model(request)
        shown = details.read_details(
            model, request.path_params["number"], shows_scores=self._shows_scores
        )
        return self._page(
            request,
            "experiment.html",
            "_experiment.html",
            model=model,
            summary=model.summary,
            shown=shown,
            headings=details.RUN_HEADINGS,
        )

    def compare(self, request: Request) -> Response:
        model = self._model(request)
        old, new = _number(request, "a", 0), _number(request, "b", 0)
        shown = details.compare_experiments(model, old, new)
        return self._page(
            request,
            "compare.html",
            "_compare.html",
            model=model,
            summary=model.summary,
            shown=shown,
        )

    def log(self, request: Request) -> Response:
        model, given = self._model(request), request.path_params
        number, run = given["number"], given["run"]
        output = details.read_log(model, number, run, shows_scores=self._shows_scores)
        return PlainTextResponse(output)

    async def control(self, request: Request) -> Response:
        """Do one of `ACTIONS`. The body of a note is its text."""
        action = request.path_params["action"]
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > 4 * steer.LONGEST_NOTE:  # bytes of a character, at most
                return PlainTextResponse(f"accepted: {steer.LONGEST_NOTE:,} characters", 413)
        try:
            told = await run_in_threadpool(self._steer, request, action, body)
        except AutoresearchError as error:
            return PlainTextResponse(str(error), 409)
        return PlainTextResponse(told) if told else PlainTextResponse("no such action", 404)

    def _steer(self, request: Request, action: str, body: bytes) -> str:
        paths = self._model(request).paths
        if action == "note":
            steer.leave_note(paths, steer.USER, body.decode(errors="replace"))
            return "The next briefing has the note."
        return ACTIONS[action](paths) if action in ACTIONS else ""

    @property
    def _shows_scores(self) -> bool:
        """Without a token, programs of this machine can read the page, agents among them."""
        return self._rules.token is not None

    # ---- the stream ------------------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Send what changes, as server-sent events, until the page is closed."""
        model = await run_in_threadpool(self._model, request)
        return StreamingResponse(self._follow(model), media_type="text/event-stream")

    async def _follow(self, model: SessionModel) -> AsyncIterator[str]:
        sent, quiet = {"version": "", "head": "", "now": "", "trouble": ""}, 0
        yield "retry: 2000\n\n"
        while not self._is_ending():
            news = await run_in_threadpool(self._read_news, model)
            fresh = {name: value for name, value in news.items() if sent[name] != value}
            sent |= news
            quiet = 0 if fresh else quiet + 1
            if fresh:
                yield f"data: {json.dumps(fresh)}\n\n"
            elif quiet % ALIVE_LOOKS == 0:
                yield ": alive\n\n"
            await asyncio.sleep(STREAM_S)

    def _read_news(self, model: SessionModel) -> dict[str, str]:
        """The parts of the page that change, as they are now."""
        try:
            version = model.look()
            given = {"model": model, "summary": model.summary}
            head = self._render("_head.html", **given)
            now = self._render("_now.html", **given, running=details.list_running(model))
            return {"version": str(version), "head": head, "now": now, "trouble": ""}
        except AutoresearchError as error:
            return {"trouble": formatting.one_line(str(error))}

    # ---- what pages share ------------------------------------------------------------------

    def _model(self, request: Request) -> SessionModel:
        """The session that an address names. Raises `LedgerError` if it is not there."""
        return self._models.get(self._place(request), request.path_params["tag"])

    def _place(self, request: Request) -> Place:
        name = request.path_params["place"]
        if name not in self._places:
            known = ", ".join(self._places) or "none"
            raise LedgerError(f"no task {name!r} here; there are: {known}")
        return self._places[name]

    def _page(self, request: Request, name: str, part: str | None, /, **given: Any) -> Response:
        """A whole page; only its `part` if a script asks for that."""
        if part is not None and "part" in request.query_params:
            return self._fragment(part, **given)
        theme = request.cookies.get("theme", "")
        return HTMLResponse(self._render(name, theme=theme, **given))

    def _fragment(self, name: str, **given: Any) -> Response:
        return HTMLResponse(self._render(name, **given))

    def _render(self, name: str, **given: Any) -> str:
        given = {"theme": "", "now": time.time(), "has_control": self._has_control} | given
        return self._templates.get_template(name).render(**given)

    async def _show_error(self, request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            status, message = error.status_code, str(error.detail)
        else:
            status, message = 404, str(error)
        if "part" in request.query_params:
            return self._error("_error.html", message, status)
        return self._error("error.html", message, status)

    def _error(self, name: str, message: str, status: int) -> Response:
        return HTMLResponse(self._render(name, message=formatting.printable(message)), status)


def make_templates() -> Environment:
    """Templates escape everything: a description that is HTML is shown as its text."""
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "line": formatting.one_line,
        "printable": formatting.printable,
        "cut": formatting.cut,
        "short": formatting.short,
        "clock": formatting.clock,
        "duration": formatting.duration,
        "dollars": formatting.dollars,
        "percent": formatting.percent,
    }
    templates.globals |= {
        "text": text,
        "format_metric": format_metric,
        "statuses": list_statuses(),
        "sorts": list(SORTS),
        "address": _address,
        "night_address": _night_address,
    }
    return templates


def _address(place: Place, tag: str, *more: object) -> str:
    """The address of a session, or of something in it."""
    return f"/s/{quote(place.name, safe='')}/{quote(tag, safe='')}/" + "/".join(map(str, more))


def _night_address(place: Place, tag: str) -> str:
    return f"/imported/{quote(place.name, safe='')}/{quote(tag, safe='')}"


def _number(request: Request, name: str, default: int) -> int:
    """A whole number of the query. Raises `HTTPException` for anything else."""
    given = request.query_params.get(name, "").strip().removeprefix("#")
    if not given:
        return default
    if not given.lstrip("-").isdecimal() or len(given) > 9:
        raise HTTPException(400, f"{name} is {given[:40]!a}; accepted: a whole number")
    return int(given)
