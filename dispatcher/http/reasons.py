"""What pydantic found wrong, as a field in the request's own spelling and a plain reason.

Pure. Must not let through a value that was sent: pydantic's messages quote some of them
(tags, keys), so reasons are built here from what was expected, and a name that does not
look like a field is not repeated.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dispatcher.incidents import FactKind

_KINDS = frozenset(kind.value for kind in FactKind)
_PLACES = frozenset({"body", "query", "path", "header", "cookie"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}")
_OWN_FIELD = re.compile(r"((?:[a-z_]+|\d+)(?:\.(?:[A-Za-z_-]+|\d+))*): (.+)", re.DOTALL)
_TIME = "must be a time with an offset, such as 2024-02-22T09:30:00Z"

_PATTERNS: Mapping[str, str] = {
    # By the beginning of the pattern, as the models of `incidents` write it.
    "^[A-Z]{2}(": "must be a region code such as US or US-TX",
    "^[a-z]{2,3}(": "must be a language tag such as en or en-US",
    "^[a-z][a-z0-9-]": "must be an audience's name: small letters, digits and -",
    "^[a-z][a-z0-9_-]": "must be a code: small letters, digits, _ and -",
    "^[a-z][a-z0-9_]": "must be a slot's name: small letters, digits and _",
    "^[A-Z]{3}$": "must be a currency's three capital letters",
}


def errors_of(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One {field, reason} for each distinct thing that pydantic found, in its order."""
    pairs: dict[tuple[str, str], None] = {}
    everything = list(found)
    for error in everything:
        if error["type"] == "too_short" and any(
            _inside(other["loc"], error["loc"]) for other in everything
        ):
            continue  # pydantic does not count wrong entries
        field, reason = _field(error["loc"]), _reason(error)
        own = _OWN_FIELD.fullmatch(reason) if error["type"] == "value_error" else None
        if own is not None:
            field, reason = ".".join(filter(None, (field, own[1]))), own[2]
        if error["type"].startswith("union_tag"):
            field = f"{field}.{_discriminator(error)}"
        pairs[field, reason] = None
    return [{"field": field, "reason": reason} for field, reason in pairs]


def invalid_json(found: Sequence[Mapping[str, Any]]) -> int | None:
    """Where a body stops being JSON, None if it is JSON."""
    for error in found:
        if error["type"] == "json_invalid":
            return int(error["loc"][-1])
    return None


def _inside(inner: Sequence[int | str], outer: Sequence[int | str]) -> bool:
    return len(inner) > len(outer) and tuple(inner[: len(outer)]) == tuple(outer)


def _field(loc: Sequence[int | str]) -> str:
    path: list[str] = []
    steps = list(loc[1:] if loc and loc[0] in _PLACES else loc)
    for place, step in enumerate(steps):
        if isinstance(step, int):
            path.append(str(step))
        elif place > 1 and steps[place - 2] == "facts" and step in _KINDS:
            continue  # which kind of fact it was judged as: not a field of the body
        elif step in ("[key]", "opening", "addition"):
            continue
        else:
            path.append(step if _NAME.fullmatch(step) else "?")
    return ".".join(path)


def _discriminator(error: Mapping[str, Any]) -> str:
    return str(error.get("ctx", {}).get("discriminator", "kind")).strip("'")


def _reason(error: Mapping[str, Any]) -> str:
    kind: str = error["type"]
    about: Mapping[str, Any] = error.get("ctx", {})
    if kind == "union_tag_invalid":
        tags = re.findall(r"'([^']*)'", str(about.get("expected_tags", "")))
        return f"must be one of: {', '.join(tags)}"
    if kind in ("enum", "literal_error"):
        return "must be one of: " + str(about["expected"]).replace(" or ", ", ").replace("'", "")
    if kind == "string_pattern_mismatch":
        pattern = str(about["pattern"])
        starts = (told for start, told in _PATTERNS.items() if pattern.startswith(start))
        return next(starts, f"must match {pattern}")
    if kind.startswith(("datetime", "timezone")):
        return _TIME
    return _SIMPLE.get(kind) or _plain(kind, error, about)


_SIMPLE: Mapping[str, str] = {
    "missing": "is required",
    "union_tag_not_found": "is required",
    "extra_forbidden": "is not a known field",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "string_type": "must be text",
    "string_unicode": "must be text in UTF-8",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "uuid_parsing": "must be an id",
    "uuid_type": "must be an id",
}


def _plain(kind: str, error: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    if kind == "value_error":
        return str(about.get("error", "is not valid"))
    if kind == "string_too_long":
        return f"must have at most {about['max_length']} characters"
    if kind == "string_too_short":
        least = about["min_length"]
        return "must not be empty" if least == 1 else f"must have at least {least} characters"
    if kind == "too_long":
        return f"must have at most {about['max_length']} entries"
    if kind == "too_short":
        return f"must have at least {about['min_length']} entries"
    bounds = {
        "greater_than": ("gt", "must be greater than"),
        "greater_than_equal": ("ge", "must be at least"),
        "less_than": ("lt", "must be less than"),
        "less_than_equal": ("le", "must be at most"),
        "decimal_max_places": ("decimal_places", "must have no more decimal places than"),
        "decimal_max_digits": ("max_digits", "must have no more digits than"),
    }
    if kind in bounds:
        name, words = bounds[kind]
        return f"{words} {about[name]}"
    return "is not valid"
