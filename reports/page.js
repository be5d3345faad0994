"use strict";
const sources = JSON.parse(document.getElementById("sources").textContent);
const panel = document.getElementById("panel"), body = document.getElementById("panel-body");

/* An element with text and children; text is never read as HTML. */
function make(tag, text = "", attributes = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/* ---- where a number comes from ---- */
function list(pairs) {
  const found = make("dl");
  for (const [key, value] of Object.entries(pairs))
    found.append(make("dt", key), make("dd", typeof value === "object" ? JSON.stringify(value) : String(value)));
  return found;
}

function command(text) {
  const copy = make("button", "copy", { class: "copy", type: "button" });
  copy.onclick = async () => {
    try { await navigator.clipboard.writeText(text); copy.textContent = "copied"; }
    catch { getSelection().selectAllChildren(copy.nextSibling); copy.textContent = "press Ctrl+C"; }
  };
  return make("pre", "", {}, copy, make("code", text));
}

function runsTable(runs) {
  const keys = [...new Set(runs.flatMap(Object.keys))];
  const order = ["cell", "seed", "value", "run", "result", "commit", "machine", "date"];
  keys.sort((a, b) => (order.indexOf(a) + 99) % 99 - (order.indexOf(b) + 99) % 99);
  const row = (tag, texts) => make("tr", "", {}, ...texts.map((text) => make(tag, text)));
  const head = make("thead", "", {}, row("th", keys));
  const rows = runs.map((run) => row("td", keys.map((key) => String(run[key] ?? ""))));
  return make("div", "", { class: "scroll" }, make("table", "", {}, head, make("tbody", "", {}, ...rows)));
}

function show(title, ...parts) {
  const close = make("button", "×", { class: "close", type: "button", "aria-label": "Close" });
  close.onclick = () => panel.close();
  body.replaceChildren(close, make("h2", title, { id: "panel-title" }), ...parts);
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
}

function showSource(source) {
  const parts = [list(source.facts)];
  if (source.runs.length) parts.push(make("h3", "Runs"), runsTable(source.runs));
  const settings = Object.keys(source.settings).length;
  if (settings) parts.push(make("h3", "Configuration that differs from the defaults"), list(source.settings));
  if (source.command) parts.push(make("h3", "Made by"), command(source.command));
  const runs = [...new Set(source.runs.map((run) => run.run).filter((run) => run && run !== "raw"))];
  if (runs.length) parts.push(make("h3", "Look closer"), command(runs.map((run) => `python sweeps/runs.py show ${run}`).join("\n")));
  show(source.what, ...parts);
}

document.addEventListener("click", (event) => {
  const number = event.target.closest("[data-source]"), hole = event.target.closest("[data-missing]");
  if (number) showSource(sources[number.dataset.source]);
  else if (hole) show(`${hole.textContent}: nothing is measured here yet`, make("h3", "What would fill it"), command(hole.dataset.missing));
  else if (event.target === panel) panel.close(); // beside the panel
});

/* ---- sorting: a third click brings back the order of the table; floors stay below ---- */
const compare = new Intl.Collator("en", { numeric: true }).compare;

function sort(header) {
  const table = header.closest("table"), at = header.cellIndex;
  const numbers = header.classList.contains("r");
  const turns = numbers ? ["descending", "ascending", null] : ["ascending", "descending", null];
  const turn = turns[(turns.indexOf(header.getAttribute("aria-sort")) + 1) % 3];
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  if (turn) header.setAttribute("aria-sort", turn);
  const sign = turn === "descending" ? -1 : 1;
  for (const part of table.tBodies) {
    const rows = [...part.rows];
    rows.forEach((row, i) => (row.dataset.place ??= i));
    rows.sort((a, b) => {
      const there = a.dataset.place - b.dataset.place;
      if (!turn) return there;
      const [x, y] = [a.cells[at], b.cells[at]];
      const [u, v] = [x.dataset.value, y.dataset.value];
      if (u !== undefined || v !== undefined) {
        if (u === undefined || v === undefined) return u === undefined ? 1 : -1; // what has no number comes last
        return sign * (u - v) || there;
      }
      return sign * compare(x.textContent, y.textContent) || there;
    });
    part.append(...rows);
  }
}
for (const button of document.querySelectorAll("thead button")) button.onclick = () => sort(button.closest("th"));

/* ---- filters: what has a tag of the chosen kind must have the chosen value ---- */
const filters = document.querySelector(".filters");
const tags = (element) => JSON.parse(element.dataset.tags ?? "{}");
const columnHeads = [...document.querySelectorAll("article thead th[data-tags]")];
const tagged = [...document.querySelectorAll("article[data-tags], article tbody tr[data-tags]")];

function filter() {
  const wanted = [...filters.elements].filter((e) => e.value && e.name).map((e) => [e.name, e.value]);
  const fits = (element) => { const own = tags(element); return wanted.every(([k, v]) => !(k in own) || own[k] === v); };
  for (const element of tagged) element.hidden = !fits(element);
  for (const head of columnHeads) {
    head.hidden = !fits(head);
    for (const part of head.closest("table").tBodies) for (const row of part.rows) row.cells[head.cellIndex].hidden = head.hidden;
  }
  let shown = 0;
  for (const article of document.querySelectorAll("article")) {
    const heads = [...article.querySelectorAll("thead th[data-tags]")], rows = [...article.querySelectorAll("tbody tr[data-tags]")];
    const empty = (parts) => parts.length && parts.every((part) => part.hidden);
    if (empty(heads) || empty(rows)) article.hidden = true;
    shown += !article.hidden && article.querySelector("table") !== null;
    const link = document.querySelector(`nav a[href="#${CSS.escape(article.id)}"]`);
    if (link) link.parentElement.hidden = article.hidden;
  }
  for (const section of document.querySelectorAll("section"))
    section.hidden = [...section.querySelectorAll("article")].every((article) => article.hidden);
  filters.elements.shown.value = `${shown} table${shown === 1 ? "" : "s"}`;
}
filters.oninput = filter;
filters.onsubmit = (event) => event.preventDefault();
filters.reset(); // a reload would keep choices that are not applied
filter();

if (matchMedia("(max-width: 60rem)").matches) document.querySelector("nav details").open = false;
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("main details")) part.open = true; });
