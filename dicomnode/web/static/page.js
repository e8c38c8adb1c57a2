// Live parts of a page: the same address is asked again, and what has changed takes the place of what was there.
"use strict";
const PERIOD = 2000; // milliseconds
async function refresh() {
  const answer = await fetch(location.href, { headers: { "X-Refresh": "1", Accept: "text/html" }, cache: "no-store" });
  if (answer.redirected) return location.reload(); // the session has ended
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const now = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    const busy = part.contains(document.activeElement) || !getSelection().isCollapsed;
    if (now && !busy && now.innerHTML !== part.innerHTML) part.replaceChildren(...now.childNodes);
  }
}
if (document.querySelector("[data-live]")) {
  const again = async () => {
    if (!document.hidden) await refresh().catch(() => {}); // the node may be starting again
    setTimeout(again, PERIOD);
  };
  setTimeout(again, PERIOD);
}
