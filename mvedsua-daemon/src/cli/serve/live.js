"use strict";
// Keeps the page up to date, once a second while it is seen, and says aloud only what has changed in kind.
const live = document.getElementById("live");
const said = document.getElementById("said");
const pause = document.getElementById("pause");
let goesOn = true;
let known = "";

// Elements that can have the focus, in their order: what replaces one has its place.
const places = () => Array.from(live.querySelectorAll("a[href], [tabindex], summary"));

function show(text) {
  if (text === known) return;
  known = text;
  const at = places().indexOf(document.activeElement);
  const open = new Set(Array.from(live.querySelectorAll("details[open]"), (one) => one.id));
  live.innerHTML = text;
  for (const one of live.querySelectorAll("details")) one.open = open.has(one.id);
  if (at >= 0) places()[at]?.focus({ preventScroll: true });
  const told = live.querySelector("[data-told]")?.dataset.told ?? "";
  if (said.textContent !== told) said.textContent = told;
}

async function look() {
  if (goesOn && !document.hidden) {
    try {
      const answer = await fetch("/live", { credentials: "same-origin", signal: AbortSignal.timeout(10000) });
      const text = await answer.text();
      if (answer.ok) show(text);
      else said.textContent = text;
    } catch {
      said.textContent = "mvedsuad serve does not answer; what is shown is old";
    }
  }
  setTimeout(look, 1000);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  goesOn = !goesOn;
  pause.textContent = goesOn ? "Pause" : "Go on";
});
look();
