"""One update's facts as sentences in one language for one audience: what templates call `say`.

Every property is finished text, or empty when there is nothing to say. Templates can
reach only this, never a fact or the incident, so its title and summary cannot leak. Words
made from a fact that stands carry its trace; those that are taken back do not.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from dispatcher.audiences import Organisation
from dispatcher.incidents import (
    ApologyFact,
    CauseCode,
    CauseFact,
    CompensationFact,
    Confidence,
    EmergencyCallsFact,
    EndedFact,
    EtaFact,
    Fact,
    FactKind,
    NextStepFact,
    NotCauseFact,
    Phase,
    RestoredFact,
    ScopeFact,
    StartedFact,
    WorkaroundFact,
)
from dispatcher.rendering.statement import Statement
from dispatcher.rendering.traces import traced
from dispatcher.rendering.vocabulary import Vocabulary

_HOSTILE = frozenset(
    {
        CauseCode.TRAFFIC_FLOOD,
        CauseCode.CUSTOMER_MALWARE,
        CauseCode.OPEN_RESOLVERS,
        CauseCode.CYBERATTACK,
    }
)
_MOST_PLACES = 6
_MOST_PLACES_SHORT = 3


class Speech:
    """The sentences. `short` is the same speech in the language's short forms."""

    def __init__(
        self,
        words: Vocabulary,
        organisation: Organisation,
        statement: Statement,
        *,
        audience: str,
        short: bool = False,
    ) -> None:
        incident = statement.incident
        self._words = words
        self._short = short
        self._organisation = organisation
        self._audience = audience
        self._regions = incident.regions
        self._codes = incident.services
        self._zone = ZoneInfo(incident.zone or organisation.zone(incident.regions))
        self._now = statement.stated_at
        self._today = statement.stated_at.astimezone(self._zone).date()
        self._facts = {kind: fact for kind, fact in statement.facts.items() if self._may_hear(fact)}
        self._withdrawn = tuple(fact for fact in statement.withdrawn if self._may_hear(fact))
        self._next_update_at = statement.next_update_at
        self._over = statement.phase in (Phase.RESOLVED, Phase.FOLLOW_UP) or self._end is not None
        restored = self._facts.get(FactKind.RESTORED)
        self._back = self._over or (
            restored is not None
            and isinstance(restored.stated, RestoredFact)
            and restored.stated.value.percent == 100
            and restored.stated.confidence in (Confidence.CONFIRMED, Confidence.BELIEVED)
        )
        started = self._facts.get(FactKind.STARTED)
        self._start, self._start_stated = incident.started_at, False
        if started is not None and isinstance(started.stated, StartedFact):
            self._start, self._start_stated = started.stated.value.at, True
        self.reference = incident.reference
        self.severity = words.name("severities", incident.severity)
        self.phase = words.name("phases", statement.phase)
        self.drill = words.line("drill") if incident.drill else ""
        self.emergency_number = organisation.emergency_number(incident.regions)
        self.voice_affected = not organisation.voice_services.isdisjoint(incident.services)
        if not short:
            self.short = Speech(words, organisation, statement, audience=audience, short=True)

    def _may_hear(self, fact: Fact) -> bool:
        named = fact.stated.audiences
        return named is None or self._audience in named

    # --- names -----------------------------------------------------------------------

    @cached_property
    def services(self) -> str:
        names = [self._either("services", code) for code in self._codes]
        return self._words.listed(list(dict.fromkeys(names)))

    @cached_property
    def places(self) -> str:
        """The regions' names; empty when the incident names none."""
        most = _MOST_PLACES_SHORT if self._short else _MOST_PLACES
        return self._words.capped([self._place(code) for code in self._regions], most=most)

    def _place(self, code: str) -> str:
        if self._short and self._words.knows("regions_short", code):
            return self._words.name("regions_short", code)
        if self._words.knows("regions", code):
            return self._words.name("regions", code)
        named = self._organisation.region_names.get(code)
        return named or self._words.territory(code) or code

    @cached_property
    def where(self) -> str:
        """`in Texas and California`, or the language's words for everywhere."""
        if not self._regions:
            return self._words.name("lists", "everywhere")
        return self._words.tables["lists"]["where"].replace("{places}", self.places)

    # --- times -----------------------------------------------------------------------

    def _moment(self, at: datetime, how: str) -> str:
        return self._words.moment(at, how, zone=self._zone, today=self._today, short=self._short)

    @cached_property
    def since(self) -> str:
        return self._begun(self._moment(self._start, "since"))

    @cached_property
    def started(self) -> str:
        said = self._words.moment(self._start, "plain", zone=self._zone, today=None)
        return self._begun(said)

    @cached_property
    def began(self) -> str:
        """`at 2:45 AM CST on Thu, Feb 22`, to follow a verb."""
        return self._begun(self._words.moment(self._start, "at", zone=self._zone, today=None))

    @cached_property
    def started_utc(self) -> str:
        return self._begun(f"{self._start.astimezone(ZoneInfo('UTC')):%Y-%m-%d %H:%M} UTC")

    def _begun(self, words: str) -> str:
        """The words, traced if the start is a fact and not only the incident's own."""
        return traced(words, FactKind.STARTED) if self._start_stated else words

    @cached_property
    def as_of(self) -> str:
        return self._words.moment(self._now, "plain", zone=self._zone, today=None)

    @cached_property
    def ended_at(self) -> str:
        end = self._end
        if end is None:
            return ""
        said = self._words.moment(end, "plain", zone=self._zone, today=None)
        return traced(said, FactKind.ENDED)

    @property
    def _end(self) -> datetime | None:
        fact = self._facts.get(FactKind.ENDED)
        if fact is None or not isinstance(fact.stated, EndedFact):
            return None
        return None if fact.stated.confidence is Confidence.RULED_OUT else fact.stated.value.at

    @cached_property
    def duration(self) -> str:
        """From start to end, in hours and minutes; empty while there is no end."""
        end = self._end
        if end is None or end < self._start:
            return ""
        hours, minutes = divmod(int((end - self._start) / timedelta(minutes=1)), 60)
        if hours:
            said = self._words.when("duration", hours=str(hours), minutes=str(minutes))
        else:
            said = self._words.when("duration_minutes", minutes=str(minutes))
        return self._begun(traced(said, FactKind.ENDED))

    @cached_property
    def next_update_at(self) -> str:
        return "" if self._next_update_at is None else self._moment(self._next_update_at, "plain")

    @cached_property
    def next_update(self) -> str:
        if self._next_update_at is None:
            return ""
        return self._line("next_update", when=self._moment(self._next_update_at, "by"))

    # --- sentences -------------------------------------------------------------------

    def _line(self, key: str, **values: str) -> str:
        return self._words.line(key, short=self._short, **values)

    def _of(self, kind: FactKind) -> str:
        fact = self._facts.get(kind)
        return "" if fact is None else traced(self._sentence(fact), kind)

    @cached_property
    def scope(self) -> str:
        return self._of(FactKind.SCOPE)

    @cached_property
    def cause(self) -> str:
        return self._of(FactKind.CAUSE)

    @cached_property
    def not_cause(self) -> str:
        return self._of(FactKind.NOT_CAUSE)

    @cached_property
    def workaround(self) -> str:
        """One sentence that names the other ways to get service."""
        codes = self._workaround_codes
        if not codes:
            return ""
        return traced(self._line("workaround", uses=self._uses(codes)), FactKind.WORKAROUND)

    @cached_property
    def workarounds(self) -> tuple[str, ...]:
        """The other ways to get service, each a full sentence that says what to do."""
        said = (self._words.name("workarounds", code) for code in self._workaround_codes)
        return tuple(traced(sentence, FactKind.WORKAROUND) for sentence in said)

    @property
    def _workaround_codes(self) -> tuple[str, ...]:
        fact = self._facts.get(FactKind.WORKAROUND)
        if self._back or fact is None or not isinstance(fact.stated, WorkaroundFact):
            return ()
        if fact.stated.confidence is Confidence.RULED_OUT:
            return ()
        return tuple(code.value for code in fact.stated.value.codes)

    def _uses(self, codes: Iterable[str]) -> str:
        names = [self._either("uses", code) for code in codes]
        return self._words.listed(names, word="or")

    @cached_property
    def emergency(self) -> str:
        """What to do about emergency calls. Never empty while a voice service is affected."""
        sentence = self._of(FactKind.EMERGENCY_CALLS)
        if sentence or self._over or not self.voice_affected:
            return sentence
        return self._emergency("unknown", ())

    def _emergency(self, status: str, codes: tuple[str, ...]) -> str:
        if status in ("working", "believed"):
            return self._line(f"emergency_{status}", number=self.emergency_number)
        uses = self._uses(codes) if codes else self._line("emergency_other_ways")
        return self._line(f"emergency_{status}", number=self.emergency_number, uses=uses)

    @cached_property
    def emergency_status(self) -> str:
        fact = self._facts.get(FactKind.EMERGENCY_CALLS)
        if fact is None or not isinstance(fact.stated, EmergencyCallsFact):
            asked = self.voice_affected and not self._over
            return self._words.name("emergency_status", "unknown") if asked else ""
        said = self._words.name("emergency_status", fact.stated.value.status)
        return traced(said, FactKind.EMERGENCY_CALLS)

    @cached_property
    def eta(self) -> str:
        return "" if self._back else self._of(FactKind.ETA)

    @cached_property
    def restored(self) -> str:
        """How much is back; left to `ended` once that says it."""
        fact = self._facts.get(FactKind.RESTORED)
        if fact is None or not isinstance(fact.stated, RestoredFact):
            return ""
        if self._end is not None and fact.stated.value.percent == 100:
            return ""
        return traced(self._sentence(fact), FactKind.RESTORED)

    @cached_property
    def ended(self) -> str:
        return self._of(FactKind.ENDED)

    @cached_property
    def credit(self) -> str:
        return self._of(FactKind.COMPENSATION)

    @cached_property
    def credit_pieces(self) -> tuple[str, str, str]:
        """How much, how it comes, and who gets it or not: three sentences, or three empty."""
        fact = self._facts.get(FactKind.COMPENSATION)
        if fact is None or not isinstance(fact.stated, CompensationFact):
            return ("", "", "")
        if fact.stated.confidence is Confidence.RULED_OUT:
            return ("", "", "")
        stated, kind = fact.stated, FactKind.COMPENSATION
        return (
            traced(self._credit_amount(stated), kind),
            traced(self._credit_how(stated), kind),
            traced(self._credit_who(stated), kind),
        )

    @cached_property
    def apology(self) -> str:
        return self._of(FactKind.APOLOGY)

    @cached_property
    def next_step(self) -> str:
        return self._of(FactKind.NEXT_STEP)

    @cached_property
    def took_back(self) -> str:
        """What was said before and is taken back now; empty if nothing was."""
        claims = [sentence for fact in self._withdrawn if (sentence := self._sentence(fact))]
        return " ".join(self._line("took_back", claim=claim) for claim in claims)

    @cached_property
    def malicious(self) -> str:
        """Whether a hostile act is behind it, as far as the facts say."""
        cause = self._facts.get(FactKind.CAUSE)
        if (
            cause is not None
            and isinstance(cause.stated, CauseFact)
            and cause.stated.value.code in _HOSTILE
        ):
            said = {
                Confidence.CONFIRMED: "confirmed",
                Confidence.BELIEVED: "suspected",
                Confidence.UNDER_REVIEW: "under_review",
                Confidence.RULED_OUT: "ruled_out",
            }
            return traced(
                self._words.name("malicious", said[cause.stated.confidence]), FactKind.CAUSE
            )
        other = self._facts.get(FactKind.NOT_CAUSE)
        if (
            other is not None
            and isinstance(other.stated, NotCauseFact)
            and other.stated.value.code is CauseCode.CYBERATTACK
        ):
            said = {
                Confidence.CONFIRMED: "ruled_out",
                Confidence.RULED_OUT: "ruled_out",
                Confidence.BELIEVED: "no_indication",
                Confidence.UNDER_REVIEW: "under_review",
            }
            return traced(
                self._words.name("malicious", said[other.stated.confidence]), FactKind.NOT_CAUSE
            )
        return self._words.name("malicious", "unknown")

    @cached_property
    def known(self) -> tuple[str, ...]:
        """What stands, one sentence each, in the order people ask for it."""
        said = (
            self.restored, self.ended, self.scope, self.cause, self.not_cause,
            self.eta,
        )  # fmt: skip
        return tuple(sentence for sentence in said if sentence)

    @cached_property
    def unknown(self) -> tuple[str, ...]:
        """What people will ask and nobody can answer yet."""
        absent = []
        cause = self._facts.get(FactKind.CAUSE)
        if cause is None or cause.stated.confidence is not Confidence.CONFIRMED:
            absent.append(self._line("unknown_cause"))
        if not self._back and not self.eta:
            absent.append(self._line("unknown_eta"))
        if not self.scope:
            absent.append(self._line("unknown_scope"))
        return tuple(absent)

    def _sentence(self, fact: Fact) -> str:
        stated = fact.stated
        sure = stated.confidence
        cause = isinstance(stated, CauseFact | NotCauseFact)
        if sure is Confidence.RULED_OUT and not cause:
            return ""
        match stated:
            case CauseFact():
                return self._line(f"cause_{sure}", cause=self._either("causes", stated.value.code))
            case NotCauseFact():
                key = "confirmed" if sure is Confidence.RULED_OUT else sure
                name = self._either("causes", stated.value.code)
                return self._line(f"not_cause_{key}", cause=name)
            case EmergencyCallsFact():
                status: str = stated.value.status
                if status == "working" and sure is not Confidence.CONFIRMED:
                    status = "believed" if sure is Confidence.BELIEVED else "unknown"
                return self._emergency(status, tuple(c.value for c in stated.value.use))
            case WorkaroundFact():
                return self._line(
                    "workaround", uses=self._uses(c.value for c in stated.value.codes)
                )
            case ApologyFact():
                return self._line("apology_to_all" if stated.value.to_all else "apology")
            case NextStepFact():
                return self._next_step(stated)
            case EtaFact():
                return self._line(f"eta_{sure}", when=self._eta(stated))
            case CompensationFact():
                return self._credit(stated)
            case _:
                return self._measure(stated)

    def _measure(self, stated: StartedFact | EndedFact | ScopeFact | RestoredFact) -> str:
        unsure = stated.confidence in (Confidence.BELIEVED, Confidence.UNDER_REVIEW)
        hedge = self._line(f"hedge_{stated.confidence}") if unsure else ""
        match stated:
            case ScopeFact():
                count = self._words.number(stated.value.count)
                return self._line(f"scope_{stated.value.basis}", count=count, hedge=hedge)
            case RestoredFact() if stated.value.percent == 100:
                return self._line("restored_all", hedge=hedge)
            case RestoredFact():
                return self._line("restored", percent=str(stated.value.percent), hedge=hedge)
            case EndedFact():
                return self._line("ended", when=self._moment(stated.value.at, "at"), hedge=hedge)
            case StartedFact():
                return self._line("started", when=self._moment(stated.value.at, "at"), hedge=hedge)

    def _eta(self, stated: EtaFact) -> str:
        if stated.value.latest is None:
            return self._moment(stated.value.at, "by")
        values = {
            "from": self._moment(stated.value.at, "plain"),
            "to": self._moment(stated.value.latest, "plain"),
        }
        return self._words.when("between", short=self._short, **values)

    def _next_step(self, stated: NextStepFact) -> str:
        by = ""
        if stated.value.by is not None:
            day = self._words.date(stated.value.by.astimezone(self._zone).date())
            by = " " + self._words.when("by_date", date=day)
        return self._either("next_steps", stated.value.code).replace("{by}", by)

    def _credit(self, stated: CompensationFact) -> str:
        said = (self._credit_amount(stated), self._credit_how(stated), self._credit_who(stated))
        return " ".join(said)

    def _credit_amount(self, stated: CompensationFact) -> str:
        value = stated.value
        unsure = stated.confidence in (Confidence.BELIEVED, Confidence.UNDER_REVIEW)
        return self._line(
            "credit",
            amount=self._words.money(value.amount, value.currency, short=self._short),
            per=self._words.name("per", value.per),
            hedge=self._line(f"hedge_{stated.confidence}") if unsure else "",
        )

    def _credit_how(self, stated: CompensationFact) -> str:
        value = stated.value
        if not value.automatic:
            return self._line("credit_on_request")
        if value.within_billing_cycles is None:
            return self._line("credit_automatic")
        cycles = self._words.cycles(value.within_billing_cycles)
        return self._line("credit_automatic_within", cycles=cycles)

    def _credit_who(self, stated: CompensationFact) -> str:
        who = self._line("credit_eligible", accounts=self._accounts(stated.value.eligible))
        if not stated.value.not_eligible:
            return who
        others = self._accounts(stated.value.not_eligible)
        return f"{who} {self._line('credit_not_eligible', accounts=others)}"

    def _accounts(self, codes: Iterable[str]) -> str:
        return self._words.listed([self._either("accounts", code) for code in codes])

    def _either(self, table: str, code: str) -> str:
        """The short name of a code where this is the short speech and there is one."""
        if self._short and self._words.knows(f"{table}_short", code):
            table = f"{table}_short"
        return self._words.name(table, code)
