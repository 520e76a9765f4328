"""A page's form as a browser fills and sends it: fields in order, with what is ticked or chosen."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Filled:
    """A form's fields as they would be sent now. `choices` are all values that were offered."""

    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    choices: dict[str, list[str]] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)

    def one(self, name: str) -> str:
        """The field's value. Raises `KeyError` if the form would not send it."""
        for key, value in self.fields:
            if key == name:
                return value
        raise KeyError(name)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def put(self, name: str, *values: str) -> "Filled":
        """Fill a field that the page has; several values tick several boxes."""
        assert name in self.choices, f"the page has no field {name}"
        offered = self.choices[name]
        assert not offered or set(values) <= {*offered, ""}, f"{name} does not offer {values}"
        at = next((i for i, (key, _) in enumerate(self.fields) if key == name), len(self.fields))
        kept = [each for each in self.fields if each[0] != name]
        self.fields = [*kept[:at], *((name, value) for value in values), *kept[at:]]
        return self

    def press(self, name: str, value: str) -> list[tuple[str, str]]:
        """What is sent when this button is pressed."""
        assert (name, value) in self.buttons, f"no button {name}={value}"
        return [*self.fields, (name, value)]


class _Reader(HTMLParser):
    def __init__(self, wanted: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wanted = wanted
        self.found: list[Filled] = []
        self.current: Filled | None = None
        self.area: tuple[str, list[str]] | None = None
        self.select: str | None = None
        self.first: str | None = None
        self.chosen = False
        self.loose: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        has = {name for name, _ in attrs}
        if tag == "form" and given.get("id", "") == self.wanted:
            self.current = Filled(given.get("action", ""))
            self.found.append(self.current)
        form = self.current
        name = given.get("name", "")
        if tag == "button" and given.get("form") == self.wanted:
            self.loose.append((name, given.get("value", "")))
        if form is None:
            return
        if tag == "input" and name:
            self._input(form, name, given, checked="checked" in has)
        elif tag == "textarea":
            self.area = (name, [])
            form.choices.setdefault(name, [])
        elif tag == "select":
            self.select, self.first, self.chosen = name, None, False
            form.choices.setdefault(name, [])
        elif tag == "option" and self.select is not None:
            form.choices[self.select].append(given.get("value", ""))
            if self.first is None:
                self.first = given.get("value", "")
            if "selected" in has:
                form.fields.append((self.select, given.get("value", "")))
                self.chosen = True
        elif tag == "button" and name and "form" not in given:
            form.buttons.append((name, given.get("value", "")))

    def _input(self, form: Filled, name: str, given: dict[str, str], *, checked: bool) -> None:
        kind, value = given.get("type", "text"), given.get("value", "on")
        if kind in ("checkbox", "radio"):
            form.choices.setdefault(name, []).append(value)
            if checked:
                form.fields.append((name, value))
        else:
            form.choices.setdefault(name, [])
            form.fields.append((name, given.get("value", "")))

    def handle_data(self, data: str) -> None:
        if self.area is not None:
            self.area[1].append(data)

    def handle_endtag(self, tag: str) -> None:
        form = self.current
        if tag == "form":
            self.current = None
        if form is None:
            return
        if tag == "textarea" and self.area is not None:
            name, pieces = self.area
            # A browser drops the line break that follows the tag, and doubles line ends.
            text = "".join(pieces).removeprefix("\n")
            form.fields.append((name, text.replace("\n", "\r\n")))
            self.area = None
        elif tag == "select" and self.select is not None:
            if not self.chosen and self.first is not None:
                form.fields.append((self.select, self.first))
            self.select = None


def form_of(html: str, wanted: str = "write") -> Filled:
    """The form with this id, as it stands on the page."""
    reader = _Reader(wanted)
    reader.feed(html)
    (only,) = reader.found
    only.buttons += reader.loose
    return only


def without(fields: Iterable[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    return [each for each in fields if each[0] not in names]
