"""Passwords: which are refused, how they are hashed, and how many at once."""

import threading
import unicodedata

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from dispatcher.security import passwords
from dispatcher.security.admission import Proof, what_remains
from dispatcher.security.passwords import Crowded, Turnstile, weakness
from dispatcher.security.rights import Role
from tests.dispatcher.commands.conftest import until

GOOD = "rain on tin roofs"
OWN = ("ada.lovelace", "Ada Lovelace", "Northvale Telecom")


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "we fed the deer at noon",
        "supermarket-lamp-tide",
        "ехал грека через реку",
        "كانت الليلة هادئة جدا",
        "雨が屋根に降っていた夜のこと",
        "x7$Kq!m2Zr9w",
        "        lantern moth        ",
        "a" + "bcxkq tz" * 30,
    ],
)
def test_any_characters_will_do_if_there_are_enough(password: str) -> None:
    assert weakness(password, own_words=OWN) is None


@pytest.mark.parametrize(
    "password",
    [
        *("", "short", "elevenchars", "x" * 257),
        *("passwordpassword", "Password1234", "P@ssw0rd1234", "admin1234567", "letmein letmein"),
        *("qwertyuiopas", "1q2w3e4r5t6y", "zxcvbnm12345", "1qaz2wsx3edc", "йцукенгшщзхъ"),
        *("aaaaaaaaaaaa", "abcdabcdabcd", "monkeymonkey12", "abcdefghijkl", "123456789012"),
        *("correcthorsebatterystaple", "correct horse battery staple"),
    ],
)
def test_what_is_tried_first_is_refused(password: str) -> None:
    assert weakness(password) is not None


@pytest.mark.parametrize(
    "password",
    ["ada.lovelace99", "Ada Lovelace!1", "ADALOVELACE12", "northvale2026", "lovelaceada1"],
)
def test_own_words_are_refused(password: str) -> None:
    assert weakness(password, own_words=OWN) is not None
    assert weakness(password) is None


def test_the_reason_never_holds_the_password() -> None:
    for password in ("kumquat", "kumquatkumquat", "northvale2026"):
        assert password not in str(weakness(password, own_words=OWN))


def test_it_is_argon2id_with_todays_parameters() -> None:
    stored = passwords.hashed(GOOD)
    found, now = extract_parameters(stored), PasswordHasher()
    assert found.type is Type.ID
    assert (found.memory_cost, found.time_cost) == (now.memory_cost, now.time_cost)
    assert found.memory_cost >= 19 * 1024  # OWASP's least for argon2id, in KiB
    assert not passwords.outdated(stored)
    assert passwords.hashed(GOOD) != stored


def test_only_the_password_proves_it() -> None:
    stored = passwords.hashed(GOOD)
    assert passwords.proves(GOOD, stored)
    for wrong in ("", GOOD + " ", GOOD.upper(), stored):
        assert not passwords.proves(wrong, stored)
    assert not passwords.proves(GOOD, None)
    assert not passwords.proves(GOOD, "not a hash")
    # Whoever is nobody has no password, and not that of the stand-in either.
    assert not passwords.proves("nobody has this password, it only takes as long", None)


def test_it_is_the_same_whichever_keyboard_composed_it() -> None:
    composed = "Gärten im Nébel wohnen"
    stored = passwords.hashed(unicodedata.normalize("NFD", composed))
    assert passwords.proves(unicodedata.normalize("NFC", composed), stored)


def test_older_parameters_are_known_as_such() -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(GOOD)
    assert passwords.outdated(weak)
    assert passwords.proves(GOOD, weak)


def test_a_turnstile_lets_few_through_and_sends_the_rest_away() -> None:
    turn = Turnstile(2, 3)
    release, inside, most = threading.Event(), [], []

    def go() -> None:
        with turn():
            inside.append(1)
            most.append(len(inside))
            release.wait(30)
            inside.pop()

    threads = [threading.Thread(target=go) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: turn.crowd == 5 and len(inside) == 2)
    with pytest.raises(Crowded), turn():
        pass
    release.set()
    for thread in threads:
        thread.join(30)
    assert (max(most), len(most), turn.crowd, turn.passed) == (2, 5, 0, 5)


def test_who_fails_inside_lets_the_next_one_in() -> None:
    turn = Turnstile(1, 0)
    for _ in range(3):
        with pytest.raises(RuntimeError), turn():
            raise RuntimeError
    with turn():
        assert turn.crowd == 1


class Comer:
    id = "018f0000-0000-7000-8000-000000000000"
    role = Role.ADMIN


def test_a_password_is_what_is_needed_to_come_in() -> None:
    assert what_remains(Comer(), ()) == (Proof.PASSWORD,)
    assert what_remains(Comer(), {Proof.PASSWORD}) == ()
