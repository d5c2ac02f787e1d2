"""A scripted model server on loopback, for coding agents under test.

It speaks OpenAI's chat completions and responses, Anthropic's messages and Gemini's
generateContent, streamed or not, and plays a model that knows one thing: to change a constant of
the instant task through whatever the agent offers (a shell tool, or a text protocol), and then to
say in one line what it did. The first part of the path says how the service behaves:

    /ok         works
    /busy       says 429 twice, then works
    /limited    always says 429, and how long to wait
    /broken     always says 500
    /refused    says 401: no such key
    /unknown    says 404: no such model
    /broke      says 402: no credit is left
    /quota      says 429, as OpenAI does when no credit is left
    /hang       never answers
    /malformed  answers what is no answer
    /odd        answers with JSON of another shape
    /drip       answers one byte at a time, for ever
    /echo       says 500, and the key it was given
    /inside     says 429, in a reply with status 200, as OpenRouter does
    /frozen     works, but the model edits the frozen problem.py
    /idle       works, but the model talks and edits nothing
    /astray     works, but the model searches for a line that is not there
    /cut        works, but the model's answer is cut off by the limit of tokens

By hand: `python tests/model_server.py PORT`, which logs every request to stderr.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "fake-model"
TOKENS_IN, TOKENS_OUT = 1000, 20  # of every answer
EDITS = (
    *(("X", "0.5"), ("Y", "0.5"), ("RATE", "0.01"), ("MOMENTUM", "0.8"), ("DEPTH", "4")),
    *(("WIDTH", "64"), ("CENTRED", "True"), ("SCHEDULE", '"cosine"'), ("X", "0.3"), ("Y", "0.7")),
)
SMALL_FILE = "hello.txt"
LISTING = "*file listing*"  # how aider tells its model to answer with whole files
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"  # how mini-swe-agent's model says it has ended
NO_HEADERS: Mapping[str, str] = {}
Json = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """What any dialect's request says, as far as the script needs it."""

    tools: Json  # name -> schema of its arguments
    answered: bool  # a tool's result is among the messages
    text: str  # all messages


@dataclass(frozen=True)
class Say:
    """An answer: a tool call, or text."""

    text: str = ""
    tool: str = ""
    arguments: Json = field(default_factory=dict)


class ModelServer:
    """`with ModelServer() as server: ... server.url("ok")`."""

    def __init__(self, port: int = 0, verbose: bool = False) -> None:
        self.requests: list[tuple[str, Json]] = []  # (path, body) of every POST
        self.keys: list[str | None] = []  # the Authorization header of every POST
        self.verbose = verbose
        self.ending = threading.Event()
        self._edits = itertools.cycle(EDITS)
        self._edit = EDITS[0]
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.model = self
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def url(self, mode: str) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/{mode}"

    def decide(self, mode: str, ask: Ask) -> Say:
        """The script: edit, then say so."""
        small = SMALL_FILE in ask.text  # the first small turn, before anything is measured
        name, value = self._edit
        done = "Replaced goodbye by hello." if small else f"Set {name} to {value} in train.py."
        if mode == "idle":
            return Say("I would rather not.")
        if ask.answered and SUBMIT in ask.text:
            return _shell(ask.tools, f"printf '%s\\n' {SUBMIT} '{done}'")
        if ask.answered:
            return Say(done)
        if small and ask.tools:
            return _shell(ask.tools, f"sed -i s/goodbye/hello/ {SMALL_FILE}")
        if not ask.tools:
            return Say(self._by_text(mode, ask.text, done if small else ""))
        self._edit = name, value = next(self._edits)
        file = "problem.py" if mode == "frozen" else "train.py"
        line = r"\1\n# tampered" if mode == "frozen" else f"{name} = {value}"
        wanted = "^(import math)" if mode == "frozen" else f"^{name} = [^ ]*"
        return _shell(ask.tools, f"sed -E -i 's/{wanted}/{line}/' {file}")

    def _by_text(self, mode: str, text: str, small: str) -> str:
        """An edit as the conversation asks for it: by whole files, or by search and replace."""
        if LISTING not in text and "SEARCH" not in text:
            return "A constant"  # a title for the conversation, a summary, ...
        if small:
            return _text_edit(text, small, SMALL_FILE, "goodbye, world", "hello, world")
        if mode == "frozen":
            return _text_edit(text, "Tampered.", "problem.py", "import math", "import math  # mine")
        self._edit = name, value = next(self._edits)
        found = re.findall(rf"^{name} = .*$", text, re.MULTILINE)
        line = found[-1] if found and mode != "astray" else f"{name} = "
        fresh = re.sub(r"= \S*", f"= {value}", line, count=1)
        said = "DESCRIPTION: " if "DESCRIPTION:" in text else ""
        said += f"Set {name} to {value} in train.py."
        return _text_edit(text, said, "train.py", line, fresh)


def _shell(tools: Json, command: str) -> Say:
    """A call of the tool that runs commands, whatever this agent calls it."""
    names = ("exec_command", "shell_command", "shell", "bash", "run_shell_command")
    tool = next((name for name in names if name in tools), None)
    if tool is None:
        return Say(f"no shell among the tools {sorted(tools)}")
    wanted = tools[tool].get("properties", {})
    arguments: Json = {"description": "edit a constant"} if "description" in wanted else {}
    if "is_background" in wanted:
        arguments["is_background"] = False
    if "cmd" in wanted:
        return Say(tool=tool, arguments=arguments | {"cmd": command})
    if wanted.get("command", {}).get("type") == "array":
        return Say(tool=tool, arguments=arguments | {"command": ["sh", "-c", command]})
    return Say(tool=tool, arguments=arguments | {"command": command})


def _text_edit(text: str, said: str, file: str, old: str, new: str) -> str:
    """What aider wants: the file as the conversation shows it with a line replaced, or a block."""
    if LISTING in text:
        shown = re.findall(rf"^{file}\n```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        whole = shown[-1].replace(old, new) if shown else f"{new}\n"
        return f"I change one file.\n\n{file}\n```\n{whole}```\n\n{said}\n"
    return (
        f"{said}\n\n{file}\n```python\n<<<<<<< SEARCH\n{old}\n"
        f"=======\n{new}\n>>>>>>> REPLACE\n```\n"
    )


# --------------------------------------------------------------------------------------------
# The dialects: a request in, the answer out as (one object, the same as events of a stream)


def _texts(value: object) -> Iterator[str]:
    """Every text anywhere in a request."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def read_chat(body: Json) -> Ask:
    tools = {t["function"]["name"]: t["function"]["parameters"] for t in body.get("tools") or []}
    messages = body["messages"]
    return Ask(tools, any(m["role"] == "tool" for m in messages), "\n".join(_texts(messages)))


def chat(say: Say, number: int) -> tuple[Json, list[Json]]:
    usage = {
        "prompt_tokens": TOKENS_IN,
        "completion_tokens": TOKENS_OUT,
        "total_tokens": TOKENS_IN + TOKENS_OUT,
    }
    message: Json = {"role": "assistant", "content": say.text or None}
    reason = "stop"
    if say.tool:
        function = {"name": say.tool, "arguments": json.dumps(say.arguments)}
        call = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
        message["tool_calls"] = [call]
        reason = "tool_calls"
    base: Json = {"id": f"chatcmpl-{number}", "created": 0, "model": MODEL}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    whole = base | {"object": "chat.completion", "choices": [choice], "usage": usage}
    base["object"] = "chat.completion.chunk"
    parts = [(message, None), ({}, reason)]
    events = [
        base | {"choices": [{"index": 0, "delta": delta, "finish_reason": why}]}
        for delta, why in parts
    ]
    return whole, [*events, base | {"choices": [], "usage": usage}]


def read_responses(body: Json) -> Ask:
    tools = {t["name"]: t["parameters"] for t in body["tools"] if t.get("type") == "function"}
    items = body["input"] if isinstance(body["input"], list) else []
    answered = any(item.get("type", "").endswith("_call_output") for item in items)
    return Ask(tools, answered, "\n".join(_texts(body["input"])))


def responses(say: Say, number: int) -> tuple[Json, list[Json]]:
    usage = {
        "input_tokens": TOKENS_IN,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": TOKENS_OUT,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": TOKENS_IN + TOKENS_OUT,
    }
    content = [{"type": "output_text", "text": say.text, "annotations": []}]
    item: Json = {"type": "message", "id": f"m{number}", "role": "assistant", "content": content}
    if say.tool:
        call = {"name": say.tool, "arguments": json.dumps(say.arguments)}
        item = {"type": "function_call", "id": f"f{number}", "call_id": f"c{number}"} | call
    item["status"] = "completed"
    whole = {"id": f"r{number}", "object": "response", "created_at": 0, "model": MODEL}
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    ended = whole | {"status": "completed", "output": [item], "usage": usage}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": ended},
    ]
    return ended, [event | {"sequence_number": at} for at, event in enumerate(events)]


def read_messages(body: Json) -> Ask:
    tools = {t["name"]: t["input_schema"] for t in body.get("tools") or [] if "input_schema" in t}
    contents = [m["content"] for m in body["messages"] if isinstance(m["content"], list)]
    answered = any(part["type"] == "tool_result" for parts in contents for part in parts)
    return Ask(tools, answered, "\n".join(_texts(body["messages"])))


def messages(say: Say, number: int) -> tuple[Json, list[Json]]:
    usage = {"input_tokens": TOKENS_IN, "output_tokens": TOKENS_OUT}
    block: Json = {"type": "text", "text": say.text}
    delta: Json = {"type": "text_delta", "text": say.text}
    empty = block | {"text": ""}
    if say.tool:
        block = {"type": "tool_use", "id": f"t{number}", "name": say.tool, "input": say.arguments}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(say.arguments)}
        empty = block | {"input": {}}
    base = {"id": f"m{number}", "type": "message", "role": "assistant", "model": MODEL}
    end = {"stop_reason": "tool_use" if say.tool else "end_turn", "stop_sequence": None}
    start = base | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    events: list[Json] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": usage},
        {"type": "message_stop"},
    ]
    return base | end | {"content": [block], "usage": usage}, events


def read_gemini(body: Json) -> Ask:
    declared = [f for t in body.get("tools") or [] for f in t.get("functionDeclarations") or []]
    tools = {f["name"]: f.get("parametersJsonSchema") or f.get("parameters") for f in declared}
    parts = [part for content in body["contents"] for part in content.get("parts", [])]
    answered = any("functionResponse" in part for part in parts)
    return Ask(tools, answered, "\n".join(_texts(body["contents"])))


def gemini(say: Say, number: int) -> tuple[Json, list[Json]]:
    part: Json = {"text": say.text}
    if say.tool:
        part = {"functionCall": {"name": say.tool, "args": say.arguments}}
    usage = {
        "promptTokenCount": TOKENS_IN,
        "candidatesTokenCount": TOKENS_OUT,
        "totalTokenCount": TOKENS_IN + TOKENS_OUT,
    }
    content = {"role": "model", "parts": [part]}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    whole = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL}
    return whole, [whole]


DIALECTS = {
    "/chat/completions": (read_chat, chat),
    "/responses": (read_responses, responses),
    "/messages": (read_messages, messages),
    "enerateContent": (read_gemini, gemini),  # generateContent, streamGenerateContent
}
REFUSALS: dict[str, tuple[int, str, str]] = {
    "limited": (429, "rate_limit_error", "Rate limit reached, please try again in 7s."),
    "broken": (500, "server_error", "The server had an error."),
    "refused": (401, "invalid_api_key", "Incorrect API key provided."),
    "unknown": (404, "model_not_found", "The model `fake-model` does not exist."),
    "broke": (402, "payment_required", "This request needs more money than there is."),
    "quota": (429, "insufficient_quota", "You exceeded your current quota, check your plan."),
}
STATES = {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 401: "UNAUTHENTICATED", 404: "NOT_FOUND"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    model: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        """An agent that was killed in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: object) -> None:
        if self.server.model.verbose:
            print(format % arguments, file=sys.stderr, flush=True)

    def do_GET(self) -> None:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "fake"}
        self._json(200, {"object": "list", "data": [model], "models": []})

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        _, mode, path = self.path.partition("?")[0].split("/", 2)
        server = self.server.model
        server.requests.append((f"{mode}/{path}", body))
        server.keys.append(self.headers.get("Authorization"))
        number = len(server.requests)
        if mode == "busy":
            mode = "limited" if number <= 2 else "ok"
        if mode in REFUSALS:
            code, kind, message = REFUSALS[mode]
            error = {"message": message, "type": kind, "code": kind, "status": STATES.get(code)}
            if "enerateContent" in path:
                error["code"] = code  # type: ignore[assignment]
            retry = {"Retry-After": "1" if number <= 2 else "7"} if mode == "limited" else {}
            return self._json(code, {"error": error}, retry)
        if mode == "hang":
            server.ending.wait()
            return None
        if mode == "malformed":
            return self._send(200, "application/json", b'{"choices": [{"mess')
        if mode == "odd":
            return self._json(200, {"choices": [{"text": 1}], "usage": [None]})
        if mode == "echo":
            return self._json(500, {"error": {"message": f"bad {server.keys[-1]}\x1b[31m"}})
        if mode == "inside":
            return self._json(200, {"error": {"code": 429, "message": "try again in 3s"}})
        if mode == "drip":
            return self._drip()
        streamed = bool(body.get("stream")) or "stream" in path
        for end, (read, write) in DIALECTS.items():
            if end in f"/{path}":
                whole, events = write(server.decide(mode, read(body)), number)
                if mode == "cut":
                    whole["choices"][0]["finish_reason"] = "length"
                return self._stream(events, end) if streamed else self._json(200, whole)
        return self._json(404, {"error": {"message": f"no such address: {path}"}})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _json(self, code: int, value: Json, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._send(code, "application/json", json.dumps(value).encode(), headers)

    def _send(
        self, code: int, kind: str, data: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        while not self.server.model.ending.wait(0.05):
            self.wfile.write(b" ")
            self.wfile.flush()

    def _stream(self, events: list[Json], dialect: str) -> None:
        text = ""
        for event in events:
            text += f"event: {event['type']}\n" if "type" in event else ""
            text += f"data: {json.dumps(event)}\n\n"
        if dialect == "/chat/completions":
            text += "data: [DONE]\n\n"
        self._send(200, "text/event-stream", text.encode())


if __name__ == "__main__":
    with ModelServer(int(sys.argv[1]), verbose=True):
        threading.Event().wait()
