// Keeps a page up to date, copies, and hears from the visitor's own node. Every page
// works without it.
"use strict";

const EVERY_MS = 3000;
const live = () => document.querySelectorAll("[data-live]");

// The parts marked data-live are taken from the same page, fetched anew.
const shown = new Map();
for (const part of live()) shown.set(part.dataset.live, part.innerHTML);

async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-cache" });
  if (!answer.ok && answer.status !== 404) throw new Error(`status ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of live()) {
    const now = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (!now || now.innerHTML === shown.get(part.dataset.live)) continue;
    // Whoever reads a part with the keyboard is not thrown out of it.
    if (part.contains(document.activeElement) && document.activeElement !== part) continue;
    shown.set(part.dataset.live, now.innerHTML);
    part.replaceChildren(...now.childNodes);
  }
}

async function keep() {
  if (!document.hidden && shown.size > 0) {
    try {
      await refresh();
      document.getElementById("offline").hidden = true;
    } catch {
      document.getElementById("offline").hidden = false;
    }
  }
  setTimeout(keep, EVERY_MS);
}
setTimeout(keep, EVERY_MS);

// Copying needs a secure context; without one the text can be selected by a click.
if (navigator.clipboard) {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
}

const watch = document.getElementById("watch");
if (watch) ownNode(watch);

// The visitor's node: where it is, that it plays, and playing from it in place.
function ownNode(link) {
  const says = document.getElementById("node-says");
  const stream = link.dataset.stream;
  const usual = link.dataset.node;
  let node = kept() ?? usual;
  point();

  function kept() {
    try {
      return localStorage.getItem("node");
    } catch {
      return null;
    }
  }

  function point() {
    link.href = `${node}/watch/${stream}?from=${encodeURIComponent(location.origin)}`;
  }

  // The opened page tells that it runs: no node, no message.
  addEventListener("message", (event) => {
    if (event.origin !== node || event.data?.astral !== "running") return;
    says.textContent =
      event.data.stream === stream ? "Your node plays it, in the other tab." : "Your node runs.";
  });
  link.addEventListener("click", () => {
    says.textContent = "If the new tab shows an error, no node runs on this computer yet.";
  });

  const elsewhere = document.getElementById("elsewhere");
  elsewhere.hidden = false;
  const address = document.getElementById("node");
  if (node !== usual) address.value = node;
  document.getElementById("address").addEventListener("submit", (event) => {
    event.preventDefault();
    let url;
    try {
      url = new URL(address.value);
    } catch {
      return;
    }
    if (url.protocol !== "http:" && url.protocol !== "https:") return;
    node = url.origin;
    try {
      localStorage.setItem("node", node);
    } catch {
      // Then for this page only.
    }
    point();
    says.textContent = `“Watch on my node” now leads to ${node}.`;
    elsewhere.open = false;
  });

  offer();

  // Playing in place needs a call from this site to this computer: browsers allow it
  // from secure pages, after they have asked. So only after a click, never by itself.
  async function offer() {
    if (!isSecureContext || node !== usual || (await refused())) return;
    const button = document.getElementById("here");
    button.hidden = false;
    button.addEventListener("click", () => play(button));
  }

  // Whether the browser was told not to let this site reach this computer.
  async function refused() {
    try {
      const asked = await navigator.permissions.query({ name: "local-network-access" });
      return asked.state === "denied";
    } catch {
      // This browser does not ask.
      return false;
    }
  }

  async function play(button) {
    says.textContent = "Asking your node. The browser may want your permission for it.";
    try {
      const answer = await fetch(`${node}/health`, { signal: AbortSignal.timeout(60000) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
    } catch {
      says.textContent = (await refused())
        ? "The browser does not let this site reach your node. “Watch on my node” needs no permission; the browser's settings for this site can give it."
        : "No node answered. It must run on this computer, and be started with --web for this site; “Watch on my node” works without the browser's permission.";
      return;
    }
    const frame = document.createElement("iframe");
    frame.className = "player";
    frame.title = document.querySelector("h1").textContent;
    frame.allow = "autoplay; fullscreen; picture-in-picture";
    frame.src = `${node}/watch/${stream}?embed&controls&muted&autoplay`;
    document.getElementById("own-player").replaceChildren(frame);
    document.querySelector(".cover.wide")?.remove();
    button.hidden = true;
    says.textContent = "Here is your node's player.";
  }
}
