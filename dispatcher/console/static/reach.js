// Beside the form: whom it reaches, asked for when the typing rests.
(() => {
  "use strict";
  const form = document.querySelector("form[data-live]");
  const place = document.querySelector("[data-reach]");
  if (!form || !place) return;
  const REST = 1200;
  let timer = 0;
  let busy = false;
  let again = false;

  async function ask() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(place.dataset.reach, {
        method: "POST",
        body: new URLSearchParams(new FormData(form)),
        headers: { "X-Requested-With": "fetch" },
      });
      if (answer.ok) {
        place.innerHTML = await answer.text();
        if (answer.status === 202) again = true;
      }
    } catch { /* the next rest asks anew */ }
    busy = false;
    if (again) { again = false; soon(); }
  }
  const soon = () => { clearTimeout(timer); timer = setTimeout(ask, REST); };

  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
  place.hidden = false;
  soon();
})();
