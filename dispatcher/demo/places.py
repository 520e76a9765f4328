"""Where synthetic recipients live and what they speak: two countries as weighted choices.

Owns region codes, their weights, the mix of locales and the public bodies of each country.
Weights follow population roughly; they are for plausibility, not for statistics.
"""

from bisect import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

from dispatcher.demo.names import (
    ARABIC,
    CHINESE,
    ENGLISH,
    INDIAN,
    MAORI,
    PASIFIKA,
    RUSSIAN,
    SPANISH,
    VIETNAMESE,
    WEST_AFRICAN,
    Culture,
)

T = TypeVar("T")


class Draw(Generic[T]):
    """A weighted choice that is a function of one number."""

    def __init__(self, weighted: Iterable[tuple[T, float]]) -> None:
        pairs = list(weighted)
        self.values = tuple(value for value, _ in pairs)
        running = list(accumulate(weight for _, weight in pairs))
        self._bounds = [bound / running[-1] for bound in running[:-1]]

    def pick(self, roll: float) -> T:
        """The value at `roll`, a number from 0 up to but not including 1."""
        return self.values[bisect(self._bounds, roll)]


@dataclass(frozen=True, slots=True)
class Country:
    """One operator's country. `cultures` is by language; `bodies` are (name, region).

    `responder_tag` marks first responders' own subscriptions, where a network is kept for them.
    """

    code: str
    regions: Draw[str]
    locales: Draw[str]
    cultures: Mapping[str, Draw[Culture]]
    bodies: tuple[tuple[str, str], ...]
    responder_tag: str = ""


_STATES = """
CA 39.2 TX 29.5 FL 21.8 NY 19.8 PA 13.0 IL 12.7 OH 11.8 GA 10.8 NC 10.6 MI 10.1 NJ 9.3 VA 8.6
WA 7.7 AZ 7.3 MA 7.0 TN 7.0 IN 6.8 MD 6.2 MO 6.2 WI 5.9 CO 5.8 MN 5.7 SC 5.2 AL 5.0 LA 4.6 KY 4.5
OR 4.2 OK 4.0 CT 3.6 UT 3.3 IA 3.2 NV 3.1 AR 3.0 MS 2.9 KS 2.9 NM 2.1 NE 2.0 ID 1.9 WV 1.8 HI 1.4
NH 1.4 ME 1.4 RI 1.1 MT 1.1 DE 1.0 SD 0.9 ND 0.8 AK 0.7 DC 0.7 VT 0.6 WY 0.6
"""
# The share of a state's people who live in a metropolitan area with a code of its own.
_METROS = {
    "CA": (("LAX", 0.32), ("SFO", 0.12), ("SAN", 0.08)),
    "TX": (("DAL", 0.26), ("HOU", 0.24), ("AUS", 0.08), ("SAT", 0.08)),
    "FL": (("MIA", 0.28), ("TPA", 0.14), ("ORL", 0.12)),
    "NY": (("NYC", 0.44),),
    "PA": (("PHL", 0.30),),
    "IL": (("CHI", 0.62),),
    "GA": (("ATL", 0.55),),
    "NC": (("CLT", 0.24),),
    "MI": (("DET", 0.42),),
    "WA": (("SEA", 0.50),),
    "AZ": (("PHX", 0.64),),
    "MA": (("BOS", 0.60),),
}
_NZ_REGIONS = (
    *(("NZ-AUK-CEN", 10.0), ("NZ-AUK", 23.0), ("NZ-CAN-CHC", 8.0), ("NZ-CAN", 5.0)),
    *(("NZ-WGN", 11.0), ("NZ-WKO", 10.0), ("NZ-BOP", 6.5), ("NZ-MWT", 5.0), ("NZ-OTA", 5.0)),
    *(("NZ-NTL", 4.0), ("NZ-HKB", 3.5), ("NZ-TKI", 2.5), ("NZ-STL", 2.0), ("NZ-NSN", 1.1)),
    *(("NZ-TAS", 1.1), ("NZ-GIS", 1.0), ("NZ-MBH", 1.0), ("NZ-WTC", 0.7)),
)
_STATE_WEIGHTS = tuple(zip(_STATES.split()[::2], map(float, _STATES.split()[1::2]), strict=True))


def _american_regions() -> Iterable[tuple[str, float]]:
    for state, weight in _STATE_WEIGHTS:
        metros = _METROS.get(state, ())
        for metro, share in metros:
            yield f"US-{state}-{metro}", weight * share
        yield f"US-{state}", weight * (1 - sum(share for _, share in metros))


UNITED_STATES = Country(
    code="US",
    responder_tag="firstnet",
    regions=Draw(_american_regions()),
    locales=Draw(
        [
            *(("en", 62.0), ("en-US", 16.0), ("es", 11.0), ("es-MX", 6.0)),
            *(("ru", 2.5), ("ar", 1.7), ("ar-EG", 0.8)),
        ]
    ),
    cultures={
        "en": Draw(
            [
                *((ENGLISH, 58.0), (SPANISH, 14.0), (INDIAN, 9.0), (CHINESE, 7.0)),
                *((VIETNAMESE, 6.0), (WEST_AFRICAN, 6.0)),
            ]
        ),
        "es": Draw(((SPANISH, 1.0),)),
        "ru": Draw(((RUSSIAN, 1.0),)),
        "ar": Draw(((ARABIC, 1.0),)),
    },
    bodies=(
        ("Federal Communications Regulator, Outage Reporting Desk", "US"),
        ("National Cyber Security Agency, Watch Floor", "US"),
        ("Department of Domestic Security, Operations Center", "US"),
        ("Federal Investigations Bureau, Infrastructure Liaison", "US"),
        *((f"Public Utility Commission, {code}", f"US-{code}") for code, _ in _STATE_WEIGHTS),
    ),
)
NEW_ZEALAND = Country(
    code="NZ",
    regions=Draw(_NZ_REGIONS),
    locales=Draw((("en", 54.0), ("en-NZ", 40.0), ("es", 2.0), ("ar", 2.0), ("ru", 2.0))),
    cultures={
        "en": Draw(
            ((ENGLISH, 62.0), (MAORI, 16.0), (PASIFIKA, 8.0), (CHINESE, 7.0), (INDIAN, 7.0))
        ),
        "es": Draw(((SPANISH, 1.0),)),
        "ru": Draw(((RUSSIAN, 1.0),)),
        "ar": Draw(((ARABIC, 1.0),)),
    },
    bodies=(
        ("Commerce and Communications Authority, Telecommunications", "NZ"),
        ("National Cyber Security Watch", "NZ"),
        ("Ministry of Business and Networks, Resilience", "NZ"),
        ("Privacy and Consumer Office", "NZ"),
    ),
)
