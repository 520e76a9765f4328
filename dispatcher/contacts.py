"""Contact points in one spelling: normalised, validated, and with a hint that gives nothing away.

Owns what a well-formed phone number, mail address, push token, inbox id or X account is,
and which phone numbers can never belong to a person. Pure: no I/O and no lookup. Must not
know recipients, storage or sealing. No error text ever holds the value it is about.
"""

import re
from dataclasses import dataclass, field

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
)

from channels.contract import ContactKind


@dataclass(frozen=True, slots=True)
class Contact:
    """One address in the only spelling in which it is stored, compared and sent to.

    `country` is the ISO 3166 alpha-2 code of a phone number's country, None for other
    kinds and for numbers of no country (satellite, international freephone). `hint` may
    be shown to operators and logged.
    """

    kind: ContactKind
    address: str = field(repr=False)
    country: str | None
    hint: str


class ContactError(ValueError):
    """A value that is no contact point of its kind.

    `code` is one of `empty too_long control_characters no_country not_a_number
    not_valid extension not_an_email not_a_token not_an_inbox not_an_account`; the message
    is for people. Neither ever holds the value.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Consecutive E.164 numbers: `prefix` (with +), then `digits` more, from `first` to `last`."""

    prefix: str
    digits: int
    first: int
    last: int

    def holds(self, phone: str) -> bool:
        """Whether an E.164 number lies in this range."""
        rest = phone[len(self.prefix) :]
        return (
            phone.startswith(self.prefix)
            and len(rest) == self.digits
            and rest.isdecimal()
            and self.first <= int(rest) <= self.last
        )

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return f"{self.prefix}{self.first + index:0{self.digits}d}"


def _blocks(calling_code: str, digits: int, *prefixes: str) -> tuple[NumberRange, ...]:
    return tuple(
        NumberRange(f"+{calling_code}{prefix}", digits, 0, 10**digits - 1) for prefix in prefixes
    )


# Numbers set aside by regulators for films, books and broadcasts: never given to anybody.
# GB: https://www.ofcom.org.uk/phones-and-broadband/phone-numbers/numbers-for-drama
# FR: Arcep decision 2018-0881, numbers for audiovisual works
# AU: https://www.acma.gov.au/phone-numbers-use-tv-shows-films-and-creative-works
# DE: Bundesnetzagentur, "Rufnummern für Medienproduktionen"
# US: NANPA, 555-0100 to 555-0199 of every area code (see `is_fiction`)
FICTION: dict[str, tuple[NumberRange, ...]] = {
    "GB": _blocks(
        "44",
        3,
        *("2079460", "1134960", "1144960", "1164960", "1174960", "1184960", "1214960"),
        *("1314960", "1414960", "1514960", "1614960", "1914980", "2896496", "2920180"),
    ),
    "FR": _blocks("33", 4, "19900", "26191", "35301", "46571", "53649"),
    "AU": _blocks("61", 4, *(f"{area}{block}" for area in "2378" for block in ("5550", "7010"))),
    "DE": _blocks("49", 3, "3023125", "6990009", "4066969", "2214710", "8999998"),
}
_ALL_FICTION = tuple(block for blocks in FICTION.values() for block in blocks)

# Only area codes that name a place: the reservation does not cover freephone, premium and
# personal numbers, where 555 lines are real ones.
_NANP_555 = re.compile(
    r"\+1(?!5(?:00|2[1-9]|3[23]|44|66|77|88)|6(?:00|22|33|44|55|77|88)|7[01]0|8(?:00|22|33|44|55|66|77|8\d)|9(?:00|11))"
    r"[2-9]\d\d555(\d{4})"
)
NANP_FICTION = range(100, 200)
NANP_SANDBOX_ONLY = range(2000, 4000)
"""Lines 555-2000 to 555-3999. The 555 exchange is closed to new lines and served directory and
information services, not persons; but nobody has reserved these for tests, so they are for
installations whose far end is a simulator and are refused in live mode."""

TWILIO_MAGIC = NumberRange("+1500555", 4, 1, 9)
"""Twilio's own test numbers: https://www.twilio.com/docs/iam/test-credentials"""


# Marks that spreadsheets and right-to-left editors leave around a pasted value.
_TRIMMED = " \t\r\n\u00a0\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_CHARS = {
    ContactKind.PHONE: 64,
    # RFC 5321 section 4.5.3.1.3: a path is at most 256 octets with its angle brackets.
    ContactKind.EMAIL: 254,
    ContactKind.FCM_TOKEN: 4096,
    ContactKind.INBOX: 128,
    ContactKind.X_ACCOUNT: 64,
}
_NO_COUNTRY = "001"
_COUNTRIES = frozenset(
    country for group in COUNTRY_CODE_TO_REGION_CODE.values() for country in group
) - {_NO_COUNTRY}
_FCM_TOKEN = re.compile(r"[\x21-\x7e]{20,4096}")
_INBOX = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_X_ACCOUNT = re.compile(r"@?([A-Za-z0-9_]{1,15})")
_PLAIN_EMAIL = re.compile(
    # The common case of RFC 5321 that the full validator would return unchanged but for
    # the domain's case: dot-atom local part, ASCII letters-digits-hyphen labels.
    r"([a-z0-9_+-]{1,15}(?:\.[a-z0-9_+-]{1,15}){0,3})@((?:[a-z0-9][a-z0-9-]{0,61}[a-z0-9]\.){1,4}[a-z]{2,24})",
    re.IGNORECASE,
)
_judged_domains: dict[str, str] = {}
_MAX_JUDGED_DOMAINS = 20_000


def is_fiction(phone: str) -> bool:
    """Whether an E.164 number is set aside for fiction by its country's regulator."""
    match = _NANP_555.fullmatch(phone)
    if match is not None:
        return int(match[1]) in NANP_FICTION
    return any(block.holds(phone) for block in _ALL_FICTION)


def is_sandbox_only(phone: str) -> bool:
    """Whether an E.164 number may be used with simulators only, never in live mode."""
    match = _NANP_555.fullmatch(phone)
    if match is not None:
        return int(match[1]) in NANP_SANDBOX_ONLY
    return TWILIO_MAGIC.holds(phone)


def country_of(region: str) -> str | None:
    """The ISO 3166 country of a region code ("US-TX" -> "US"), None if none is known by it."""
    country = region.split("-", 1)[0].upper()
    return country if country in _COUNTRIES else None


def normalise(kind: ContactKind, raw: str, *, region: str | None = None) -> Contact:
    """The contact point that `raw` spells.

    `region` ("US", "US-TX") gives the country of a phone number written without `+` and
    calling code; other kinds ignore it. A phone number must be valid in its country's
    numbering plan, not merely possible, so that a mistyped one is reported when it is
    entered and not when it is needed. Raises `ContactError`.
    """
    text = raw.strip(_TRIMMED)
    if not text:
        raise ContactError("empty", "the value is empty")
    if len(text) > _MAX_CHARS[kind]:
        raise ContactError("too_long", f"longer than {_MAX_CHARS[kind]} characters")
    if not text.isprintable() and _CONTROL.search(text):
        raise ContactError("control_characters", "the value holds control characters")
    match kind:
        case ContactKind.PHONE:
            return _phone(text, region)
        case ContactKind.EMAIL:
            return _email(text)
        case ContactKind.FCM_TOKEN:
            return _fcm_token(text)
        case ContactKind.INBOX:
            return _inbox(text)
        case ContactKind.X_ACCOUNT:
            return _x_account(text)


def _phone(text: str, region: str | None) -> Contact:
    number = _parsed(text, country_of(region) if region else None)
    if number.extension:
        raise ContactError("extension", "a number with an extension cannot be reached directly")
    country = phonenumbers.region_code_for_number(number)
    # Among countries that share a calling code the search may go by leading digits alone.
    if country is None or not phonenumbers.is_valid_number_for_region(number, country):
        raise ContactError("not_valid", "not a valid number in its country's numbering plan")
    if text == f"+{number.country_code}{number.national_number}" and text.isascii():
        address = text
    else:
        address = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    hint = f"+{number.country_code}…{address[-2:]}"
    return Contact(ContactKind.PHONE, address, None if country == _NO_COUNTRY else country, hint)


def _parsed(text: str, country: str | None) -> PhoneNumber:
    # Errors are raised outside the except blocks: the library's own exceptions may quote
    # the value, and a chained exception is printed with its cause.
    try:
        return phonenumbers.parse(text, country)
    except NumberParseException as error:
        fault = error.error_type
    if fault == NumberParseException.INVALID_COUNTRY_CODE and text[0] not in "+＋":
        raise ContactError("no_country", "a number without + needs a region that names a country")
    raise ContactError("not_a_number", "not a telephone number")


def _email(text: str) -> Contact:
    plain = _PLAIN_EMAIL.fullmatch(text)
    if plain is not None and (known := _judged_domains.get(plain[2])) is not None:
        return _email_contact(plain[1], known)
    local, domain = _judged(text)
    if plain is not None and local == plain[1]:
        if len(_judged_domains) >= _MAX_JUDGED_DOMAINS:
            _judged_domains.clear()
        _judged_domains[plain[2]] = domain
    return _email_contact(local, domain)


def _judged(text: str) -> tuple[str, str]:
    # Non-ASCII local parts need SMTPUTF8, which bulk mail providers do not offer.
    try:
        judged = validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        judged = None
    if judged is None or judged.ascii_domain is None:
        raise ContactError("not_an_email", "not a mail address")
    return judged.local_part, judged.ascii_domain.lower()


def _email_contact(local: str, domain: str) -> Contact:
    hint = f"{local[0] if len(local) > 1 else ''}…@{domain[0]}….{domain.rpartition('.')[2]}"
    return Contact(ContactKind.EMAIL, f"{local}@{domain}", None, hint)


def _fcm_token(text: str) -> Contact:
    if not _FCM_TOKEN.fullmatch(text):
        raise ContactError("not_a_token", "a push token has 20 to 4096 characters and no spaces")
    return Contact(ContactKind.FCM_TOKEN, text, None, f"fcm…{text[-4:]}")


def _inbox(text: str) -> Contact:
    if not _INBOX.fullmatch(text):
        raise ContactError("not_an_inbox", "an inbox id has 1 to 128 letters, digits or . _ : -")
    return Contact(ContactKind.INBOX, text, None, f"{text[0]}…" if len(text) > 1 else "…")


def _x_account(text: str) -> Contact:
    match = _X_ACCOUNT.fullmatch(text)
    if match is None:
        raise ContactError(
            "not_an_account", "an X account has 1 to 15 letters, digits or underscores"
        )
    account = match[1].lower()
    return Contact(ContactKind.X_ACCOUNT, account, None, f"@{account[0]}…")
