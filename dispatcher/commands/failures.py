"""Failures that the command line expects, in words; whatever else escapes is a bug."""

from collections.abc import Sequence


def told(error: Exception) -> Sequence[str]:
    """The lines that tell an expected failure, none for an unexpected one."""
    # Imported here: a command that does not fail has no need of them.
    from dispatcher.audiences import PackError
    from dispatcher.commands.client import ApiError
    from dispatcher.demo.scenario import ScenarioError
    from dispatcher.embedded import EmbeddedError
    from dispatcher.ledger.connection import LedgerAway, SchemaTooOld, WrongInstallation
    from dispatcher.settings import SettingsError

    if isinstance(error, SettingsError):
        return [f"{name}: {reason}" for name, reason in error.problems]
    if isinstance(error, PackError):
        return ["The packs cannot be used:", *(str(problem) for problem in error.problems)]
    if isinstance(error, ApiError):
        return error.lines()
    if isinstance(
        error, EmbeddedError | LedgerAway | SchemaTooOld | WrongInstallation | ScenarioError
    ):
        text = str(error)
        return [f"{text[:1].upper()}{text[1:]}"]
    if isinstance(error, OSError) and "listen" in str(error):
        return [str(error)]
    return []
