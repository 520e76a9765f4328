// The preview's live parts: numbers that are counted aside, and test sends on their way.
(() => {
  "use strict";
  const AGAIN = 1000;

  const say = (text) => window.desk && window.desk.announce(text);

  // --- counting: the figures and the table are replaced once it was counted -----------------------------
  async function count(form, tries, asked) {
    const said = form.querySelector("[data-count-said]");
    const button = form.querySelector("button");
    said.textContent = "Counting whom this reaches …";
    button.disabled = true;
    let answer;
    try {
      answer = await fetch(form.action, {
        method: "POST",
        body: new URLSearchParams(new FormData(form)),
        headers: { "X-Requested-With": "fetch" },
      });
    } catch {
      answer = null;
    }
    if (!answer || (!answer.ok && answer.status !== 202)) {
      said.textContent = "It could not be counted just now. Try again.";
      button.disabled = false;
      if (asked) button.focus();
      return;
    }
    const made = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = made.getElementById("figures");
    if (!fresh) return;
    document.getElementById("figures").replaceWith(fresh);
    const [stood, overview] = [document, made].map((each) => each.getElementById("overview"));
    // Whoever stands in the table stands in the same row of the new one.
    const row = stood.contains(document.activeElement)
      && document.activeElement.closest("[data-audience]");
    stood.replaceWith(overview);
    if (row) {
      const link = overview.querySelector(`[data-audience="${CSS.escape(row.dataset.audience)}"] a`);
      if (link) link.focus({ preventScroll: true });
    }
    // Whoever pressed the button is where it was; nobody else is moved.
    if (asked) fresh.querySelector("[data-count] button").focus();
    if (answer.status === 202 && tries > 0) {
      const next = fresh.querySelector("[data-count]");
      next.querySelector("[data-count-said]").textContent = "Still counting …";
      setTimeout(() => count(next, tries - 1, asked), AGAIN);
      return;
    }
    const people = document.getElementById("reach-people");
    say(people ? `Counted: ${people.textContent} people are reached` : "Counted");
  }

  document.addEventListener("submit", (event) => {
    const form = event.target.closest("[data-count]");
    if (!form) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    count(form, 30, true);
  }, true);

  const wanted = document.querySelector("#figures[data-wanted] [data-count]");
  if (wanted) count(wanted, 30, false);

  // --- test sends: asked for until all have come to an end ------------------------------
  const trials = document.querySelector("[data-trials]");
  let left = 180;
  async function look() {
    let answer;
    try {
      answer = await fetch(trials.dataset.trials, { headers: { "X-Requested-With": "fetch" } });
    } catch {
      answer = null;
    }
    if (answer && answer.ok) {
      trials.innerHTML = await answer.text();
      if (!trials.querySelector("[data-open]")) {
        const last = trials.querySelector("tbody tr td:last-child");
        if (last) say(`Test send: ${last.textContent}`);
        return;
      }
    }
    left -= 1;
    if (left > 0) setTimeout(look, AGAIN);
  }
  if (trials && trials.querySelector("[data-open]")) setTimeout(look, AGAIN / 2);
})();
