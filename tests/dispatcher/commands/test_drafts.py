"""What an operator types becomes the API's body; what cannot be read is told by option."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dispatcher.commands.drafts import Broken, DraftError, Said, fact, from_file, moment, texts

NOW = datetime(2024, 2, 22, 9, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("now", "2024-02-22T09:10:00+00:00"),
        ("-10m", "2024-02-22T09:00:00+00:00"),
        ("+2h", "2024-02-22T11:10:00+00:00"),
        ("+1d", "2024-02-23T09:10:00+00:00"),
        ("2024-02-22T03:10:00-06:00", "2024-02-22T03:10:00-06:00"),
        ("2024-02-22T09:10:00Z", "2024-02-22T09:10:00+00:00"),
    ],
)
def test_times(written: str, meant: str) -> None:
    assert moment(written, "--at", now=NOW) == meant


@pytest.mark.parametrize("written", ["soon", "2024-02-22T03:10:00", "10m", "+10y", ""])
def test_times_that_cannot_be_read(written: str) -> None:
    with pytest.raises(DraftError, match="--at"):
        moment(written, "--at", now=NOW)


def test_a_fact_is_its_value_or_the_whole_of_it() -> None:
    assert fact('restored={"percent":60}', source="noc", known_at="t") == {
        "kind": "restored",
        "source": "noc",
        "known_at": "t",
        "value": {"percent": 60},
    }
    whole = '{"value":{"code":"power"},"confidence":"believed","source":"grid"}'
    stated = fact(f"cause={whole}", source="noc", known_at="t")
    assert (stated["confidence"], stated["source"]) == ("believed", "grid")


@pytest.mark.parametrize("written", ["cause", "cause=power", "={}", "cause={"])
def test_facts_that_cannot_be_read(written: str) -> None:
    with pytest.raises(DraftError, match="--fact"):
        fact(written, source="noc", known_at="t")


def test_texts_by_slot_and_locale() -> None:
    assert texts(["note.en=a=b", "note.es=c"]) == {"note": {"en": "a=b", "es": "c"}}
    with pytest.raises(DraftError, match="--text"):
        texts(["note=words"])


def test_options_go_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    body = {
        "title": "old",
        "severity": "minor",
        "started_at": "2024-02-22T02:45:00-06:00",
        "update": {
            "phase": "investigating",
            "facts": [{"kind": "cause", "value": 1}, {"kind": "eta", "value": 2}],
        },
    }
    file.write_text(json.dumps(body))
    stands = from_file(file)
    incident = Broken(title="new", services=("voice",)).incident(stands)
    assert incident == {
        "title": "new",
        "severity": "minor",
        "services": ["voice"],
        "started_at": "2024-02-22T02:45:00-06:00",
    }
    update = Said(phase="monitoring", facts=('cause={"code":"power"}',)).update(stands["update"])
    assert update["phase"] == "monitoring"
    assert [stated["kind"] for stated in update["facts"]] == ["eta", "cause"]


@pytest.mark.parametrize("content", ["[1]", "{", "\udce9"])
def test_files_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DraftError, match="--file"):
        from_file(file)
