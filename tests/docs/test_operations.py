"""The handbook and the alert rules name what is there, and each other."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from bench import capacity
from channels.contract import Reason
from dispatcher import cli
from dispatcher.delivery.evidence import Result
from dispatcher.embedded import Addresses
from dispatcher.http.app import create_app
from dispatcher.http.metrics import LEDGER
from dispatcher.settings import Settings
from dispatcher.wiring import Services, build
from tests.conftest import MASTER_KEY
from tests.laws.tree import ROOT, read

HANDBOOK = read("docs/operations.md")
_yaml: Any = importlib.import_module("yaml")


def rules() -> list[dict[str, Any]]:
    document = _yaml.safe_load(read("docs/alerts.yml"))
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.fixture
def services(stack: Addresses, database_url: str, tmp_path: Path) -> Services:
    """Services of an installation whose database counts as embedded: all figures are shown."""
    settings = Settings.model_validate(
        {
            "database_url": database_url,
            "broker_url": stack.broker_url,
            "master_key": MASTER_KEY,
            "data_dir": tmp_path,
        }
    )
    return build(settings)


def shown(services: Services) -> dict[str, str]:
    """Every metric that an API process can show, by its name with its suffix; its text beside."""
    settings = services.settings.model_copy(update={"database_url": None})
    app = create_app(
        Services(**{n: getattr(services, n) for n in services.__slots__} | {"settings": settings})
    )
    text = app.state.metrics.render(None).decode()
    services.ledger.close()
    found = re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE)
    return {name: told for name, told in found if name.startswith("dispatcher_")}


def base(name: str, among: dict[str, str]) -> str:
    """A histogram's own name behind its series."""
    stem = re.sub(r"_(count|sum|bucket)$", "", name)
    return stem if name not in among and stem in among else name


def test_every_alert_asks_for_metrics_that_are_shown(services: Services) -> None:
    metrics = shown(services)
    asked = {name for rule in rules() for name in re.findall(r"dispatcher_\w+", rule["expr"])}
    assert {base(name, metrics) for name in asked} - metrics.keys() == set()
    assert len(asked) >= 15


def test_alerts_choose_by_labels_and_values_that_are_there() -> None:
    labels = {told.name: told.labels for told in LEDGER.values()}
    known = {
        "lane": {"urgent", "normal", "bulk"},
        "condition": {"due", "leased"},
        "result": {*Result, "forged", "unsigned", "too_old"},
    }
    for rule in rules():
        for metric, chosen in re.findall(r"(dispatcher_\w+)\{([^}]*)\}", rule["expr"]):
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', chosen):
                if metric in labels:
                    assert label in labels[metric], rule["alert"]
                if label != "status":
                    assert set(values.split("|")) <= known[label], rule["alert"]


def test_every_alert_is_whole_and_has_its_section_and_no_section_is_without_one() -> None:
    _, _, alarms = HANDBOOK.partition("\n## Alarms\n")
    sections = re.findall(r"^### (\w+)$", alarms.partition("\n## ")[0], re.MULTILINE)
    assert [rule["alert"] for rule in rules()] == sections
    for rule in rules():
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        notes = rule["annotations"]
        assert notes["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert notes["summary"].endswith(".")


def test_the_handbook_lists_every_metric(services: Services) -> None:
    metrics = shown(services)
    listed = re.findall(r"^\| `(dispatcher_\w+)` \|([^|]*)\|", HANDBOOK, re.MULTILINE)
    assert {name for name, _ in listed} == metrics.keys()
    labels = {told.name: told.labels for told in LEDGER.values()}
    for name, named in listed:
        if name in labels:
            assert tuple(named.strip().split(", ")) == (labels[name] or ("",)), name


def commands() -> set[str]:
    """Every command of the command line, with those above it."""
    found: set[str] = set()

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, below in getattr(command, "commands", {}).items():
            found.add(" ".join((*path, name)))
            walk(below, (*path, name))

    walk(typer.main.get_command(cli.app), ())
    return found


def test_commands_in_the_handbooks_exist() -> None:
    known = commands()
    for document in ("docs/operations.md", "docs/scaling.md"):
        for words in re.findall(r"`dispatcher ((?:[a-z]+ ?)+)", read(document)):
            first = words.split()
            assert " ".join(first[:2]) in known or first[0] in known, f"{document}: {words}"


def test_calls_in_the_handbook_exist(services: Services) -> None:
    document = create_app(services).openapi()
    services.ledger.close()
    for method, path in re.findall(r"`(GET|POST|PATCH|DELETE) (/[^`?\s]*)", HANDBOOK):
        known = document["paths"].get(path, {})
        assert method.lower() in known, f"{method} {path}"


def test_reasons_and_settings_in_the_handbook_exist() -> None:
    told = re.search(r"The reason says why: (.*?)are the provider's", HANDBOOK, re.DOTALL)
    assert told is not None
    assert set(re.findall(r"`(\w+)`", told[1])) <= {reason.value for reason in Reason}
    variables = set(re.findall(r"`DISPATCHER_(\w+?)(?:_FILE)?`", HANDBOOK))
    assert variables <= {name.upper() for name in Settings.model_fields}


def test_the_figures_of_the_model_are_computed() -> None:
    document = read("docs/scaling.md")
    for tables in capacity.tables(capacity.kept()):
        assert tables in document


def test_the_model_knows_what_an_account_may_do() -> None:
    short = next(sender for sender in capacity.SENDERS if "short" in sender.name)
    assert capacity.senders_for(short, 73_000, within=3_600) == 1
    assert capacity.senders_for(short, 1_000_000, within=1_000) == 10
    assert capacity.senders_for(short, 10_000_000, within=3_600) is None
    assert [capacity.span(s) for s in (90, 120, 7_200, 172_800)] == [
        "90.0 s",
        "2.0 min",
        "2.0 h",
        "2.0 d",
    ]


def test_the_rules_are_where_the_handbook_says() -> None:
    assert "(alerts.yml)" in HANDBOOK
    assert (ROOT / "docs" / "alerts.yml").exists()
