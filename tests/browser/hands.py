"""How a form is filled: field by field as its controls allow, or by keyboard alone.

Knows forms and keys in general; must not know what the console's forms say.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from playwright.sync_api import Locator, Page, expect

MOST_STOPS = 400
"""Presses of Tab after which something is not to be reached by keyboard."""

_NAME = """() => {
    const e = document.activeElement;
    if (!e || e === document.body) return null;
    const by = (e.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean)
        .map(id => document.getElementById(id)?.innerText || "").join(" ");
    const label = e.labels?.length ? Array.from(e.labels).map(l => l.innerText).join(" ") : "";
    const group = e.closest("fieldset")?.querySelector("legend")?.innerText || "";
    return {
        name: (e.getAttribute("aria-label") || by || label || e.innerText || "")
            .trim().replace(/\\s+/g, " "),
        group: group.trim().replace(/\\s+/g, " "),
        kind: e.tagName === "INPUT" ? e.type : e.tagName.toLowerCase(),
        field: e.getAttribute("name") || "",
        value: e.value ?? "",
        checked: !!e.checked,
        shown: e.getClientRects().length > 0 && getComputedStyle(e).visibility !== "hidden",
    };
}"""


_CONTROLS = """(main, names) => names.map(name => {
    const all = Array.from(main.querySelectorAll(`[name="${name}"]:not([type="hidden"])`));
    return all.map(e => ({
        kind: e.tagName === "INPUT" ? e.type : e.tagName.toLowerCase(),
        value: e.value,
        checked: !!e.checked,
    }));
})"""


def unfold(control: Locator) -> None:
    """Open every folded part of the page that holds the control, the outermost first."""
    folded = control.locator("xpath=ancestor::details[not(@open)]")
    while folded.count():
        folded.first.locator("> summary").click()


def fill_in(page: Page, values: Mapping[str, Sequence[str]]) -> None:
    """Give each named control of the page's forms its values; what is so already is left alone.

    Fails for a name that has no control and for a value that cannot be chosen, so that
    nothing is left out in silence.
    """
    main = page.get_by_role("main")
    shown: list[list[dict[str, Any]]] = main.evaluate(_CONTROLS, list(values))
    for (name, wanted), controls in zip(values.items(), shown, strict=True):
        assert controls, f"no control {name!r} on {page.url}"
        found = main.locator(f'[name="{name}"]:not([type="hidden"])')
        kind = controls[0]["kind"]
        if kind not in ("radio", "checkbox"):
            if controls[0]["value"] != wanted[0]:
                unfold(found.first)
                _write(found.first, kind, wanted[0])
            continue
        lacking = set(wanted) - {control["value"] for control in controls}
        assert not lacking, f"no choice {lacking} for {name!r} on {page.url}"
        for place, control in enumerate(controls):
            chosen = control["value"] in wanted
            if chosen is control["checked"] or (kind == "radio" and not chosen):
                continue
            unfold(found.nth(place))
            found.nth(place).set_checked(chosen)


def _write(control: Locator, kind: str, text: str) -> None:
    if kind == "select":
        control.select_option(text)
    else:
        control.fill(text)


@dataclass(frozen=True, slots=True)
class Stop:
    """Where the focus is."""

    name: str
    group: str
    kind: str
    field: str
    value: str
    checked: bool
    shown: bool


class Keyboard:
    """A person without a mouse: Tab, Enter, Space, arrows and typing, and nothing else."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def here(self) -> Stop | None:
        """Where the focus is; None if nowhere."""
        found = self.page.evaluate(_NAME)
        return Stop(**found) if found else None

    def to(self, name: str | re.Pattern[str], *, kind: str = "", group: str = "") -> Stop:
        """Tab on to what is called so (or has this field's name); it must be visible there.

        Goes on from where the focus is and once around.
        """
        seen: list[str] = []
        for _ in range(MOST_STOPS):
            self.press("Tab")
            stop = self.here()
            if stop is None:
                continue
            seen.append(stop.name[:40])
            if _called(stop, name) and kind in ("", stop.kind) and group in stop.group:
                assert stop.shown, f"{name} has the focus and cannot be seen"
                self._seen()
                return stop
        raise AssertionError(f"{name} is not reached by Tab on {self.page.url}: {seen[:120]}")

    def follow(self, name: str | re.Pattern[str], *, kind: str = "") -> None:
        """Reach a link, button or summary and press Enter on it."""
        self.to(name, kind=kind)
        self.press("Enter")

    def write(self, name: str | re.Pattern[str], text: str) -> None:
        """Reach a text field and type into it, instead of what stands there."""
        self.to(name)
        self.press("Control+a")
        self.type(text)

    def date(self, name: str | re.Pattern[str], at: datetime) -> None:
        """Reach a field for date and time and type its parts in the order in which it has them."""
        self.to(name, kind="datetime-local")
        wanted = at.strftime("%Y-%m-%dT%H:%M")
        for day, clock in (("%m%d%Y", "%I%M%p"), ("%d%m%Y", "%H%M"), ("%Y%m%d", "%H%M")):
            self.type(at.strftime(day))
            self.press("ArrowRight")
            self.type(at.strftime(clock))
            now = self.here()
            if now is not None and now.value == wanted:
                return
            self.press(*(["ArrowLeft", "Backspace"] * 8))
        raise AssertionError(f"{name} cannot be typed into")

    def tick(self, name: str | re.Pattern[str]) -> None:
        """Reach a box and tick it."""
        stop = self.to(name, kind="checkbox")
        if not stop.checked:
            self.press("Space")
        again = self.here()
        assert again is not None and again.checked

    def choose(self, group: str, name: str) -> None:
        """Reach a group of radio buttons and go by arrows to the one called so."""
        stop = self.to(re.compile(""), kind="radio", group=group)
        for _ in range(20):
            if _called(stop, name):
                if not stop.checked:
                    self.press("Space")
                return
            self.press("ArrowDown")
            found = self.here()
            assert found is not None
            stop = found
        raise AssertionError(f"no {name} in {group}")

    def select(self, name: str | re.Pattern[str], option: str) -> None:
        """Reach a list and choose by typing the option's first letters."""
        self.to(name, kind="select")
        self.type(option)
        chosen = self.page.evaluate("document.activeElement.selectedOptions[0].text")
        assert chosen.startswith(option), chosen

    def _seen(self) -> None:
        """What has the focus must look so: WCAG 2.2, 2.4.7."""
        expect(self.page.locator(":focus-visible")).to_have_count(1)


def _called(stop: Stop, name: str | re.Pattern[str]) -> bool:
    if isinstance(name, re.Pattern):
        return bool(name.search(stop.name))
    return stop.name == name or stop.field == name
