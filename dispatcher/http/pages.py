"""The few pages of the API itself: its calls in words, and the inbox that shows how to embed.

Nothing is loaded from elsewhere, so that they also work where nothing else can be reached.
"""

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dispatcher.http.problems import KINDS

router = APIRouter(include_in_schema=False)

SAFE = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color: #1d2939; background: #fff }
h2 { margin-top: 2.5rem; text-transform: capitalize } summary { cursor: pointer; padding: .4rem 0 }
code, pre { font: 13px/1.45 ui-monospace, monospace } pre { background: #f2f4f7; padding: .8rem;
  overflow: auto; border-radius: 6px } .m { display: inline-block; min-width: 4rem; font-weight: 600 }
article { border: 1px solid #d0d5dd; border-radius: 8px; padding: .8rem 1rem; margin: .8rem 0 }
article h2 { margin: 0; font-size: 1rem; text-transform: none } article p { margin: .3rem 0 0 }
time, .quiet { color: #475467; font-size: .85rem } td { padding: .15rem 1rem .15rem 0 }
@media (prefers-color-scheme: dark) { body { color: #e4e7ec; background: #101828 }
  pre { background: #1d2939 } article { border-color: #475467 } time, .quiet { color: #98a2b3 } }
"""

_SCRIPT = """\
// Shows a person's outage messages: <div id="outage-inbox"></div>
// <script src="https://YOUR-DISPATCHER/inbox.js" data-token="TOKEN"></script>
(() => {
  const script = document.currentScript;
  const token = script.dataset.token || new URLSearchParams(location.search).get("token");
  const place = document.getElementById(script.dataset.target || "outage-inbox");
  const url = new URL("/v1/inbox/events", script.src);
  url.searchParams.set("token", token);
  const seen = new Set();
  const put = (parent, name, text) => parent.appendChild(
    Object.assign(document.createElement(name), { textContent: text, dir: "auto" }));
  new EventSource(url).addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (seen.has(message.key)) return;
    seen.add(message.key);
    const article = document.createElement("article");
    put(article, "h2", message.title);
    put(article, "p", message.body);
    put(article, "time", new Date(message.created_at).toLocaleString());
    place.prepend(article);
  });
})();
"""


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>",
        headers=SAFE,
    )


@router.get("/inbox")
async def inbox_page() -> HTMLResponse:
    """One person's messages, live. The script takes the token from the page's own address."""
    return _page(
        "Service messages",
        '<main><h1>Service messages</h1><div id="outage-inbox" role="log" aria-live="polite"></div>'
        '<noscript><p>This page needs JavaScript.</p></noscript></main><script src="/inbox.js">'
        "</script>",
    )


@router.get("/inbox.js")
async def inbox_script() -> Response:
    """The script to embed."""
    return Response(
        _SCRIPT,
        media_type="text/javascript",
        headers={"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"},
    )


@router.get("/problems/{kind}")
async def problem_page(kind: str) -> Response:
    """Where a problem's `type` leads: its row in the pages, or the list."""
    anchor = f"problem-{kind}" if kind in KINDS else "problems"
    return RedirectResponse(f"/docs#{anchor}", status_code=303)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Every call of `/openapi.json` in words."""
    document: dict[str, Any] = request.app.openapi()
    return _page(
        "Outage Dispatcher API",
        "<main><h1>Outage Dispatcher API</h1>"
        f"<p>{html.escape(document['info'].get('description', ''))}</p>"
        '<p>For machines: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{''.join(_calls(document))}{_problems()}</main>",
    )


def _calls(document: Mapping[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            tag = (call.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append(_call(document, method, path, call=call))
    for tag, calls in by_tag.items():
        yield f"<h2>{html.escape(tag)}</h2>{''.join(calls)}"


def _call(document: Mapping[str, Any], method: str, path: str, *, call: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(p['name'])}</code></td><td>{p['in']}"
        f"{', required' if p.get('required') else ''}</td>"
        f"<td>{html.escape(p.get('description', ''))}</td></tr>"
        for p in call.get("parameters", ())
        if p["name"] != "authorization"
    )
    words = html.escape(call.get("description", "")).replace("\n\n", "</p><p>")
    return (
        f'<details><summary><span class="m">{method.upper()}</span> <code>{html.escape(path)}</code>'
        f" {html.escape(call.get('summary', ''))}</summary><p>{words}</p>"
        f"<table>{rows}</table>{_body(document, call)}</details>"
    )


def _body(document: Mapping[str, Any], call: Mapping[str, Any]) -> str:
    content: Mapping[str, Any] = call.get("requestBody", {}).get("content", {})
    shown = []
    for media_type, about in content.items():
        schema = json.dumps(_resolved(document, about.get("schema", {}), depth=2), indent=2)
        shown.append(f"<p>{html.escape(media_type)}</p><pre>{html.escape(schema)}</pre>")
    return "".join(shown)


def _resolved(document: Mapping[str, Any], schema: Any, *, depth: int) -> Any:
    """A schema with references followed so deep; beyond that they are left as they are."""
    if isinstance(schema, dict):
        if "$ref" in schema and depth > 0:
            name = schema["$ref"].rpartition("/")[2]
            return _resolved(document, document["components"]["schemas"][name], depth=depth - 1)
        return {k: _resolved(document, v, depth=depth) for k, v in schema.items()}
    if isinstance(schema, list):
        return [_resolved(document, item, depth=depth) for item in schema]
    return schema


def _problems() -> str:
    rows = "".join(
        f'<tr id="problem-{kind}"><td>{status}</td><td><code>/problems/{kind}</code></td>'
        f"<td>{html.escape(title)}</td></tr>"
        for kind, (status, title) in KINDS.items()
    )
    return f'<h2 id="problems">Problems</h2><table>{rows}</table>'
