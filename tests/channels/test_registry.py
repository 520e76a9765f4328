"""The registry: every adapter loads, lazily, and what is missing is named."""

import subprocess
import sys

import pytest

from channels import registry
from channels.contract import ContactKind


@pytest.mark.parametrize("name", registry.names())
def test_every_adapter_loads_under_its_own_name(name: str) -> None:
    adapter = registry.load(name)
    assert adapter.name == name
    assert adapter.accepts in set(ContactKind)
    assert adapter.limits.concurrency >= 1


def test_loading_all_of_them_imports_no_sdk() -> None:
    code = (
        "import sys\nfrom channels import registry\n"
        "assert not [m for m in sys.modules if m.startswith('channels.') and m not in "
        "('channels.registry', 'channels.contract')]\n"
        "for name in registry.names(): registry.load(name)\n"
        "sdks = ('twilio', 'sendgrid', 'tweepy', 'google.auth', 'requests', 'aiohttp')\n"
        "sys.exit(str([m for m in sdks if m in sys.modules]) if "
        "any(m in sys.modules for m in sdks) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(registry.UnknownAdapter, match=r"'pigeon'.*twilio_sms"):
        registry.load("pigeon")


def test_missing_package_is_named() -> None:
    """With no site-packages on the path the SDK is not there."""
    code = (
        "import sys, importlib.util\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'twilio': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from channels import registry\n"
        "try: registry.load('twilio_sms')\n"
        "except registry.MissingPackage as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert b"adapter twilio_sms needs a package: pip install twilio" in done.stdout


def test_channel_kinds() -> None:
    kinds = registry.channel_kinds()
    assert kinds["sms"] == ("phone",)
    assert kinds["email"] == ("email",)
    assert kinds["social"] == ("x_account",)
    assert set(kinds["push"]) == {"inbox", "fcm_token"}
