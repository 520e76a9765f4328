"""What SendGrid checks of a mail before it takes any of it, and how it says so.

Owns the rules of the request's body. A request is good or bad as a whole.
https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
"""

from typing import Any

import orjson

from channels.sandbox.sendgrid_fields import (
    ADDRESS,
    MAX_SUBSTITUTIONS,
    Refused,
    check_args,
    check_headers,
    check_send_at,
    check_strings,
    size,
)

_KNOWN = frozenset(
    [
        "personalizations",
        "from",
        "reply_to",
        "reply_to_list",
        "subject",
        "content",
        "attachments",
        "template_id",
        "headers",
        "categories",
        "custom_args",
        "send_at",
        "batch_id",
        "asm",
        "ip_pool_name",
        "mail_settings",
        "tracking_settings",
        "sections",
    ]
)
_KNOWN_PERSON = frozenset(
    [
        "to",
        "from",
        "cc",
        "bcc",
        "subject",
        "headers",
        "substitutions",
        "dynamic_template_data",
        "custom_args",
        "send_at",
    ]
)

MAX_PERSONALIZATIONS = 1000
MAX_RECIPIENTS = 1000


def checked(body: bytes, *, now: float) -> dict[str, Any]:
    """The parsed mail, or Refused with the first fault in the provider's order."""
    try:
        mail = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused("Bad Request") from None
    if not isinstance(mail, dict):
        raise Refused("Invalid type. Expected: object, given: other.", "(root)")
    for name in mail:
        if name not in _KNOWN:
            raise Refused(f"Additional property {name} is not allowed", name)
    _check_people(mail.get("personalizations"), now)
    _check_from(mail.get("from"))
    _check_text(mail)
    check_headers(mail.get("headers"), "headers")
    check_args(mail.get("custom_args"), "custom_args")
    check_send_at(mail.get("send_at"), "send_at", now)
    _check_mail_settings(mail.get("mail_settings", {}))
    categories = mail.get("categories", [])
    if not isinstance(categories, list) or len(categories) > 10:
        raise Refused("The categories array may hold at most 10 items.", "categories")
    return mail


def _check_people(people: object, now: float) -> None:
    if not isinstance(people, list) or not people:
        raise Refused(
            "The personalizations field is required and must have at least one personalization.",
            "personalizations",
            "-Personalizations-Errors",
        )
    if len(people) > MAX_PERSONALIZATIONS:
        raise Refused(
            "The personalization block is limited to 1000 personalizations per API request. "
            f"You have provided {len(people)} personalizations. Please consider splitting "
            "this into multiple requests and resending your request.",
            "personalizations",
            "message.personalizations",
        )
    seen: set[str] = set()
    recipients = 0
    for number, person in enumerate(people):
        recipients += _check_person(person, number, seen)
        if "send_at" in person:
            check_send_at(person["send_at"], f"personalizations.{number}.send_at", now)
    if recipients > MAX_RECIPIENTS:
        raise Refused(
            "There is a limit of 1000 total recipients (to + cc + bcc) per request.",
            "personalizations",
            "message.personalizations",
        )


def _check_person(person: Any, number: int, seen: set[str]) -> int:
    """Checks one personalization and returns how many addresses it holds."""
    path = f"personalizations.{number}"
    if not isinstance(person, dict):
        raise Refused("Invalid type. Expected: object, given: other.", path)
    for name in person:
        if name not in _KNOWN_PERSON:
            raise Refused(f"Additional property {name} is not allowed", path)
    if not isinstance(person.get("to"), list) or not person["to"]:
        raise Refused(
            "The to array is required for all personalization objects, and must have at "
            "least one email object with a valid email address.",
            f"{path}.to",
            "message.personalizations.to",
        )
    count = 0
    for kind in ("to", "cc", "bcc"):
        targets = person.get(kind, [])
        if not isinstance(targets, list):
            raise Refused("Invalid type. Expected: array, given: other.", f"{path}.{kind}")
        for place, target in enumerate(targets):
            address = target.get("email") if isinstance(target, dict) else None
            if not isinstance(address, str) or not ADDRESS.fullmatch(address):
                raise Refused(
                    "Does not contain a valid address.",
                    f"{path}.{kind}.{place}.email",
                    f"message.personalizations.{kind}",
                )
            lowered = address.lower()
            if lowered in seen:
                raise Refused(
                    "Each email address in the personalization block should be unique between "
                    f"to, cc, and bcc. We found the first duplicate instance of [{address}] "
                    f"in the {path}.{kind} field.",
                    path,
                    "message.recipient-errors",
                )
            seen.add(lowered)
            count += 1
    _check_values(person, path)
    return count


def _check_values(person: dict[str, Any], path: str) -> None:
    values = person.get("substitutions")
    if values is not None:
        where = f"{path}.substitutions"
        check_strings(values, where)
        if size(values) > MAX_SUBSTITUTIONS:
            raise Refused(
                "The total size of the substitutions may not exceed 10000 bytes.",
                where,
                "message.personalizations.substitutions",
            )
    if "headers" in person:
        check_headers(person["headers"], f"{path}.headers")
    if "custom_args" in person:
        check_args(person["custom_args"], f"{path}.custom_args")
    subject = person.get("subject")
    if subject is not None and (not isinstance(subject, str) or not subject):
        raise Refused(
            "The subject should be at least one character.",
            f"{path}.subject",
            "message.personalizations.subject",
        )


def _check_from(sender: object) -> None:
    address = sender.get("email") if isinstance(sender, dict) else None
    if not isinstance(address, str) or not address:
        raise Refused(
            "The from object must be provided for every email send. It is an object that "
            "requires the email parameter, but may also contain a name parameter.  "
            'e.g. {"email" : "example@example.com"}  or '
            '{"email" : "example@example.com", "name" : "Example Recipient"}.',
            "from.email",
            "message.from",
        )
    if not ADDRESS.fullmatch(address):
        raise Refused("Does not contain a valid address.", "from.email", "message.from")


def _check_text(mail: dict[str, Any]) -> None:
    subject = mail.get("subject")
    templated = "template_id" in mail
    if templated and not isinstance(mail["template_id"], str):
        raise Refused("Invalid type. Expected: string, given: other.", "template_id")
    everywhere = all(person.get("subject") for person in mail["personalizations"])
    if subject is not None and not isinstance(subject, str):
        raise Refused("Invalid type. Expected: string, given: other.", "subject")
    if not templated and not everywhere and not subject:
        raise Refused(
            "The subject is required. You can get around this requirement if you use a "
            "template with a subject defined or if every personalization has a subject defined.",
            "subject",
            "message.subject",
        )
    contents = mail.get("content")
    if not contents and templated:
        return
    if not isinstance(contents, list) or not contents:
        raise Refused(
            "Unless a valid template_id is provided, the content parameter is required. There "
            "must be at least one defined content block. We typically suggest both text/plain "
            "and text/html blocks are included, but only one block is required.",
            "content",
            "message.content",
        )
    order = {"text/plain": 0, "text/html": 1}
    last = 0
    for number, content in enumerate(contents):
        kind = content.get("type") if isinstance(content, dict) else None
        if not isinstance(kind, str) or "/" not in kind:
            where = f"content.{number}.type"
            raise Refused("The content type must be a MIME type.", where, "message.content.type")
        if not isinstance(content.get("value"), str) or not content["value"]:
            raise Refused(
                "The content value must be a string at least one character in length.",
                f"content.{number}.value",
                "message.content.value",
            )
        rank = order.get(kind, 2)
        if rank < last:
            raise Refused(
                "If present, text/plain and text/html may only be provided once, and must be "
                "in this order: text/plain first, followed by text/html, followed by others.",
                "content",
                "message.content",
            )
        last = rank


def _check_mail_settings(settings: object) -> None:
    values = settings.values() if isinstance(settings, dict) else (settings,)
    if not all(isinstance(value, dict) for value in values):
        raise Refused("Invalid type. Expected: object, given: other.", "mail_settings")
