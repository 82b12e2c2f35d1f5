// The playground's editor: line numbers, marks at mistakes, and the event as it becomes while one types.
"use strict";

(() => {
  const form = document.getElementById("play");
  const editor = document.getElementById("toml");
  const body = document.getElementById("body");
  const gutter = document.getElementById("gutter");
  const band = document.getElementById("band");
  const tried = document.getElementById("tried");
  const WAIT = 250;
  let timer = 0;
  let asked = 0;

  function height() {
    return parseFloat(getComputedStyle(editor).lineHeight);
  }

  function number() {
    const count = editor.value.split("\n").length;
    while (gutter.childElementCount < count) {
      const line = document.createElement("span");
      line.textContent = gutter.childElementCount + 1;
      gutter.append(line);
    }
    while (gutter.childElementCount > count) gutter.lastElementChild.remove();
  }

  function scrolled() {
    gutter.style.transform = `translateY(${-editor.scrollTop}px)`;
    place();
  }

  function place() {
    const line = Number(band.dataset.line || 0);
    band.hidden = !line;
    if (line) band.style.transform = `translateY(${(line - 1) * height() - editor.scrollTop}px)`;
  }

  function show(line) {
    band.dataset.line = line || "";
    place();
  }

  function mark() {
    const lines = new Set([...tried.querySelectorAll("[data-mistake]")].map((one) => Number(one.dataset.mistake)));
    const empty = new Set([...tried.querySelectorAll("[data-nothing]")].map((one) => Number(one.dataset.nothing)));
    [...gutter.children].forEach((one, index) => {
      one.classList.toggle("bad", lines.has(index + 1));
      one.classList.toggle("idle", empty.has(index + 1));
    });
    body.setAttribute("aria-invalid", String(Boolean(tried.querySelector("#unreadable"))));
    editor.setAttribute("aria-invalid", String(lines.size > 0));
  }

  function current() {
    return editor.value.slice(0, editor.selectionStart).split("\n").length;
  }

  function follow() {
    const line = document.activeElement === editor ? current() : 0;
    for (const one of tried.querySelectorAll("[data-of]")) one.classList.toggle("here", Number(one.dataset.of) === line);
  }

  // While a mistake is being typed the last event stays, dimmed.
  function put(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const wrong = fresh.querySelector(".mistakes") && tried.querySelector(".event");
    tried.classList.toggle("stale", Boolean(wrong));
    if (wrong) document.getElementById("mistakes").replaceWith(fresh.getElementById("mistakes"));
    else patch(tried, html);
  }

  async function attempt() {
    const mine = ++asked;
    tried.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch("/playground/try", { method: "POST", body: new URLSearchParams(new FormData(form)) });
      if (mine !== asked) return;
      if (answer.ok) put(await answer.text());
    } finally {
      if (mine === asked) tried.removeAttribute("aria-busy");
    }
    mark();
    follow();
  }

  function typed() {
    number();
    clearTimeout(timer);
    timer = setTimeout(attempt, WAIT);
  }

  function open(line) {
    const lines = editor.value.split("\n");
    const from = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    editor.focus();
    editor.setSelectionRange(from, from + (lines[line - 1] || "").length);
    editor.scrollTop = Math.max(0, (line - 6) * height());
    editor.scrollLeft = 0;
    show(line);
    follow();
  }

  function openBody(line) {
    const lines = body.value.split("\n");
    const from = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    body.focus();
    body.setSelectionRange(from, from + (lines[line - 1] || "").length);
  }

  function add(text) {
    const line = editor.value.trimEnd().split("\n").length + 2;
    editor.value = `${editor.value.trimEnd()}\n${text}`;
    typed();
    open(line + 2);
  }

  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    const action = { s: "save", Enter: "send" }[event.key];
    if (!action) return;
    event.preventDefault();
    form.requestSubmit(form.querySelector(`[name=action][value=${action}]`));
  });

  form.addEventListener("input", typed);
  editor.addEventListener("scroll", scrolled);
  for (const kind of ["keyup", "click", "focus"]) editor.addEventListener(kind, follow);
  editor.addEventListener("input", () => show(0));

  tried.addEventListener("click", (event) => {
    const wanted = event.target.closest("[data-add]");
    if (wanted) return add(wanted.dataset.add);
    const payload = event.target.closest("[data-body-line]");
    if (payload) {
      event.preventDefault();
      return openBody(Number(payload.dataset.bodyLine));
    }
    const link = event.target.closest("[data-line]");
    if (!link) return;
    event.preventDefault();
    open(Number(link.dataset.line));
  });
  for (const kind of ["mouseover", "focusin"]) {
    tried.addEventListener(kind, (event) => {
      const row = event.target.closest("[data-of], [data-mistake], [data-line]");
      if (row) show(Number(row.dataset.of || row.dataset.mistake || row.dataset.line));
    });
  }
  tried.addEventListener("mouseleave", () => show(0));

  document.getElementById("draft")?.addEventListener("click", async () => {
    const answer = await fetch("/playground/draft", { method: "POST", body: new URLSearchParams(new FormData(form)) });
    const text = await answer.text();
    if (answer.ok) {
      editor.value = text;
      typed();
    } else {
      document.getElementById("said").textContent = text;
      const note = document.createElement("p");
      note.className = "reason s-refused";
      note.textContent = text;
      tried.replaceChildren(note);
    }
  });

  // What makes the event is in view from the start.
  const first = Number(tried.querySelector("[data-of]")?.dataset.of || 1);
  number();
  mark();
  editor.scrollTop = Math.max(0, (first - 4) * height());
  const wanted = /^#line-(\d+)$/.exec(location.hash);
  if (wanted) open(Number(wanted[1]));
})();
