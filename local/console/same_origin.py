"""Who may ask the console: pages of its own, under a name of this machine, and no others.

A page of another site can make a browser send requests to 127.0.0.1, and by
rebinding a name of its own even read the answers. The first gives itself away
by ``Origin`` (https://fetch.spec.whatwg.org/#origin-header), the second by ``Host``.
"""

from __future__ import annotations

from collections.abc import Mapping

HEADERS = {
    # Payloads are hostile: only what is in static/ runs or loads.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it a browser sends Origin: null with our own forms, too.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def refusal(method: str, headers: Mapping[str, str], port: int) -> str | None:
    """Return why a request is not answered; ``None`` if it may be. ``port`` is the console's own."""
    sent = {name.lower(): value for name, value in headers.items()}
    host = sent.get("host", "").lower()
    if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
        return "the Host header names another machine"
    origin = sent.get("origin")
    if origin is None and method not in ("GET", "HEAD"):
        return "the Origin header is missing"
    if origin is not None and origin.lower() != f"http://{host}":
        return "the request comes from another site's page"
    if sent.get("sec-fetch-site", "none") not in ("none", "same-origin") and sent.get("sec-fetch-mode") != "navigate":
        return "the request comes from another site's page"
    return None
