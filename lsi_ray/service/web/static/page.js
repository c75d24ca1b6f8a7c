// What the page does without: progress that moves by itself, and times in the reader's own zone.
"use strict";

const EVERY_MS = 3000;
const SLOWEST_MS = 60000;

function localise(root) {
  const form = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.textContent;
      time.textContent = form.format(at);
    }
  }
}

// Somebody is reading or working in it: it stays as it is for now.
function inUse(part) {
  const inside = part.contains(document.activeElement) && document.activeElement.matches("a, button, input, summary");
  return inside || part.querySelector("details[open]") !== null;
}

function announce(part) {
  const place = document.getElementById("announce");
  if (part.dataset.say && part.dataset.say !== announce.last) {
    if (announce.last !== undefined) place.textContent = "The batch is now: " + part.dataset.say;
    announce.last = part.dataset.say;
  }
}

function take(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  let more = false;
  for (const part of fresh.querySelectorAll("[data-part]")) {
    more = more || part.dataset.more === "yes";
    announce(part);
    const old = document.querySelector('[data-part="' + part.dataset.part + '"]');
    if (old !== null && !inUse(old)) {
      const scrolled = old.querySelector(".wide");
      const left = scrolled === null ? 0 : scrolled.scrollLeft;
      localise(part);
      old.replaceWith(part);
      const wide = part.querySelector(".wide");
      if (wide !== null) wide.scrollLeft = left;
    }
  }
  return more;
}

async function watch(live) {
  let wait = EVERY_MS;
  for (let more = true; more; ) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (document.hidden) continue;
    try {
      const answer = await fetch(live.dataset.live, { credentials: "same-origin" });
      if (answer.status === 401 || answer.status === 404) return location.reload();
      if (!answer.ok) throw new Error(String(answer.status));
      more = take(await answer.text());
      wait = EVERY_MS;
    } catch {
      wait = Math.min(2 * wait, SLOWEST_MS);
    }
  }
}

localise(document);
document.querySelector(".refused")?.focus();
const live = document.querySelector("[data-live]");
if (live !== null) {
  const said = live.querySelector("[data-say]");
  if (said !== null) announce(said);
  if (live.querySelector('[data-more="yes"]') !== null) watch(live);
}
