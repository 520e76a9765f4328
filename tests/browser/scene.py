"""An installation in which every page has something to show, and the list of those pages.

Content in all four languages, failures, a stop, things that wait for somebody, a drill with
its end. The list is the one that accessibility, weight and screenshots go by.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dispatcher.acts import Outcome, find_incident
from dispatcher.demo.people import people
from dispatcher.incidents import FactKind, NewIncident, NewUpdate
from dispatcher.ledger import incidents
from dispatcher.ledger import people as ledger_people
from dispatcher.ledger.connection import Transaction
from dispatcher.security.rights import ROLE_SCOPES, Actor, Role
from tests.browser.desk import STAFF, Somebody, employ
from tests.stories.house import House, at, fact

CROWD = 400
NOWHERE = "/nowhere"
WORDS = {
    "en": "Our stores in Dallas are open all night and have landlines that anyone may use.",
    "es": "Nuestras tiendas de Dallas abren toda la noche y tienen teléfonos fijos para todos.",
    "ru": "Наши магазины в Далласе открыты всю ночь, там есть стационарные телефоны для всех.",
    "ar": "متاجرنا في Dallas مفتوحة طوال الليل وفيها هواتف أرضية متاحة للجميع.",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Where things are: incidents by reference, updates by what is to be seen of them."""

    incident: str
    drill: str
    resolved: str
    updates: Mapping[str, str]
    cause: str
    newcomer: str
    invitation: str


def set_scene(house: House) -> Scene:
    """Fill an empty house; takes a few seconds."""
    with house.services.ledger.transaction() as work:
        ids = {who.role: employ(work, who) for who in STAFF.values()}
        invitation = "scene".ljust(43, "0")
        newcomer = _invite(work, invitation)
    house.people(people(CROWD))
    # One number in fifteen is refused by its network, and one mailbox in thirty.
    house.sandbox.fault("twilio", status=400, code=21610, probability=0.07)
    house.sandbox.fault("sendgrid", status=429, retry_after=1, count=2)
    stage = _Stage(house, {role: _actor(STAFF[role], ids[role]) for role in ids})
    incident, first = stage.open(_incident("Calls fail after a change in the core"), _first())
    second = stage.add(incident, _second())
    with house.services.ledger.read() as conn:
        known = incidents.facts(conn, find_incident(conn, incident).id)
    cause = next(each.id for each in known if each.kind is FactKind.CAUSE)
    named = {"first": first, "released": second}
    named["stopped"] = stage.stopped(incident, _update("monitoring", percent=60))
    named["returned"] = stage.returned(incident, _update("monitoring", percent=70, texts=True))
    named["waiting"] = stage.waiting(incident, _with_claim())
    house.services.reckoning.soon(named["waiting"]).result(timeout=30)
    named["draft"] = stage.draft(incident, _update("monitoring", percent=80))
    drill, named["drill"] = stage.open(
        _incident("Core rehearsal", drill=True), _first(), drill=True
    )
    named["drill_end"] = stage.add(drill, _last())
    resolved, named["over"] = stage.open(
        _incident("Mails arrive late", services=("broadband",), severity="minor"), _first()
    )
    named["end"] = stage.add(resolved, _last())
    house.sandbox.clear_faults()
    return Scene(incident, drill, resolved, named, cause, newcomer, invitation)


def rooms(scene: Scene) -> Mapping[str, str]:
    """Every page of the console by a name for it, as an approver or an admin opens it."""
    incident, drill = f"/incidents/{scene.incident}", f"/incidents/{scene.drill}"
    return {
        "home": "/",
        "people": "/people",
        "person": f"/people/{scene.newcomer}",
        "account": "/account",
        "open": "/incidents/new",
        "incident": incident,
        "incident-resolved": f"/incidents/{scene.resolved}",
        "write-next": f"{incident}/updates/new?phase=resolved",
        "write-nothing-new": f"{incident}/updates/new?from=nothing-new",
        "write-correction": f"{incident}/updates/new?from=correction&withdraws={scene.cause}",
        "timeline": f"{incident}/timeline",
        "notice": f"{incident}/notice",
        "brief": f"{incident}/brief",
        "update-draft": f"/updates/{scene.updates['draft']}",
        "update-waiting": f"/updates/{scene.updates['waiting']}",
        "update-returned": f"/updates/{scene.updates['returned']}",
        "update-stopped": f"/updates/{scene.updates['stopped']}",
        "write": f"/updates/{scene.updates['returned']}/write",
        "preview": f"/updates/{scene.updates['waiting']}/preview?audience=consumers",
        "preview-media": f"/updates/{scene.updates['draft']}/preview?audience=media",
        "watch": f"/updates/{scene.updates['released']}/watch",
        "watch-stopped": f"/updates/{scene.updates['stopped']}/watch",
        "stop": f"/updates/{scene.updates['released']}/stop",
        "resume": f"/updates/{scene.updates['stopped']}/resume",
        "untold": f"/updates/{scene.updates['first']}/untold",
        "templates": "/templates",
        "template": "/templates/default/sms/investigating.ar.j2",
        "drill": drill,
        "drill-update": f"/updates/{scene.updates['drill']}",
        "drill-preview": f"/updates/{scene.updates['drill']}/preview?audience=consumers",
        "drill-watch": f"/updates/{scene.updates['drill']}/watch",
        "drill-score": f"{drill}/score",
        "no-such-page": NOWHERE,
    }


def _invite(work: Transaction, token: str) -> str:
    made = ledger_people.create(work.conn, name="Noor Haddad", role=Role.AUTHOR, created_by="story")
    ledger_people.invite(work.conn, made.id, token, created_by="story", lasting=timedelta(days=1))
    return made.id


def _actor(who: Somebody, person_id: str) -> Actor:
    return Actor(id=f"person:{person_id}", name=who.name, scopes=ROLE_SCOPES[who.role])


class _Stage:
    """Acts on behalf of the author and the approver, as the pages would."""

    def __init__(self, house: House, actors: Mapping[Role, Actor]) -> None:
        self.house = house
        self.author, self.approver = actors[Role.AUTHOR], actors[Role.APPROVER]

    def open(
        self, incident: NewIncident, update: NewUpdate, *, drill: bool = False
    ) -> tuple[str, str]:
        """An incident with a first update that is told to the end; its reference and the update."""
        desk = self.house.services.updates
        made = self._do(
            lambda work: desk.open(
                work, incident, update, release="on_approval", actor=self.author, force=True
            )
        )
        self._told(made)
        return made.incident.reference, made.update_id

    def add(self, reference: str, update: NewUpdate) -> str:
        made = self._add(reference, update, release="on_approval")
        self._told(made)
        return made.update_id

    def waiting(self, reference: str, update: NewUpdate) -> str:
        return self._add(reference, update, release="on_approval").update_id

    def draft(self, reference: str, update: NewUpdate) -> str:
        return self._add(reference, update, release="draft").update_id

    def returned(self, reference: str, update: NewUpdate) -> str:
        made = self._add(reference, update, release="on_approval")
        reason = "Say which stores, and since when the percentage is known."
        self._do(
            lambda work: self.house.services.releases.hand_back(
                work,
                made.update_id,
                content_hash=str(made.content_hash),
                audiences=None,
                reason=reason,
                actor=self.approver,
            )
        )
        return made.update_id

    def stopped(self, reference: str, update: NewUpdate) -> str:
        """An update that was stopped when nothing of the bulk had left."""
        made = self._add(reference, update, release="on_approval")
        with self.house.frozen("post"):
            self._approve(made)
            self.house.when(made.update_id, lambda now: now["by_state"]["pending"] > CROWD // 4)
            self._do(
                lambda work: self.house.services.releases.stop(
                    work, made.update_id, audiences=["consumers", "media"], actor=self.author
                )
            )
        self.house.when(made.update_id, lambda now: bool(now["settled"]))
        return made.update_id

    def _add(self, reference: str, update: NewUpdate, *, release: Any) -> Outcome:
        with self.house.services.ledger.read() as conn:
            incident_id = find_incident(conn, reference).id
        desk = self.house.services.updates
        made: Outcome = self._do(
            lambda work: desk.add(work, incident_id, update, release=release, actor=self.author)
        )
        return made

    def _told(self, made: Outcome) -> None:
        self._approve(made)
        self.house.when(made.update_id, lambda now: bool(now["settled"]))

    def _approve(self, made: Outcome) -> None:
        self._do(
            lambda work: self.house.services.releases.approve(
                work,
                made.update_id,
                content_hash=str(made.content_hash),
                audiences=None,
                actor=self.approver,
            )
        )

    def _do(self, act: Callable[[Transaction], Any]) -> Any:
        with self.house.services.ledger.transaction() as work:
            return act(work)


def _incident(title: str, **other: Any) -> NewIncident:
    return NewIncident.model_validate(
        {
            "title": title,
            "summary": "Core change CR-1182 was rolled back at the second try.",
            "severity": "critical",
            "services": ("voice", "mobile_data"),
            "regions": ("US",),
            "started_at": at(-3_600),
            **other,
        }
    )


def _update(phase: str, *, percent: int | None = None, texts: bool = False) -> NewUpdate:
    facts = [fact("emergency_calls", {"status": "limited", "use": ["wifi_calling", "landline"]})]
    if percent is not None:
        facts.append(fact("restored", {"percent": percent}))
    said = {"phase": phase, "facts": facts, "next_update_at": at(1_800)}
    return NewUpdate.model_validate(said | ({"texts": {"message": WORDS}} if texts else {}))


def _first() -> NewUpdate:
    facts = [
        fact("started", {"at": at(-3_600)}),
        fact("emergency_calls", {"status": "limited", "use": ["wifi_calling", "landline"]}),
        fact("scope", {"count": 73_000, "basis": "estimated"}, confidence="believed"),
    ]
    said = {"phase": "investigating", "facts": facts, "texts": {"message": WORDS}}
    return NewUpdate.model_validate({**said, "next_update_at": at(1_800)})


def _second() -> NewUpdate:
    facts = [
        fact("cause", {"code": "software"}, confidence="believed"),
        fact("workaround", {"codes": ["wifi_calling", "visit_store"]}),
        fact("eta", {"at": at(7_200), "latest": at(10_800)}, confidence="believed"),
    ]
    said = {"phase": "identified", "facts": facts, "next_update_at": at(-120 + 1_800)}
    return NewUpdate.model_validate(said)


def _with_claim() -> NewUpdate:
    facts = [
        fact("not_cause", {"code": "cyberattack"}, confidence="believed"),
        fact("restored", {"percent": 75}),
    ]
    said = {"phase": "monitoring", "facts": facts, "texts": {"message": WORDS}}
    return NewUpdate.model_validate({**said, "next_update_at": at(1_800)})


def _last() -> NewUpdate:
    facts = [
        fact("ended", {"at": at(-30)}),
        fact("restored", {"percent": 100}),
        fact("emergency_calls", {"status": "working"}),
        fact("apology", {"to_all": True}),
        fact(
            "compensation",
            {"amount": "5.00", "currency": "USD", "automatic": True, "eligible": ["consumer"]},
        ),
    ]
    return NewUpdate.model_validate({"phase": "resolved", "facts": facts})
