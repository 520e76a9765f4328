// The live part of an update's sending: numbers and bars in their places, and a word now and then.
"use strict";
(() => {
  const live = document.getElementById("live");
  if (!live || !live.dataset.events || !window.EventSource) return;

  const SPEAK_EVERY = 30000;
  const COUNT_EVERY = 5000;
  const MOST_TRIES = 20;
  const told = live.querySelector("[data-connection]");
  let spoken = 0;
  let state = "";
  let fetching = false;
  let latest = null;
  let last = null;
  let tries = 0;
  let counting = 0;

  const say = (text) => {
    if (window.desk && window.desk.announce) window.desk.announce(text);
  };

  const put = (element, text) => {
    if (element && element.textContent !== text) element.textContent = text;
  };

  // In the order of the server: each slice begins where the one before ends.
  const draw = (figure, slices) => {
    const total = Object.values(slices).reduce((sum, number) => sum + number, 0);
    let x = 0;
    for (const [name, number] of Object.entries(slices)) {
      const rect = figure.querySelector(`[data-slice="${name}"]`);
      const wide = total ? (1000 * number) / total : 0;
      if (rect) {
        rect.setAttribute("x", x.toFixed(2));
        rect.setAttribute("width", wide.toFixed(2));
      }
      x += wide;
      const shown = figure.querySelector(`[data-number="${name}"]`);
      put(shown, number.toLocaleString("en-US"));
      if (shown) shown.parentElement.toggleAttribute("data-none", !number);
    }
  };

  const part = async (name, address) => {
    const place = document.querySelector(`[data-part="${name}"]`);
    // What a person is in the middle of is not taken away under their hands.
    if (!place || place.contains(document.activeElement)) return;
    try {
      const answer = await fetch(address, { headers: { "X-Requested-With": "fetch" } });
      if (!answer.ok) return;
      const open = [...place.querySelectorAll("details")].map((each) => each.open);
      place.innerHTML = await answer.text();
      const now = place.querySelectorAll("details");
      if (now.length === open.length) now.forEach((each, i) => { each.open = open[i]; });
    } catch {
      // The stream says that the connection is lost; the next word tries again.
    }
  };

  const count = () => {
    if (Date.now() - counting < COUNT_EVERY) return;
    counting = Date.now();
    part("shortfalls", live.dataset.shortfalls);
  };

  // One word after the other, the newest last: of those that come while a part is fetched, only
  // the newest counts, and it is not lost even if it is the last of all.
  const show = async (found) => {
    latest = last = found;
    if (fetching) return;
    fetching = true;
    while (latest) {
      const next = latest;
      latest = null;
      const shape = live.querySelector("[data-shape]");
      if (shape && shape.dataset.shape !== next.shape) await part("progress", live.dataset.progress);
      if (latest) continue;
      write(next);
      // The part may have been made a moment before the word came, or not have come at all.
      const fits = live.querySelector("[data-shape]")?.dataset.shape === next.shape;
      tries = fits ? 0 : tries + 1;
      if (!fits && tries < MOST_TRIES) setTimeout(() => { if (last === next) show(next); }, 1000);
    }
    fetching = false;
  };

  const write = (found) => {
    for (const [name, text] of Object.entries(found.numbers)) {
      put(live.querySelector(`[data-n="${CSS.escape(name)}"]`), text);
    }
    for (const name of ["told", "left", "rate"]) {
      put(document.getElementById(name), found.numbers[name]);
    }
    put(document.getElementById("told-note"), `of ${found.numbers.planned} planned`);
    for (const [name, slices] of Object.entries(found.bars)) {
      const figure = document.getElementById(`bar-${name}`);
      if (figure) draw(figure, slices);
    }
  };

  const source = new EventSource(live.dataset.events);
  source.addEventListener("progress", async (message) => {
    const found = JSON.parse(message.data);
    if (told) told.hidden = true;
    // The server hangs up after its last word: that is no lost connection.
    if (found.ends) source.close();
    await show(found);
    count();
    if (found.state !== state || Date.now() - spoken > SPEAK_EVERY) {
      if (state) say(found.say);
      spoken = Date.now();
      state = found.state;
    }
  });
  source.addEventListener("error", () => {
    if (!told) return;
    told.textContent = source.readyState === EventSource.CLOSED
      ? "The connection was closed: reload the page to go on watching."
      : "The connection is lost. The numbers are as they last were; trying again…";
    told.hidden = false;
  });
  // Where nothing moves, the count of the people may still come in.
  window.setInterval(() => {
    const place = document.querySelector('[data-part="shortfalls"] [data-current]');
    if (place && place.dataset.current === "no") count();
  }, COUNT_EVERY);
})();
