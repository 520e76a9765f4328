"""Laws of the source: what no review should have to look for."""

import ast
import re

import pytest

from dispatcher.ledger import migrations
from tests.laws.tree import ROOT, Module, modules, product

FORBIDDEN_ENDINGS = ("Manager", "Helper", "Util", "Utils", "Base", "Impl")


def wrong(text: str) -> Module:
    """A module that a law has to find."""
    return Module("wrong.py", text.count("\n"), ast.parse(text))


def too_long(module: Module) -> bool:
    return module.lines > 500


def sleeps(module: Module) -> bool:
    return module.mentions("time", "sleep")


def reads_environment(module: Module) -> bool:
    return module.mentions("os", "environ", "getenv", "environb")


def ill_named(module: Module) -> list[str]:
    return [name for name in module.classes() if name.endswith(FORBIDDEN_ENDINGS)]


def sends(module: Module) -> bool:
    """Whether it calls `send` of something that is an adapter, or may be one."""
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "send"
        and "batches" not in ast.unparse(call.func.value)
        for call in module.calls()
    )


def test_no_module_is_over_500_lines() -> None:
    assert [module.path for module in product() if too_long(module)] == []
    assert too_long(wrong("\n" * 501))


def test_nothing_waits_by_sleeping_in_a_thread() -> None:
    assert [
        module.path for module in modules("dispatcher", "channels", "tests") if sleeps(module)
    ] == []
    assert sleeps(wrong("import time\ntime.sleep(1)"))
    assert sleeps(wrong("from time import sleep"))


def test_only_the_settings_read_the_environment() -> None:
    readers = [module.path for module in product() if reads_environment(module)]
    assert readers == ["dispatcher/settings.py"]
    assert reads_environment(wrong("import os\nos.getenv('X')"))


def test_names_of_classes_say_what_they_are() -> None:
    assert [name for module in product() for name in ill_named(module)] == []
    assert ill_named(wrong("class RetryManager: ...")) == ["RetryManager"]


def test_only_delivery_sends() -> None:
    senders = [module.path for module in modules("dispatcher") if sends(module)]
    assert senders
    assert [path for path in senders if not path.startswith("dispatcher/delivery/")] == []
    assert sends(wrong("async def f(a):\n async for o in a.send(m, e): ..."))


def test_sql_is_written_in_the_ledger_only() -> None:
    statement = re.compile(r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM)\s")
    writers = {
        module.path
        for module in product()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and statement.search(node.value)
    }
    outside = {path for path in writers if not path.startswith("dispatcher/ledger/")}
    # The embedded server's database has to be made before there is a ledger.
    assert outside == {"dispatcher/embedded.py"}


def test_migrations_are_numbered_and_have_one_head() -> None:
    folder = ROOT / "dispatcher" / "ledger" / "migrations" / "versions"
    names = sorted(file.name for file in folder.glob("*.py"))
    numbers = [name.partition("_")[0] for name in names]
    assert numbers == [f"{number:04d}" for number in range(1, len(names) + 1)]
    # Raises when there are two.
    assert migrations.head() == numbers[-1]
    assert all(migrations.known(number) for number in numbers)


@pytest.mark.parametrize("folder", ["dispatcher", "channels", "tests"])
def test_every_package_is_one(folder: str) -> None:
    holders = {file.parent for file in (ROOT / folder).rglob("*.py")}
    lacking = [
        str(each.relative_to(ROOT)) for each in holders if not (each / "__init__.py").exists()
    ]
    allowed = ["dispatcher/ledger/migrations/versions"]  # Alembic finds these by file
    assert [path for path in lacking if path not in allowed] == []
