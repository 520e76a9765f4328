"""The doctor finds what is wrong, names it, and says how to mend it; no value is shown."""

from pathlib import Path

import pytest

from dispatcher.commands import processes
from dispatcher.commands.doctor import Finding, Level, examine, tell
from dispatcher.settings import Settings, environment
from tests.conftest import MASTER_KEY


def findings(environ: dict[str, str], *, online: bool = False) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(environ, online=online)}


def test_a_sound_installation_has_no_error(settings: Settings, simulators: str) -> None:
    sound = settings.model_copy(update={"sandbox_url": simulators})
    processes.migrate(sound, wait=5).ledger.close()
    told: list[str] = []
    assert tell(list(examine(environment(sound), online=False)), told.append)
    found = findings(environment(sound))
    assert all(finding.level is not Level.ERROR for finding in found.values())
    assert {"database", "installation", "broker", "packs", "master key"} <= set(found)
    whole = "\n".join(told)
    assert MASTER_KEY not in whole
    assert (settings.secret("broker_url") or "").split("@")[0] not in whole


def test_a_mistyped_variable_is_named_with_what_was_meant(tmp_path: Path) -> None:
    found = findings({"DISPATCHER_MASTER_KEY_FLIE": "x", "DISPATCHER_MODE": "livee"})
    assert "did you mean DISPATCHER_MASTER_KEY_FILE?" in found["DISPATCHER_MASTER_KEY_FLIE"].mend
    assert found["DISPATCHER_MODE"].level is Level.ERROR
    assert "livee" not in str(found["DISPATCHER_MODE"])


def test_nothing_set_and_nothing_running(tmp_path: Path) -> None:
    found = findings({"DISPATCHER_DATA_DIR": str(tmp_path / "none")})
    assert found["database"].level is Level.ERROR
    assert "dispatcher up" in found["database"].mend
    assert found["broker"].level is Level.ERROR
    assert found["packs"].level is Level.GOOD
    assert not (tmp_path / "none").exists()


def test_an_older_schema_and_another_mode_and_key(settings: Settings) -> None:
    processes.migrate(settings, wait=5).ledger.close()
    live = environment(settings) | {"DISPATCHER_MODE": "live"}
    assert "started in sandbox mode" in findings(live)["installation"].found
    other = environment(settings) | {"DISPATCHER_MASTER_KEY": "0f" * 32}
    assert "not the one" in findings(other)["installation"].found
    short = environment(settings) | {"DISPATCHER_MASTER_KEY": "0f"}
    assert findings(short)["master key"].level is Level.ERROR


def test_live_without_credentials_names_what_is_missing(settings: Settings) -> None:
    found = findings(environment(settings) | {"DISPATCHER_MODE": "live"})
    assert "account_sid" in found["adapter twilio_sms"].found
    assert found["channel sms"].level is Level.ERROR
    assert "provider sandbox" not in found


def test_a_provider_is_connected_to_only_when_asked(settings: Settings, simulators: str) -> None:
    given = environment(settings) | {
        "DISPATCHER_MODE": "live",
        "DISPATCHER_CHANNELS__TWILIO_SMS__ACCOUNT_SID": "AC" + "0" * 32,
        "DISPATCHER_CHANNELS__TWILIO_SMS__AUTH_TOKEN": "0" * 32,
        "DISPATCHER_CHANNELS__TWILIO_SMS__BASE_URL": simulators,
    }
    assert "provider of twilio_sms" not in findings(given)
    assert findings(given, online=True)["provider of twilio_sms"].level is Level.GOOD
    gone = given | {"DISPATCHER_CHANNELS__TWILIO_SMS__BASE_URL": "http://127.0.0.1:9"}
    assert findings(gone, online=True)["provider of twilio_sms"].level is Level.ERROR


@pytest.mark.parametrize(("template", "line"), [("{{ unclosed", 1), ("\n\n{% if %}", 3)])
def test_a_broken_template_is_shown_with_file_and_line(
    settings: Settings, tmp_path: Path, template: str, line: int
) -> None:
    from dispatcher import wiring

    folder = tmp_path / "overlay" / "consumers"
    (folder / "sms").mkdir(parents=True)
    rules = wiring.CHECKED_OUT / "consumers" / "audience.toml"
    (folder / "audience.toml").write_bytes(rules.read_bytes())
    broken = folder / "sms" / "investigating.en.j2"
    broken.write_text(template)
    own = settings.model_copy(update={"overlay": tmp_path / "overlay"})
    found = findings(environment(own))["packs"]
    assert found.level is Level.ERROR
    assert f"{broken}:{line}: " in found.found


def test_a_database_that_is_away(settings: Settings) -> None:
    away = environment(settings) | {"DISPATCHER_DATABASE_URL": "postgresql://u:s3@127.0.0.1:9/d"}
    found = findings(away)["database"]
    assert found.level is Level.ERROR
    assert "s3" not in str(found)
