"""What rendering costs: one message alone, and an update of 192 messages whole.

Renders the shipped packs, and a larger organisation made of them: every audience on every
channel in every language. Everything that a preview or a submission does to a message is done:
words, checks by the channels' own adapters, segments, and the hash. Must not know servers.
"""

import gc
import os
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.fanout import percentile
from bench.racing import ROOT
from channels.contract import Adapter
from dispatcher.adapters import configured, sandbox_channels
from dispatcher.audiences import Packs, load
from dispatcher.incidents import Phase
from dispatcher.ledger.connection import Ledger
from dispatcher.rendering import EXAMPLES, Renderer, Statement, content_hash
from dispatcher.security.sealing import Sealer, new_master_key
from dispatcher.settings import Settings

SHIPPED = ROOT / "templates"
AUDIENCES = 12
CHANNELS = ("sms", "email", "push", "social")
LOCALES = ("en", "es", "ru", "ar")
EVERYBODY = "everybody-else"


def run(*, quick: bool) -> dict[str, float]:
    """Milliseconds: `one_message_p95_ms`, `whole_update_ms` (median), and their ends."""
    rounds, wholes = (1, 3) if quick else (10, 25)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        adapters = simulated(place)
        shipped = Renderer(load(SHIPPED), adapters)
        large = Renderer(enlarged(place / "templates"), adapters)
        one = sorted(_ones(shipped, rounds))
        whole = sorted(_wholes(large, wholes))
    return {
        "one_message_p95_ms": round(percentile(one, 95), 2),
        "one_message_median_ms": round(percentile(one, 50), 2),
        "one_message_max_ms": round(one[-1], 2),
        "whole_update_ms": round(percentile(whole, 50), 1),
        "whole_update_max_ms": round(whole[-1], 1),
    }


def simulated(place: Path) -> Sequence[Adapter]:
    """The adapters of a sandbox: they check what is rendered, and nothing is sent."""
    settings = Settings(data_dir=place, sandbox_url="http://127.0.0.1:9")
    accounts = [account.address for account in load(SHIPPED).organisation.public_accounts]
    # Neither is used: no address is sealed, and no connection is made before one is needed.
    ledger, sealer = Ledger("postgresql://127.0.0.1:9/none"), Sealer(new_master_key())
    found, missing = configured(sandbox_channels(settings, accounts), ledger=ledger, sealer=sealer)
    assert not missing, missing
    return list(found.values())


def enlarged(folder: Path) -> Packs:
    """The shipped packs with twelve audiences, each on four channels in four languages."""
    shutil.copytree(SHIPPED, folder)
    shutil.copytree(folder / "consumers", folder / EVERYBODY)
    names = sorted(path.parent.name for path in folder.glob("*/audience.toml"))
    assert len(names) >= AUDIENCES, names
    for name in names[AUDIENCES:]:
        shutil.rmtree(folder / name)
    for rank, name in enumerate(names[:AUDIENCES]):
        file = folder / name / "audience.toml"
        file.write_text(_widened(file.read_text(encoding="utf-8"), rank), encoding="utf-8")
    return load(folder)


def _widened(text: str, rank: int) -> str:
    """An audience's file with all channels and languages; its other rules stay."""
    before = tomllib.loads(text)
    lines = text.split("[[channels]]")[0].splitlines()
    kept = [line for line in lines if line.split("=")[0].strip() not in ("locales", "rank")]
    head = [f"rank = {rank + 1}", f"locales = {list(LOCALES)!r}".replace("'", '"')]
    ways = [f'[[channels]]\nchannel = "{channel}"\n' for channel in CHANNELS]
    needed = before.get("required", {})
    tail = ["[required]", *(f"{phase} = {kinds!r}" for phase, kinds in needed.items())]
    return "\n".join([*head, *kept, *ways, *(tail if needed else [])]).replace("'", '"') + "\n"


def statements() -> Iterator[Statement]:
    """Usual facts, none, and everything at its longest, in every phase."""
    for example in EXAMPLES.values():
        for phase in Phase:
            yield replace(example, phase=phase)


def _ones(renderer: Renderer, rounds: int) -> Iterator[float]:
    """Milliseconds of each rendering of one message, over all that the packs can say."""
    said = list(statements())
    with _undisturbed():
        for _ in range(rounds):
            for statement in said:
                for audience in renderer.packs.audiences.values():
                    for step in audience.channels:
                        for locale in renderer.locales(audience.name, step.channel):
                            began = time.perf_counter()
                            renderer.render(statement, audience.name, step.channel, locale)
                            yield (time.perf_counter() - began) * 1_000


def _wholes(renderer: Renderer, rounds: int) -> Iterator[float]:
    """Milliseconds of a whole update, for the statement with the most words."""
    statement = replace(EXAMPLES["nasty"], phase=Phase.IDENTIFIED)
    with _undisturbed():
        for number in range(rounds + 1):
            began = time.perf_counter()
            renderings = renderer.render_all(statement, renderer.packs.audiences)
            content_hash(renderings)
            took = (time.perf_counter() - began) * 1_000
            assert len(renderings) == AUDIENCES * len(CHANNELS) * len(LOCALES)
            if number:  # the first fills Babel's caches, as a process does at its start
                yield took


@contextmanager
def _undisturbed() -> Iterator[None]:
    """As the API process runs: what is loaded is not looked through for garbage each time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def main() -> dict[str, Any]:
    """For profiling: the figures of this part alone."""
    return run(quick=bool(os.environ.get("QUICK")))
