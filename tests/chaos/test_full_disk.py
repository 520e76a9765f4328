"""The disk under the database is full in the middle of a fan-out."""

import pytest

from tests.chaos.disk import small_disk
from tests.chaos.drill import settle
from tests.chaos.judge import judge
from tests.chaos.site import WORKERS, Site, standing
from tests.stories.house import until

pytestmark = [pytest.mark.xdist_group("chaos"), pytest.mark.timeout(600)]

SIZE = 1_000


def _alarms(site: Site) -> int:
    """How often a worker has said that it cannot write."""
    return sum(
        site.house.log(name).count(f'"event": "{event}"')
        for name in WORKERS
        for event in ("ledger.full", "ledger.away")
    )


def test_no_room_is_an_alarm_and_no_success(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is claimed without a place to write it; with room again all are told, once."""
    with (
        standing(tmp_path_factory.mktemp("disk"), size=SIZE, blind=False) as site,
        small_disk(site.house) as disk,
    ):
        until(lambda: site.house.operator.http.get("/readyz").is_success, within=60)
        update = site.begin(0.3)
        until(lambda: site.taken() > SIZE // 10, within=60, what="the first messages")
        before = _alarms(site)
        disk.fill()
        until(lambda: _alarms(site) > before, within=60, what="an alarm")
        numbers = site.progress(update)
        assert numbers is None or not numbers["complete"]
        disk.make_room()
        settle(site, update)
        verdict = judge(site, update)
        assert verdict.wrong == []
        assert (verdict.lost, verdict.duplicates) == (0, 0)
