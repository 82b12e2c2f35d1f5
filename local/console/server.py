"""The console's server: guarded, on 127.0.0.1 only, server-rendered, in threads of the process of ``make local``."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from types import TracebackType

from flask import Flask, Response, current_app, make_response, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from local import aws
from local.stack import Stack
from tools import paths
from tools.terminal import visible

from . import live, playground, rate, render, same_origin
from .exchanges import Exchanges
from .state import ConsoleState

LARGEST = 4_000_000  # bytes of a form: a payload and a file of expressions


class Console(ConsoleState):
    """A running console for ``stack``; a context manager that ends it."""

    def __init__(self, stack: Stack, exchanges: Exchanges, port: int = 0, *, samples: Path = paths.SAMPLES) -> None:
        super().__init__(stack, exchanges, samples)
        self.port = port or aws.free_port()
        self._server = make_server("127.0.0.1", self.port, _app(self), threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, name="console", daemon=True)

    @property
    def url(self) -> str:
        """The address of the console."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Console:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
        self.close()


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 (werkzeug's name)
        """Write no access log: paths may hold what somebody filters by."""


def _app(console: Console) -> Flask:
    app = Flask("local.console", root_path=str(aws.ROOT / "local" / "console"))
    app.config.update(MAX_CONTENT_LENGTH=LARGEST, MAX_FORM_MEMORY_SIZE=LARGEST)
    app.extensions["console"] = console
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(render.FILTERS)
    app.register_blueprint(live.pages)
    app.register_blueprint(rate.pages)
    app.register_blueprint(playground.pages)
    app.before_request(_guard)
    app.after_request(_harden)
    app.register_error_handler(HTTPException, _failed)
    return app


def _guard() -> Response | None:
    console: Console = current_app.extensions["console"]
    why = same_origin.refusal(request.method, dict(request.headers), console.port)
    if why is not None:
        return Response(f"refused: {why}\n", 403, content_type="text/plain")
    if not request.path.startswith("/static/"):
        console.watch.wanted()
    return None


def _harden(response: Response) -> Response:
    if response.mimetype == "text/html":  # a page holds nothing that turns its text around or cannot be seen
        response.set_data(visible(response.get_data(as_text=True), keep="\t\n\r"))
    for name, value in same_origin.HEADERS.items():
        response.headers[name] = value
    if request.method == "GET" and response.status_code == 200 and not response.direct_passthrough:
        response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:32])
        response.make_conditional(request)
    return response


def _failed(error: HTTPException) -> Response:
    text = f"{error.code} {error.name}: {error.description}\n"
    return make_response((text, error.code or 500, {"Content-Type": "text/plain; charset=utf-8"}))
