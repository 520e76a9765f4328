"""What was lost and what came twice, found without the engine's own counters.

Three witnesses are laid side by side: the ledger's rows, what the simulators and inboxes
hold, and who should have been told by a plain pass over the recipients' file (`census`).
Must not know planning, selection or delivery. Texts and ids are kept as 64-bit hashes, so
that half a million messages fit in some 150 MB.
"""

import csv
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dispatcher.audiences import Packs
from dispatcher.demo.census import AudienceRule, Verdict
from dispatcher.planning import KIND_ORDER

PROVIDERS: Mapping[str, tuple[str, str]] = {
    "twilio_sms": ("twilio", "phone"),
    "sendgrid_email": ("sendgrid", "email"),
    "x_social": ("x", ""),
    "fcm_push": ("fcm", "fcm_token"),
}
"""For each adapter with a simulator: the simulator, and the file's column of its addresses."""

SHOWN_ONCE = frozenset({"fcm"})
"""Simulators of providers where a key that is sent twice is shown once: `Limits.repeatable`."""

INBOX = "inbox_push"
HAS_IT = ("accepted", "delivered")
CONTACTS = ("phone", "email", "fcm_token", "inbox")


class Row(NamedTuple):
    """A delivery as the ledger shows it."""

    id: str
    recipient: str | None
    audience: str
    channel: str
    state: str
    adapter: str
    ref: str | None

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> "Row":
        return cls(*(shown[name] for name in cls._fields))


class Entry(NamedTuple):
    """A message as a simulator holds it. `ref` is the provider's id as the ledger writes it,
    `content` a hash of its texts, `key` the delivery's id where the protocol carries it."""

    provider: str
    ref: str
    address: str
    content: str
    key: str | None = None


@dataclass(slots=True)
class Findings:
    """The audit's sums. `lost` and `duplicates` are made of what stands beside them."""

    rows: int = 0
    accepted: int = 0
    in_doubt: int = 0
    held: int = 0
    covered: int = 0
    not_in_outbox: int = 0
    at_another_address: int = 0
    expected: int = 0
    without_row: int = 0
    duplicates: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.not_in_outbox + self.at_another_address + self.without_row

    def note(self, what: str) -> None:
        if len(self.examples) < 10:
            self.examples.append(what)


def rules(packs: Packs) -> dict[str, AudienceRule]:
    """The packs' audiences as the census's own rules."""
    return {
        audience.name: AudienceRule(
            segments=frozenset(audience.segments),
            tags=frozenset(audience.tags),
            rank=audience.rank,
            scope="everyone" if audience.scope == "everyone" else "affected",
            also_tags=frozenset(audience.also_tags),
            kinds=frozenset(
                kind
                for step in audience.channels
                for kind in KIND_ORDER[step.channel]
                if kind in CONTACTS
            ),
        )
        for audience in packs.audiences.values()
    }


class _Held:
    """What the simulators hold: each message once, found by the provider's own ref."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.place: dict[int, int] = {}
        self.provider: list[str] = []
        self.address = array("q")
        self.content = array("q")
        self.key = array("q")
        names: dict[str, str] = {}
        for entry in entries:
            self.place[hash((entry.provider, entry.ref))] = len(self.address)
            self.provider.append(names.setdefault(entry.provider, entry.provider))
            self.address.append(_address(entry.address))
            self.content.append(hash(entry.content))
            self.key.append(hash(entry.key) if entry.key else 0)
        self.claimed = bytearray(len(self.address))


def _address(written: str) -> int:
    return hash(written.strip().casefold())


class _Directory:
    """The recipients' file: each person's place in it, and their addresses as hashes."""

    def __init__(self, file: Path) -> None:
        self.place: dict[str, int] = {}
        self._hashes = {kind: array("q") for kind in CONTACTS}
        with file.open(encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                self.place[row["id"]] = len(self.place)
                for kind in CONTACTS:
                    self._hashes[kind].append(_address(row[kind]))

    def address(self, recipient: str | None, kind: str) -> int | None:
        """The hash of this person's address, None for who is not in the file."""
        place = self.place.get(recipient or "")
        return None if place is None or not kind else self._hashes[kind][place]


_Group = tuple[int, str, str]
"""Rows that carry texts of one making: update, audience, channel."""


@dataclass(slots=True)
class _Doubt:
    """A delivery whose outcome is unknown: one message to its address is not one too many."""

    group: _Group
    spent: bool = False


class Audit:
    """Lays the witnesses side by side. `inboxes` is, per delivery id, how often it is shown."""

    def __init__(
        self,
        people: Path,
        *,
        held: Iterable[Entry],
        inboxes: Mapping[str, int],
    ) -> None:
        self._people = _Directory(people)
        self._held = _Held(held)
        self._inboxes = dict(inboxes)
        self._texts: defaultdict[_Group, set[int]] = defaultdict(set)
        self._doubts: defaultdict[tuple[str, int], list[_Doubt]] = defaultdict(list)
        self._doubtful_keys: set[int] = set()
        self._found = Findings(held=len(self._held.address) + sum(self._inboxes.values()))

    def update(
        self,
        number: int,
        rows: Iterable[Row],
        verdicts: Mapping[str, Verdict],
        *,
        texts: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        """Judge one update's rows against the outbox and against who should have one.

        `texts`: (audience, channel, hash of the texts) of each message it had.
        """
        found, people = self._found, self._people
        for audience, channel, content in texts:
            self._texts[(number, audience, channel)].add(hash(content))
        has_row = bytearray(len(people.place))
        for row in rows:
            found.rows += 1
            place = people.place.get(row.recipient or "")
            verdict = verdicts.get(row.recipient or "")
            if place is not None and verdict is not None and verdict.audience == row.audience:
                has_row[place] = 1
            if row.state in HAS_IT:
                found.accepted += 1
                self._accepted(number, row)
            elif row.state == "unknown":
                found.in_doubt += 1
                self._unknown(number, row)
        for recipient, verdict in verdicts.items():
            if verdict.audience:
                found.expected += 1
                if not has_row[people.place[recipient]]:
                    found.without_row += 1
                    found.note(f"update {number}: {recipient} of {verdict.audience} has no row")

    def _accepted(self, number: int, row: Row) -> None:
        found, held = self._found, self._held
        if row.adapter == INBOX:
            if self._inboxes.get(row.id, 0) > 0:
                self._inboxes[row.id] -= 1
                found.covered += 1
            else:
                found.not_in_outbox += 1
                found.note(f"update {number}: delivery {row.id} is in no inbox")
            return
        provider, kind = PROVIDERS[row.adapter]
        at = held.place.get(hash((provider, row.ref)))
        if at is None or held.claimed[at]:
            # An entry that another row claims already does not tell this one's person.
            found.not_in_outbox += 1
            found.note(f"update {number}: delivery {row.id} is not in {provider}'s outbox")
            return
        held.claimed[at] = 1
        found.covered += 1
        self._texts[(number, row.audience, row.channel)].add(held.content[at])
        wanted = self._people.address(row.recipient, kind)
        if wanted is not None and wanted != held.address[at]:
            found.at_another_address += 1
            found.note(f"update {number}: delivery {row.id} went to another address")

    def _unknown(self, number: int, row: Row) -> None:
        if row.adapter == INBOX:
            if self._inboxes.get(row.id, 0) > 0:
                self._inboxes[row.id] -= 1
                self._found.covered += 1
            return
        provider, kind = PROVIDERS[row.adapter]
        address = self._people.address(row.recipient, kind)
        # Who is not in the file is one of our own public accounts: any address of theirs.
        self._doubtful_keys.add(hash(row.id))
        doubt = _Doubt((number, row.audience, row.channel))
        self._doubts[(provider, 0 if address is None else address)].append(doubt)

    def findings(self) -> Findings:
        """The sums, once every update was judged: what is held beyond the deliveries."""
        held = self._held
        shown = {
            key
            for key, provider, claimed in zip(held.key, held.provider, held.claimed, strict=True)
            if claimed and key and provider in SHOWN_ONCE
        }
        for at, claimed in enumerate(held.claimed):
            if claimed:
                continue
            if held.key[at] in shown or self._excused(at):
                self._found.covered += 1
            else:
                self._found.duplicates += 1
                self._found.note(f"{held.provider[at]} holds a message beyond the deliveries")
        beyond = sum(self._inboxes.values())
        self._found.duplicates += beyond
        if beyond:
            self._found.note(f"inboxes hold {beyond} messages beyond the deliveries")
        return self._found

    def _excused(self, at: int) -> bool:
        """Whether a delivery in doubt accounts for this message, and for no other.

        By its key where it has one; else by address and by the texts that its update had.
        """
        held = self._held
        key = held.key[at]
        if key:
            excused = key in self._doubtful_keys
            self._doubtful_keys.discard(key)
            return excused
        provider, content = held.provider[at], held.content[at]
        for place in ((provider, held.address[at]), (provider, 0)):
            for doubt in self._doubts.get(place, ()):
                if not doubt.spent and content in self._texts[doubt.group]:
                    doubt.spent = True
                    return True
        return False


def examine(
    people: Path,
    *,
    updates: Sequence[Iterable[Row]],
    verdicts: Sequence[Mapping[str, Verdict]],
    held: Iterable[Entry],
    inboxes: Mapping[str, int],
    texts: Sequence[Iterable[tuple[str, str, str]]] | None = None,
) -> Findings:
    """The whole audit: rows, verdicts and texts of each update in turn."""
    audit = Audit(people, held=held, inboxes=inboxes)
    known = texts if texts is not None else [()] * len(updates)
    for number, (rows, expected, had) in enumerate(
        zip(updates, verdicts, known, strict=True), start=1
    ):
        audit.update(number, rows, expected, texts=had)
    return audit.findings()


def entries(lines: Iterable[bytes | str], loads: Any) -> Iterator[Entry]:
    """A simulator's outbox lines (NDJSON) as entries."""
    for line in lines:
        found = loads(line)
        ref = found["ref"]
        if found["provider"] == "sendgrid":
            # One id per request: the ledger's ref names the delivery within it too.
            ref = f"{ref}:{found['key']}"
        yield Entry(found["provider"], ref, found["address"], found["content_hash"], found["key"])
