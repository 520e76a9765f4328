// What every page of the console shares. Without it all pages still read, submit and approve.
"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const block = (button, on) => {
    if (on) button.setAttribute("aria-disabled", "true");
    else button.removeAttribute("aria-disabled");
  };

  // The reader's zone, for the times in the pages.
  const rememberZone = () => {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!zone || !/^[\w+\-/]+$/.test(zone)) return;
    if (document.cookie.split("; ").includes(`zone=${zone}`)) return;
    document.cookie = `zone=${zone}; path=/console; max-age=31536000; SameSite=Lax`;
  };

  // Into a live region, emptied first so that a text said twice is read twice.
  const announce = (text, urgent = false) => {
    const region = document.querySelector(urgent ? "[data-shout]" : "[data-say]");
    if (!region) return;
    region.textContent = "";
    setTimeout(() => { region.textContent = text; }, 50);
  };

  // Runs `work` once calls have ceased for `ms`.
  const hold = (work, ms) => {
    let timer = 0;
    return (...given) => {
      clearTimeout(timer);
      timer = setTimeout(() => work(...given), ms);
    };
  };

  // By the two largest units, as the server writes it: 2 h 5 min.
  const lasting = (seconds) => {
    const s = Math.floor(seconds);
    const units = [[s / 86400, "d"], [s / 3600 % 24, "h"], [s / 60 % 60, "min"], [s % 60, "s"]]
      .map(([number, unit]) => [Math.floor(number), unit]);
    const first = units.findIndex(([number]) => number);
    const two = first < 0 ? [] : units.slice(first, first + 2);
    return two.map(([n, unit]) => (n ? `${n} ${unit}` : "")).join(" ").trim() || "under a second";
  };

  // The server's clock counts: a phone that is minutes wrong must not show a promise as kept.
  const clock = document.querySelector("[data-clock]");
  const arrival = performance.getEntriesByType("navigation")[0];
  const skew = clock && arrival && arrival.responseStart && arrival.transferSize
    ? Date.parse(clock.dataset.clock) - performance.timeOrigin - arrival.responseStart
    : 0;
  const tick = () => {
    const now = Date.now() + (Math.abs(skew) > 5000 ? skew : 0);
    for (const place of all("[data-until]")) {
      const left = (Date.parse(place.dataset.until) - now) / 1000;
      if (Number.isNaN(left)) continue;
      const late = left < 0;
      const text = late ? `${lasting(-left)} late` : `in ${lasting(left)}`;
      place.textContent = text;
      const box = place.closest(".countdown");
      if (!box) continue;
      if (late && !box.classList.contains("is-late")) {
        announce(`${box.firstElementChild.textContent}: now late`);
      }
      box.classList.toggle("is-late", late);
      box.classList.toggle("is-soon", !late && left < 600);
    }
    if (!clock) return;
    const utc = new Date(now).toISOString();
    clock.dateTime = `${utc.slice(0, 16)}Z`;
    clock.textContent = `${utc.slice(11, 16)} UTC`;
  };

  // A second press of a button is swallowed; what counts is the server's own guard.
  const setWaiting = (form, waiting) => {
    form.toggleAttribute("data-sent", waiting);
    const some = waiting ? "button:not([aria-disabled])" : "button[data-held]";
    for (const button of all(some, form)) {
      button.toggleAttribute("data-held", waiting);
      block(button, waiting);
    }
  };
  const guard = (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if ("sent" in form.dataset) {
      event.preventDefault();
      return;
    }
    setWaiting(form, true);
    setTimeout(() => setWaiting(form, false), "again" in form.dataset ? 1500 : 20000);
  };

  // A consequence is typed out before its button answers. The server checks the word too.
  const plain = (text) => text.toLowerCase().replace(/[\s,.'’]/g, "");
  const matches = (input) => plain(input.value) === plain(input.dataset.confirmWord);
  const watchWord = (input) => {
    const show = () => {
      for (const button of all("[data-confirmed]", input.form)) block(button, !matches(input));
    };
    input.addEventListener("input", show);
    show();
  };
  const askWord = (event) => {
    const button = event.submitter;
    if (!button || !button.hasAttribute("data-confirmed")) return;
    const missing = all("[data-confirm-word]", event.target).find((each) => !matches(each));
    if (!missing) return;
    event.preventDefault();
    missing.focus();
    announce(`Type ${missing.dataset.confirmWord} first.`, true);
  };

  // Characters as people count them, under a text field.
  const watchLength = (area) => {
    const place = document.createElement("p");
    place.className = "counter num";
    area.after(place);
    const cutter = Intl.Segmenter ? new Intl.Segmenter() : null;
    const show = () => {
      const length = cutter ? Array.from(cutter.segment(area.value)).length : area.value.length;
      place.textContent = length === 1 ? "1 character" : `${length.toLocaleString("en")} characters`;
    };
    area.addEventListener("input", hold(show, 100));
    show();
  };

  const copy = (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button || !navigator.clipboard) return;
    const source = document.querySelector(button.dataset.copy);
    if (!source) return;
    navigator.clipboard.writeText("value" in source ? source.value : source.textContent).then(
      () => announce("Copied."),
      () => announce("Not copied: select it.", true),
    );
  };

  rememberZone();
  tick();
  setInterval(tick, 1000);
  all("[data-confirm-word]").forEach(watchWord);
  all("textarea[data-count]").forEach(watchLength);
  document.addEventListener("submit", askWord);
  document.addEventListener("submit", guard);
  document.addEventListener("click", copy);
  window.addEventListener("pageshow", () => all("form[data-sent]").forEach((form) => setWaiting(form, false)));
  const errors = document.querySelector("[data-errors]");
  if (errors) errors.focus();
  window.desk = { announce, hold, lasting };
})();
