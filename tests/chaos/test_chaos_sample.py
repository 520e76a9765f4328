"""A minute's sample of `make chaos`: a fixed seed, every sort of fault, the same judge."""

from collections.abc import Iterator

import pytest

from tests.chaos.drill import drill, told
from tests.chaos.faults import EVERY, dealt
from tests.chaos.plan import plan
from tests.chaos.site import Site, standing

pytestmark = [pytest.mark.xdist_group("chaos"), pytest.mark.timeout(600)]

SIZE = 800
SAMPLE = (
    *("worker_killed", "worker_frozen_past_its_lease", "beat_killed", "api_killed"),
    *("broker_flushed", "broker_killed", "database_killed", "task_twice", "task_an_hour_late"),
    *("reset_before", "reset_after", "provider_hangs_after", "garbage_wire", "throttled"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with standing(tmp_path_factory.mktemp("chaos"), size=SIZE, blind=False) as built:
        yield built


def test_nothing_is_lost_and_nothing_doubled(site: Site) -> None:
    """Where providers can be asked, everybody is told once, whatever falls."""
    for run in plan(7, runs=2, blows=7, kinds=SAMPLE, delay=(0.15, 0.3)):
        verdict = drill(site, run)
        assert told(run, verdict, blind=False) == []
        assert verdict.planned == SIZE + 1


def test_what_nobody_can_say_is_listed(site: Site) -> None:
    """Where they do not answer, nobody is told twice, and whoever is missing is listed."""
    site.blind = True
    kinds = ("worker_killed", "reset_before", "reset_after", "garbage_body")
    (run,) = plan(7, runs=1, blows=4, kinds=kinds, delay=(0.15, 0.3))
    verdict = drill(site, run)
    assert told(run, verdict, blind=True) == []
    assert verdict.unknown + verdict.taken > 0


def test_a_seed_makes_the_same_plan() -> None:
    """Runs are drawn from the seed alone, and no kind comes again before all had their turn."""
    kinds = dealt(clocks=True)
    drawn = [plan(5, runs=8, blows=9, kinds=kinds, delay=(0.1, 0.2)) for _ in range(2)]
    assert drawn[0] == drawn[1] != plan(6, runs=8, blows=9, kinds=kinds, delay=(0.1, 0.2))
    order = [blow.kind for run in drawn[0] for blow in run.blows]
    assert len(order) == 72
    counts = [order.count(kind) for kind in kinds]
    assert max(counts) - min(counts) <= 1
    assert len(kinds) >= 12
    assert set(kinds) <= set(EVERY)
