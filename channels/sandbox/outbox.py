"""What the simulated providers accepted, kept in columns.

Owns the record of every message taken: who got it, its final text, and in which order.
It must not know protocols. Half a million entries have to fit in 400 MB, so an entry is a
row across arrays, repeated strings are held once, and an e-mail's text is kept as template
and values and put together only when somebody reads it.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from channels.sandbox.config import Provider
from channels.sandbox.contents import Content, Texts, json_and_hash, texts_of

PROVIDERS = tuple(Provider)
FIELDS = (
    "provider",
    "account",
    "seq",
    "at",
    "address",
    "key",
    "ref",
    "sender",
    "status",
    "content",
    "content_hash",
)
_CODES = {provider: code for code, provider in enumerate(PROVIDERS)}
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries a reader wants and which fields of each. `after` is a seq."""

    provider: Provider | None = None
    account: int | None = None
    address: str | None = None
    limit: int | None = None
    after: int = 0
    fields: Sequence[str] = FIELDS


class Outbox:
    """Every accepted message in order of arrival. `seq` counts from 1 and is never reused.

    `fates` tells by provider the final status of a seq; a simulator that knows puts its own in.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.fates: dict[Provider, Callable[[int], str]] = {}
        self._next_seq = 1
        self._start()

    def _start(self) -> None:
        self._first_seq = self._next_seq
        self._provider = array("B")
        self._account = array("B")
        self._at = array("d")
        self._content = array("I")
        self._address: list[str] = []
        self._key: list[str | None] = []
        self._ref: list[str] = []
        self._sender: list[str] = []
        self._collapse: dict[int, str] = {}
        self._contents: list[Content] = []
        self._content_ids: dict[Content, int] = {}
        self._strings: dict[str, str] = {}
        self._templates: dict[Texts, Texts] = {}
        self._index: dict[Provider, dict[str, int | list[int]]] = {p: {} for p in PROVIDERS}
        self._messages = dict.fromkeys(PROVIDERS, 0)
        self._of_second = dict.fromkeys(PROVIDERS, 0)

    def clear(self) -> None:
        """Forgets everything; readers under way end."""
        self._start()

    def template(self, texts: Texts) -> Texts:
        """The one held copy of these texts."""
        return self._templates.setdefault(texts, texts)

    @property
    def next_seq(self) -> int:
        """The seq that the next accepted message will get; refs are made from it."""
        return self._next_seq

    def add(
        self,
        provider: Provider,
        address: str,
        content: Content,
        *,
        ref: str,
        sender: str,
        account: int = 1,
        key: str | None = None,
        collapse: str | None = None,
    ) -> int:
        """Records an accepted message and returns its seq.

        `key` is our delivery id where the provider's protocol carries one. A message with
        the same `collapse` to the same address replaces the earlier one on the screen.
        """
        seq = self._next_seq
        self._next_seq = seq + 1
        number = self._content_ids.get(content)
        if number is None:
            number = self._content_ids[content] = len(self._contents)
            self._contents.append(content)
        index = self._index[provider]
        known = index.get(address)
        if known is None:
            index[address] = seq
        elif isinstance(known, list):
            known.append(seq)
        else:
            address = self._address[known - self._first_seq]
            index[address] = [known, seq]
        self._provider.append(_CODES[provider])
        self._account.append(account)
        self._at.append(self._clock())
        self._content.append(number)
        self._address.append(address)
        self._key.append(key)
        self._ref.append(ref)
        self._sender.append(self._strings.setdefault(sender, sender))
        if collapse is not None:
            self._collapse[seq] = key if key == collapse else collapse
        self._messages[provider] += 1
        if account != 1:
            self._of_second[provider] += 1
        return seq

    def holds(self, provider: Provider, seq: int) -> bool:
        """Whether the entry exists and is this provider's."""
        row = seq - self._first_seq
        return 0 <= row < len(self._at) and PROVIDERS[self._provider[row]] is provider

    def at(self, seq: int) -> float:
        """When it was accepted, seconds since the epoch."""
        return self._at[seq - self._first_seq]

    def address(self, seq: int) -> str:
        """Whom it was for."""
        return self._address[seq - self._first_seq]

    def account(self, seq: int) -> int:
        """Which account took it, 1 or 2."""
        return self._account[seq - self._first_seq]

    def key(self, seq: int) -> str | None:
        """Our delivery id, where the protocol carried one."""
        return self._key[seq - self._first_seq]

    def status(self, seq: int) -> str:
        """What finally becomes of it, fixed when it was taken."""
        fate = self.fates.get(PROVIDERS[self._provider[seq - self._first_seq]])
        return "accepted" if fate is None else fate(seq)

    def ref(self, seq: int) -> str:
        """The provider's own id of it."""
        return self._ref[seq - self._first_seq]

    def sender(self, seq: int) -> str:
        """What it was sent from."""
        return self._sender[seq - self._first_seq]

    def texts(self, seq: int) -> dict[str, str]:
        """Its final texts."""
        return texts_of(self._contents[self._content[seq - self._first_seq]])

    def messages(self, provider: Provider) -> int:
        """How many messages this provider accepted."""
        return self._messages[provider]

    def by_account(self, provider: Provider) -> dict[str, int]:
        """How many messages each account accepted."""
        second = self._of_second[provider]
        return {"1": self._messages[provider] - second, "2": second}

    def addresses(self, provider: Provider) -> int:
        """How many distinct addresses they were for."""
        return len(self._index[provider])

    def to(self, provider: Provider, address: str) -> list[int]:
        """The seqs of what one address got, oldest first."""
        known = self._index[provider].get(address)
        if known is None:
            return []
        return list(known) if isinstance(known, list) else [known]

    def newest_first(self, provider: Provider, before: int | None = None) -> Iterator[int]:
        """The seqs of one provider from the newest (older than `before`) to the oldest."""
        end = self._next_seq if before is None else min(before, self._next_seq)
        code = _CODES[provider]
        for seq in range(end - 1, self._first_seq - 1, -1):
            if self._provider[seq - self._first_seq] == code:
                yield seq

    def shown(self, provider: Provider, address: str) -> int:
        """How many of an address's messages stand on its screen after collapsing."""
        seqs = self.to(provider, address)
        return len({self._collapse.get(seq, seq) for seq in seqs})

    def shown_in_all(self, provider: Provider) -> int:
        """`shown` over all addresses; only repeats have to be looked at."""
        total = 0
        for address, known in self._index[provider].items():
            total += self.shown(provider, address) if isinstance(known, list) else 1
        return total

    def lines(self, selection: Selection) -> Iterator[bytes]:
        """The selected entries as NDJSON, in pieces of about 64 KB."""
        make = self._line_maker(selection.fields)
        piece = bytearray()
        left = selection.limit
        first_seq, looked_at = self._first_seq, 0
        for seq in self._selected(selection):
            if left is not None:
                if left <= 0:
                    break
                left -= 1
            if first_seq != self._first_seq:
                break
            piece += make(seq - first_seq)
            looked_at += 1
            # A piece is a turn of the event loop: bounded by work as well as by bytes.
            if len(piece) >= _CHUNK or looked_at == 1000:
                yield bytes(piece)
                piece.clear()
                looked_at = 0
        if piece:
            yield bytes(piece)

    def _selected(self, selection: Selection) -> Iterator[int]:
        first = max(selection.after + 1, self._first_seq)
        if selection.address is not None:
            wanted = PROVIDERS if selection.provider is None else (selection.provider,)
            seqs = sorted(seq for p in wanted for seq in self.to(p, selection.address))
            yield from (seq for seq in seqs if seq >= first and self._is_of(seq, selection))
            return
        code = None if selection.provider is None else _CODES[selection.provider]
        rows, offset = self._provider, self._first_seq
        for seq in range(first, self._next_seq):
            if (code is None or rows[seq - offset] == code) and self._is_of(seq, selection):
                yield seq

    def _is_of(self, seq: int, selection: Selection) -> bool:
        wanted = selection.account
        return wanted is None or self._account[seq - self._first_seq] == wanted

    def _line_maker(self, fields: Sequence[str]) -> Callable[[int], bytes]:
        readers: dict[str, Callable[[int], object]] = {
            "provider": lambda row: PROVIDERS[self._provider[row]],
            "account": lambda row: self._account[row],
            "seq": lambda row: row + self._first_seq,
            "at": lambda row: _timestamp(self._at[row]),
            "address": lambda row: self._address[row],
            "key": lambda row: self._key[row],
            "ref": lambda row: self._ref[row],
            "sender": lambda row: self._sender[row],
            "status": lambda row: self.status(row + self._first_seq),
            "content": lambda row: orjson.Fragment(self._facts(self._content[row])[0]),
            "content_hash": lambda row: self._facts(self._content[row])[1],
        }
        chosen = [(name, readers[name]) for name in FIELDS if name in fields]
        newline = orjson.OPT_APPEND_NEWLINE
        return lambda row: orjson.dumps({n: read(row) for n, read in chosen}, option=newline)

    def contents(self) -> Iterator[bytes]:
        """One JSON object {content_hash: texts} of all distinct texts, in pieces."""
        seen: set[str] = set()
        before = b"{"
        for number in range(len(self._contents)):
            if number >= len(self._contents):
                break  # cleared meanwhile
            text, digest = self._facts(number)
            if digest not in seen:
                seen.add(digest)
                yield b'%b"%b":%b' % (before, digest.encode(), text)
                before = b","
        yield b"{}" if before == b"{" else b"}"

    def _facts(self, number: int) -> tuple[bytes, str]:
        return json_and_hash(self._contents[number])


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
