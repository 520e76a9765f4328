"""Settings, README.md and .env.example tell the same."""

import re
from typing import Any, Literal, get_args, get_origin

import click
import typer.main

from channels import registry
from dispatcher import adapters
from dispatcher.cli import app
from dispatcher.settings import PREFIX, Settings
from tests.laws.tree import read

BEGIN, END = (
    "<!-- settings: checked by tests/laws against dispatcher/settings.py -->\n",
    "<!-- /settings -->",
)


def table() -> str:
    """The README's table as the settings' own model tells it."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if name == "channels":
            variable, default = f"{PREFIX}CHANNELS__<ADAPTER>__<FIELD>", ""
        else:
            variable = f"{PREFIX}{name.upper()}"
            default = "" if field.default is None else f"`{field.default}`"
        words = [f"`{value}`" for value in _choices(field.annotation)]
        meaning = "; ".join(part for part in (field.description, ", ".join(words)) if part)
        rows.append(f"| `{variable}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def test_the_readme_has_every_setting_with_its_default() -> None:
    text = read("README.md")
    told = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert told == table()


def told_in_example() -> dict[str, str]:
    """Variables of .env.example without `_FILE`, set or commented out, with their values."""
    lines = re.findall(r"^#?(DISPATCHER_\w+)=(.*)$", read(".env.example"), re.MULTILINE)
    plain = {
        name if name.endswith("SERVICE_ACCOUNT_FILE") else name.removesuffix("_FILE"): value
        for name, value in lines
    }
    assert len(plain) == len(lines), "a variable stands twice"
    return plain


def test_the_example_has_every_setting_and_no_other() -> None:
    told = {name for name in told_in_example() if "__" not in name}
    assert told == {f"{PREFIX}{n.upper()}" for n in Settings.model_fields if n != "channels"}


def test_the_example_shows_the_defaults() -> None:
    for name, field in Settings.model_fields.items():
        if name != "channels" and field.default is not None:
            assert told_in_example()[f"{PREFIX}{name.upper()}"] == str(field.default), name


def test_the_example_has_what_each_adapter_needs() -> None:
    told = {name for name in told_in_example() if "__" in name}
    fields: dict[str, Any] = {}
    for adapter in registry.names():
        kind: Any = registry.load(adapter)
        for field, about in kind.Settings.model_fields.items():
            fields[f"{PREFIX}CHANNELS__{adapter.upper()}__{field.upper()}"] = about
    second = {name for name in told if "__AT__" in name}
    own = {f"{PREFIX}CHANNELS__TWILIO_SMS__{field.upper()}" for field in adapters.OWN}
    assert {re.sub("__AT__[A-Z]+__", "__", name) for name in second} <= set(fields) | own
    assert told - second <= set(fields)
    assert {name for name, about in fields.items() if about.is_required()} <= told


def test_the_example_holds_no_secret() -> None:
    for name, value in re.findall(r"^#?(\w+)=(.*)$", read(".env.example"), re.MULTILINE):
        if re.search(r"KEY|TOKEN|SECRET|PASSWORD|DATABASE_URL", name):
            assert name.endswith("_FILE"), name
            assert value == "" or value.startswith("/run/"), name


def test_the_readme_has_every_command() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group) or hasattr(root, "commands")
    text = read("README.md")
    section = text[text.index("## The command line") : text.index("## In containers")]
    told = set(re.findall(r"`(?:dispatcher )?([a-z]+)(?: ([a-z]+))?`", section))
    words = {word for pair in told for word in pair if word}
    assert _leaves(root) <= words


def _leaves(command: Any) -> set[str]:
    found: set[str] = set()
    for name, inner in getattr(command, "commands", {}).items():
        found |= _leaves(inner) if getattr(inner, "commands", None) else {name}
    return found
