// Keeps the parts marked data-live as fresh as the server knows them, once a second.
"use strict";
(() => {
  const INTERVAL = 1000;

  async function refresh() {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(part.id);
      // Untouched where nothing changed, so that a selection survives.
      if (fresh && fresh.innerHTML !== part.innerHTML) part.innerHTML = fresh.innerHTML;
    }
  }

  async function loop() {
    // A server that is restarting is tried again; a hidden tab asks nothing.
    if (!document.hidden) await refresh().catch(() => {});
    setTimeout(loop, INTERVAL);
  }

  if (document.querySelector("[data-live]")) setTimeout(loop, INTERVAL);
})();
