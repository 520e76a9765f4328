"""The only reader of the environment: what the operator set, typed and judged.

Every variable begins with `DISPATCHER_`; a name we do not know is refused, since a
mistyped name would otherwise look like a setting that works. Any variable may be given as
`<NAME>_FILE` instead, naming a file that holds the value. Adapter settings are
`DISPATCHER_CHANNELS__<ADAPTER>__<FIELD>` and judged by the adapter's own model; those of a
second account of the same adapter are `DISPATCHER_CHANNELS__<ADAPTER>__AT__<NAME>__<FIELD>`,
and it is called `<adapter>.<name>`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from channels import registry

PREFIX = "DISPATCHER_"
_CHANNELS = "CHANNELS__"
_AT = "at__"


class SettingsError(Exception):
    """Settings that cannot be used; `problems` are (variable, reason), never a value."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in problems))


class Settings(BaseModel):
    """One installation's settings. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    mode: Literal["sandbox", "live"] = Field(
        default="sandbox", description="sandbox speaks to simulators, live to real providers"
    )
    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL 18 as postgresql://…; empty: the embedded one"
    )
    broker_url: SecretStr | None = Field(
        default=None, description="Valkey or Redis as redis://…; empty: the embedded one"
    )
    master_key: SecretStr | None = Field(
        default=None, description="64 hexadecimal digits that seal contacts; give it as a file"
    )
    data_dir: Path = Field(default=Path(".dispatcher"), description="where embedded servers live")
    templates: Path | None = Field(default=None, description="the packs; empty: those shipped")
    overlay: Path | None = Field(default=None, description="a second folder laid over the packs")
    sandbox_url: str = Field(
        default="http://127.0.0.1:8025",
        pattern=r"^https?://[^\s/]+$",
        description="where the provider sandbox listens",
    )
    host: str = Field(default="127.0.0.1", description="where the API listens")
    port: int = Field(default=8000, ge=1, le=65535, description="the API's port, or the next free")
    batch_size: int = Field(default=1_000, ge=1, le=10_000, description="deliveries in a batch")
    lease: float = Field(default=60.0, ge=5, le=600, description="seconds a worker holds a batch")
    ask_for: float = Field(
        default=3_600.0,
        ge=0,
        le=86_400,
        description="seconds for which a provider is asked about a message in doubt",
    )
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="where providers reach the API with their receipts; empty: none are asked for",
    )
    poll_after: float = Field(
        default=300.0,
        ge=1,
        le=86_400,
        description="seconds after which a provider is asked about a message without a receipt",
    )
    api_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+/?$",
        description="the API that the command line speaks to; empty: as written in the data folder",
    )
    api_key: SecretStr | None = Field(
        default=None, description="the command line's key; empty: operator.key of the data folder"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least that is logged"
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="one JSON object a line, or text for people"
    )
    channels: dict[str, dict[str, str]] = Field(
        default={}, repr=False, description="adapter settings by adapter and field"
    )

    def secret(
        self, name: Literal["database_url", "broker_url", "master_key", "api_key"]
    ) -> str | None:
        value: SecretStr | None = getattr(self, name)
        return value.get_secret_value() if value is not None else None


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment. Raises `SettingsError` with everything that is wrong."""
    source = os.environ if environ is None else environ
    problems: list[tuple[str, str]] = []
    values: dict[str, object] = {}
    channels: dict[str, dict[str, str]] = {}
    for variable, raw in source.items():
        if not variable.startswith(PREFIX):
            continue
        name, value = _from_file(variable.removeprefix(PREFIX), raw, problems)
        if name.startswith(_CHANNELS):
            _channel(variable, name, value, channels=channels, problems=problems)
        elif name.lower() in Settings.model_fields and name != "CHANNELS":
            if value != "":
                values[name.lower()] = value
        else:
            problems.append((variable, "is not a setting of this program"))
    try:
        settings = Settings.model_validate(values | {"channels": channels})
    except ValidationError as error:
        problems += [
            (PREFIX + ".".join(str(part) for part in found["loc"]).upper(), found["msg"])
            for found in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _from_file(name: str, raw: str, problems: list[tuple[str, str]]) -> tuple[str, str]:
    if not name.endswith("_FILE") or name.lower() in Settings.model_fields:
        return name, raw
    if name.split("__")[-1].lower() == "service_account_file":
        return name, raw
    try:
        return name.removesuffix("_FILE"), Path(raw).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problems.append((PREFIX + name, f"the file cannot be read ({type(error).__name__})"))
        return name.removesuffix("_FILE"), ""


def _channel(
    variable: str,
    name: str,
    value: str,
    *,
    channels: dict[str, dict[str, str]],
    problems: list[tuple[str, str]],
) -> None:
    adapter, _, field = name.removeprefix(_CHANNELS).lower().partition("__")
    account: str | None = None
    if field.startswith(_AT):
        account, _, field = field.removeprefix(_AT).partition("__")
    if adapter not in registry.names():
        known = ", ".join(registry.names())
        problems.append((variable, f"names no adapter; there are: {known}"))
    elif not field:
        problems.append((variable, "names no field: DISPATCHER_CHANNELS__<ADAPTER>__<FIELD>"))
    elif account is not None and re.fullmatch(r"[a-z][a-z0-9]{0,15}", account) is None:
        problems.append((variable, "an account is named with up to 16 letters and digits"))
    elif value != "":
        channels.setdefault(f"{adapter}.{account}" if account else adapter, {})[field] = value


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a child process the same settings, secrets included."""
    found: dict[str, str] = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if name == "channels" or value is None:
            continue
        plain = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        found[PREFIX + name.upper()] = plain
    for adapter, fields in settings.channels.items():
        name, _, account = adapter.partition(".")
        at = f"{name}__{_AT}{account}" if account else name
        for field, value in fields.items():
            found[f"{PREFIX}{_CHANNELS}{at.upper()}__{field.upper()}"] = value
    return found


def inherited() -> dict[str, str]:
    """What a child process of ours needs of this process's own environment."""
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in keep if name in os.environ}
