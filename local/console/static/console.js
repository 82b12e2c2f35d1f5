// Keeps the parts of a page marked data-live fresh: a conditional request, and only what changed is put in.
"use strict";

const EVERY = 300;
const said = document.getElementById("said");
let paused = false;

function patch(box, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  const focus = box.contains(document.activeElement) ? document.activeElement.id : "";
  merge(box, fresh);
  if (focus && document.activeElement === document.body) document.getElementById(focus)?.focus();
}

// Nodes with an id keep their place in the page: what is open, scrolled or focused stays so.
function merge(old, fresh) {
  let at = old.firstChild;
  for (const node of [...fresh.childNodes]) {
    if (at && at.isEqualNode(node)) {
      at = at.nextSibling;
      continue;
    }
    const same = node.id && [...old.children].find((child) => child.id === node.id);
    if (same) {
      if (same !== at) old.insertBefore(same, at);
      else at = at.nextSibling;
      if (!same.isEqualNode(node)) refresh(same, node);
      continue;
    }
    if (at && at.nodeName === node.nodeName && at.nodeType === Node.ELEMENT_NODE && !at.id && !node.id) {
      refresh(at, node);
      at = at.nextSibling;
      continue;
    }
    old.insertBefore(node, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function refresh(old, node) {
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  merge(old, node);
}

function follow(box) {
  const address = box.dataset.live;
  let tag = "";
  let last = 0;
  async function look() {
    if (!document.hidden && !paused) {
      try {
        const answer = await fetch(address, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
        if (answer.status === 200) {
          tag = answer.headers.get("ETag") || "";
          patch(box, await answer.text());
          box.classList.add("on");
          if (box.dataset.say && Date.now() - last > 10000) {
            last = Date.now();
            said.textContent = box.querySelector(".foot")?.textContent || "";
          }
        }
        document.documentElement.classList.toggle("lost", !answer.ok && answer.status !== 304);
      } catch {
        document.documentElement.classList.add("lost");
      }
    }
    setTimeout(look, document.documentElement.classList.contains("lost") ? 6 * EVERY : EVERY);
  }
  setTimeout(look, EVERY);
}

document.querySelectorAll("[data-live]").forEach(follow);

for (const button of document.querySelectorAll("[data-pause]")) {
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    said.textContent = paused ? "Paused" : "Live again";
  });
}

// The arrows walk along the list, once the focus is in it; j and k from anywhere but a field.
document.addEventListener("keydown", (event) => {
  const row = event.target.closest?.(".list tbody tr");
  const letter = ["j", "k"].includes(event.key) && !event.target.closest("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (!letter && !(row && ["ArrowDown", "ArrowUp"].includes(event.key))) return;
  const down = ["ArrowDown", "j"].includes(event.key);
  const next = row ? (down ? row.nextElementSibling : row.previousElementSibling) : document.querySelector(".list tbody tr");
  if (next) {
    event.preventDefault();
    next.querySelector("a")?.focus();
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const answer = await fetch(button.dataset.copy);
  await navigator.clipboard.writeText(await answer.text());
  said.textContent = "Copied";
  button.classList.add("copied");
  setTimeout(() => button.classList.remove("copied"), 1500);
});

for (const select of document.querySelectorAll(".filters select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
