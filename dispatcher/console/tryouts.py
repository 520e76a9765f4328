"""The packs' templates: read here, tried here in an edited form, taken away as a file.

Stores nothing: the files in the packs' folder stay the only source, and go through review.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import HTMLResponse, Response

from dispatcher.acts import NotFound
from dispatcher.console.door import Desk, Form, Known, Post, Visitor, posting
from dispatcher.console.showing import language, show
from dispatcher.console.views import HEADERS, MAIL_HEADERS, page
from dispatcher.ledger import incidents, updates
from dispatcher.ledger.connection import Connection
from dispatcher.rendering import Renderer, Statement
from dispatcher.rendering.meter import MAX_SOURCE
from dispatcher.rendering.review import Complaint
from dispatcher.rendering.trial import Trial, Tried
from dispatcher.security.rights import Scope
from dispatcher.wiring import Services

router = APIRouter()

MOST_SHOWN = 4
"""Messages of one try that stand on the page; what else the template belongs to is named."""

MOST_INCIDENTS = 10

SAMPLES: Mapping[str, str] = {
    "typical": "Typical: the usual facts",
    "minimal": "Minimal: no facts at all",
    "nasty": "Nasty: everything at its longest",
}

Trier = Annotated[Post, Depends(posting(Scope.PREVIEW))]


@dataclass(frozen=True, slots=True)
class File:
    """A template of the packs by the places that its name gives it."""

    name: str
    audience: str
    channel: str
    phase: str
    locale: str
    part: str

    @property
    def title(self) -> str:
        """What it is called in a list of its audience's and channel's."""
        phase = "every phase" if self.phase == "any" else self.phase.replace("_", " ")
        return f"{phase}, {self.part}" if self.part else phase


def file_of(name: str) -> File:
    """`consumers/email/resolved.en.text.j2`, taken apart; pieces that others include too."""
    audience, _, rest = name.partition("/")
    channel, _, leaf = rest.rpartition("/")
    pieces = leaf.removesuffix(".j2").split(".")
    phase = pieces[0].removeprefix("_") if pieces else leaf
    if leaf.startswith("_"):
        phase = f"shared piece “{phase}”"
    locale = pieces[1] if len(pieces) > 1 and pieces[1] != "html" else ""
    part = pieces[2] if len(pieces) > 2 else ""
    return File(name, audience, channel, phase, locale, part)


@router.get("/templates")
def templates_page(request: Request, services: Desk, who: Known) -> Response:
    """Every template file by audience, channel and what it is for, with its languages."""
    grouped: dict[str, dict[str, dict[str, list[File]]]] = {}
    trial = _trial(services.renderer)
    for name in trial.names:
        file = file_of(name)
        by_channel = grouped.setdefault(file.audience, {})
        by_channel.setdefault(file.channel, {}).setdefault(file.title, []).append(file)
    return page(request, "templates.html", who, grouped=grouped, quoted=quote, language=language)


@router.get("/templates/{name:path}")
def template_page(
    request: Request,
    name: str,
    services: Desk,
    who: Known,
    sample: Annotated[str, Query(max_length=80)] = "typical",
) -> Response:
    """One template as its file has it, and the messages that it makes of a sample."""
    trial = _trial(services.renderer)
    source = _source(trial, name)
    return _tried(request, services, who, trial, name, source=source, sample=sample)


@router.post("/templates/{name:path}")
def try_template(name: str, post: Trier) -> Response:
    """Try what was typed, show it as a mail, or give it back as a file. Stores nothing."""
    services = post.services
    trial = _trial(services.renderer)
    _source(trial, name)
    source, do = post.form.get("source"), post.form.get("do")
    if do == "download":
        return _download(name, source)
    if do == "mail":
        return _mail(services, trial, name, source, post.form)
    return _tried(
        post.request, services, post.visitor, trial, name,
        source=source, sample=post.form.get("sample"),
    )  # fmt: skip


@lru_cache(maxsize=2)
def _trial(renderer: Renderer) -> Trial:
    # Kept: which templates include which takes a tenth of a second to find out.
    return Trial(renderer)


def _source(trial: Trial, name: str) -> str:
    try:
        return trial.source(name)
    except LookupError:
        raise NotFound("the packs hold no such template") from None


def _download(name: str, source: str) -> Response:
    """The edited source under its file's own name."""
    leaf = name.rpartition("/")[2]
    return Response(
        source.encode(),
        media_type="text/plain; charset=utf-8",
        headers={
            **HEADERS,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(leaf, safe='')}",
        },
    )


def _mail(services: Services, trial: Trial, name: str, source: str, form: Form) -> Response:
    """The first mail of a try as a document of its own, which may only style itself."""
    with services.ledger.read() as conn:
        statement, _ = _sample(services, conn, trial, name, form.get("sample"))
    tried = trial.try_template(name, source, statement)
    for rendering in tried.renderings:
        if text := rendering.message.parts.get("html"):
            return HTMLResponse(text, headers=dict(MAIL_HEADERS))
    words = "<!doctype html><title>No mail</title><p>This template makes no mail now.</p>"
    return HTMLResponse(words, headers=dict(MAIL_HEADERS))


def _sample(
    services: Services, conn: Connection, trial: Trial, name: str, asked: str
) -> tuple[Statement, str]:
    """What the template is tried with, and its key; the typical one for an unknown key."""
    kind, _, update_id = asked.partition(":")
    if kind == "update" and (update := updates.get(conn, update_id)) is not None:
        incident = incidents.get(conn, update.incident_id)
        if incident is not None:
            real = services.updates.statement(conn, incident, update)
            return trial.samples(name, real)["real"], asked
    samples = trial.samples(name)
    return samples.get(kind, samples["typical"]), kind if kind in samples else "typical"


def _choices(conn: Connection) -> list[tuple[str, str]]:
    """The samples, and the newest update of each open incident."""
    found = list(SAMPLES.items())
    for incident in incidents.listed(conn, status="open", before=None, limit=MOST_INCIDENTS):
        rows = updates.of_incident(conn, incident.id)
        if rows:
            phase = rows[-1].phase.replace("_", " ")
            found.append((f"update:{rows[-1].id}", f"{incident.reference} as it stands: {phase}"))
    return found


def _tried(
    request: Request,
    services: Services,
    who: Visitor,
    trial: Trial,
    name: str,
    *,
    source: str,
    sample: str,
) -> Response:
    with services.ledger.read() as conn:
        statement, chosen = _sample(services, conn, trial, name, sample)
        choices = _choices(conn)
    original = trial.source(name)
    if source == original:
        tried = trial.unedited(name, statement, most=MOST_SHOWN)
    else:
        tried = trial.try_template(name, source, statement)
    lines = source.count("\n") + 1
    return page(
        request,
        "tryout.html",
        who,
        status=422 if tried.refused and request.method == "POST" else 200,
        file=file_of(name),
        path=f"/templates/{quote(name)}",
        source=source,
        lines=min(lines, 2_000),
        changed=source != original,
        changes=changes(original, source, name),
        tried=tried,
        complaints=_with_lines(tried, name, source, trial),
        messages=show(services.renderer, tried.renderings[:MOST_SHOWN]),
        others=_others(services, trial, tried),
        has_mail=any("html" in each.message.parts for each in tried.renderings),
        choices=choices,
        sample=chosen,
        view="wide-light",
    )


def _with_lines(tried: Tried, name: str, source: str, trial: Trial) -> list[tuple[Complaint, str]]:
    """Each complaint with the line that it is about."""
    found = []
    for each in tried.complaints:
        text = source if each.name == name else trial.source(each.name)
        rows = text.split("\n")
        line = rows[each.line - 1] if 0 < each.line <= len(rows) else ""
        found.append((each, line.strip()[:200]))
    return found


def _others(services: Services, trial: Trial, tried: Tried) -> list[str]:
    """The messages that are not shown, by audience and channel, each with its languages."""
    if not tried.renderings:
        return []
    grouped: dict[tuple[str, str], list[str]] = {}
    shown = {
        (each.audience, each.message.channel, each.message.locale)
        for each in tried.renderings[:MOST_SHOWN]
    }
    for use in trial.uses(tried.name, tried.phase):
        if (use.audience, use.channel, use.locale) not in shown:
            key = (services.packs.audiences[use.audience].title, use.channel)
            grouped.setdefault(key, []).append(use.locale)
    return [f"{title}, {channel}: {', '.join(held)}" for (title, channel), held in grouped.items()]


def changes(original: str, edited: str, name: str) -> Sequence[tuple[str, str]]:
    """A unified diff of the file and the edited form, each line with its kind.

    Kinds are `same`, `ins`, `del` and `at`. Nothing if they are equal, or too long to compare.
    """
    if original == edited or len(edited) > MAX_SOURCE:
        return []
    diff = difflib.unified_diff(
        original.split("\n"), edited.split("\n"), name, name, lineterm="", n=2
    )
    kinds = {"+": "ins", "-": "del", "@": "at"}
    rows = list(diff)[2:]
    return [(kinds.get(row[:1], "same"), row) for row in rows[:400]]
