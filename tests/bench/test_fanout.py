"""The whole bench once, small: every figure is there, nobody is lost, nobody told twice.

The figures themselves mean nothing at this size and are not judged.
"""

import json
import subprocess
import sys

import pytest

from tests.laws.tree import ROOT

PROMISED = {
    *("messages_per_second", "wire_per_second", "textbook_per_second", "apprise_per_second"),
    *("ratio_to_wire", "ratio_to_textbook", "ratio_to_apprise", "sink", "lost", "duplicates"),
    *("first_send_ms", "first_bulk_send_ms", "peak_worker_rss_mb", "email_seconds"),
}


@pytest.mark.timeout(400)
def test_a_small_fan_out_with_its_peers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "fanout", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=360,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() >= PROMISED
    assert found["lost"] == 0 and found["duplicates"] == 0
    assert all(found[name] > 0 for name in PROMISED - {"lost", "duplicates", "sink"})
