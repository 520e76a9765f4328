// The form as it is typed: what would be said stands beside it within a keystroke. Without this
// script the same is said when the form is checked or saved.
(() => {
  "use strict";
  const form = document.getElementById("write");
  const beside = document.getElementById("live");
  if (!form || !beside) return;
  const PAUSE = 150;
  let timer = 0;
  let asked = 0;
  let running = null;
  let dirty = false;
  let said = "";

  const values = () => new URLSearchParams(new FormData(form));

  const tell = (title, text) => {
    const note = document.createElement("div");
    const head = document.createElement("p");
    note.className = "notice notice--warn";
    head.className = "notice__title";
    head.textContent = title;
    note.append(head, text);
    beside.replaceChildren(note);
  };

  const put = (html) => {
    const made = document.createElement("template");
    made.innerHTML = html;
    const readings = made.content.querySelector("[data-readings]");
    const found = new Map();
    for (const one of readings ? readings.children : []) found.set(one.dataset.for, one.textContent);
    for (const place of form.querySelectorAll("[data-reading]")) {
      const text = found.get(place.dataset.reading) || "";
      if (place.textContent !== text) place.textContent = text;
    }
    if (readings) readings.remove();
    const held = beside.contains(document.activeElement) ? document.activeElement : null;
    const again = held && held.name ? `[name="${held.name}"][value="${CSS.escape(held.value)}"]` : "";
    for (const one of beside.querySelectorAll("details[id][open]"))
      made.content.getElementById(one.id)?.setAttribute("open", "");
    beside.replaceChildren(made.content);
    if (again) beside.querySelector(again)?.focus();
    const summary = beside.querySelector("[data-summary]")?.textContent.trim() || "";
    if (said && summary !== said) window.desk?.announce?.(summary);
    said = summary || said;
  };

  const ask = async () => {
    const number = ++asked;
    running?.abort();
    running = new AbortController();
    form.dataset.asking = "";
    try {
      const answer = await fetch(form.dataset.live, {
        method: "POST",
        body: values(),
        headers: { "X-Requested-With": "fetch" },
        signal: running.signal,
      });
      if (number !== asked) return;
      if (answer.status === 401) tell("You are signed out", "What you wrote is still here. Sign in in another tab, then go on.");
      else if (answer.ok) put(await answer.text());
      else tell("The preview cannot be shown", "What you wrote is still here; saving may still work.");
    } catch (error) {
      if (error.name !== "AbortError" && number === asked) tell("No connection", "What you wrote is still here. It is not saved yet.");
    }
    if (number === asked) delete form.dataset.asking;
  };

  const soon = (wait) => {
    form.dataset.asking = "";
    clearTimeout(timer);
    timer = setTimeout(ask, wait);
  };

  const choose = (name, value) => {
    const radio = form.querySelector(`input[name="${name}"][value="${value}"]`);
    if (radio) radio.checked = true;
  };

  form.addEventListener("input", (event) => {
    dirty = true;
    if (event.target.name === "next_update_at" && event.target.value) choose("next_update", "at");
    soon(PAUSE);
  });
  form.addEventListener("change", (event) => {
    const { name, checked, value } = event.target;
    if (name === "next_update" && value !== "at") form.elements["next_update_at"].value = "";
    if (name === "everywhere" && checked) for (const box of form.querySelectorAll('[name="regions"]')) box.checked = false;
    if (name === "regions" && checked) form.elements["everywhere"].checked = false;
    if (name === "phase" && value === "correction") document.getElementById("f-take")?.setAttribute("open", "");
    soon(0);
  });
  form.addEventListener("submit", () => { dirty = false; });
  window.addEventListener("beforeunload", (event) => { if (dirty) event.preventDefault(); });

  // A mail styles itself, so it is shown in a frame that may do nothing else.
  const frame = form.querySelector('iframe[name="mail"]');
  beside.addEventListener("click", (event) => {
    const button = event.target.closest("[data-mail]");
    if (!button || !frame) return;
    const wanted = values();
    wanted.set("mail_locale", button.dataset.mail);
    wanted.set("mail_audience", button.dataset.audience);
    const carrier = document.createElement("form");
    carrier.method = "post";
    carrier.action = form.dataset.mailPath;
    carrier.target = "mail";
    carrier.hidden = true;
    for (const [name, value] of wanted) {
      const field = document.createElement("textarea");
      field.name = name;
      field.value = value;
      carrier.append(field);
    }
    document.body.append(carrier);
    frame.hidden = false;
    carrier.submit();
    carrier.remove();
    frame.scrollIntoView({ block: "nearest" });
  });

  for (const shown of form.querySelectorAll("[data-live-only]")) shown.hidden = false;
  soon(0);
})();
