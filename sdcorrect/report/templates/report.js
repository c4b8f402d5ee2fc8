"use strict";
const { variants, metrics, states, pictures } = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const list = byId("list");
const viewer = byId("viewer");
const collator = new Intl.Collator(undefined, { numeric: true });

const state = { query: "", status: "", sort: "", descending: false, shown: variants.map((_, i) => i) };
let matches = pictures;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const said = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));

// Which pictures, in which order

function sortedBy(picture) {
  const [side, column] = state.sort.split(" ");
  const { seconds, scores } = picture.sides[Number(side)];
  return column === "seconds" ? seconds : (scores[Number(column)] ?? null);
}

function compare(a, b) {
  const turn = state.descending ? -1 : 1;
  if (state.sort === "name") return turn * collator.compare(a.name, b.name);
  const [x, y] = [sortedBy(a), sortedBy(b)];
  // what has no value comes last, whichever way the others go
  if (x === null || y === null) return (x === null) - (y === null);
  return turn * (x - y);
}

function choose() {
  const query = state.query.toLowerCase();
  matches = pictures.filter(
    (picture) =>
      (!query || picture.name.toLowerCase().includes(query) || picture.prompt.toLowerCase().includes(query)) &&
      (!state.status || state.shown.some((i) => picture.sides[i].state === state.status)),
  );
  if (state.sort) matches.sort(compare);
  else if (state.descending) matches.reverse();
  byId("count").textContent = `${matches.length} of ${pictures.length}`;
  byId("empty").hidden = matches.length > 0;
  active = 0;
  redraw();
  if (list.getBoundingClientRect().top < 0) byId("pictures").scrollIntoView();
}

// The list: only the rows near the window are in the document, the others are room above and below

let drawn = new Map();
let active = 0;
let columns = 1;
let rowHeight = 0;

function redraw() {
  drawn = new Map();
  list.replaceChildren();
  list.style.setProperty("--tiles", state.shown.length + 1);
  list.style.paddingTop = list.style.paddingBottom = "0";
  rowHeight = 0;
  draw();
}

function measure() {
  const style = getComputedStyle(list);
  columns = style.gridTemplateColumns.split(" ").length;
  rowHeight = list.firstElementChild.getBoundingClientRect().height + parseFloat(style.rowGap);
}

function draw() {
  if (matches.length === 0) return;
  if (!rowHeight) {
    list.replaceChildren(cardOf(0));
    measure();
  }
  const rows = Math.ceil(matches.length / columns);
  const above = -list.getBoundingClientRect().top;
  const spare = Math.ceil(innerHeight / rowHeight);
  const first = Math.min(Math.max(Math.floor(above / rowHeight) - spare, 0), Math.max(rows - spare, 0));
  const last = Math.min(Math.ceil((above + innerHeight) / rowHeight) + spare, rows);
  const wanted = new Map();
  for (let i = first * columns; i < Math.min(last * columns, matches.length); i++) wanted.set(i, drawn.get(i) ?? cardOf(i));
  if (wanted.size === drawn.size && [...wanted.keys()].every((i) => drawn.has(i))) return;
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  for (const [i, card] of drawn) if (!wanted.has(i)) card.remove();
  let after = null;
  for (const card of wanted.values()) {
    const place = after ? after.nextElementSibling : list.firstElementChild;
    if (place !== card) list.insertBefore(card, place);
    after = card;
  }
  while (after.nextElementSibling) after.nextElementSibling.remove();
  drawn = wanted;
  list.style.paddingTop = `${first * rowHeight}px`;
  list.style.paddingBottom = `${Math.max(rows - last, 0) * rowHeight}px`;
  // the arrows go on from a picture that was scrolled away
  if (focused && !focused.isConnected) list.focus({ preventScroll: true });
  markActive();
}

function cardOf(index) {
  const picture = matches[index];
  const strip = make("span", { className: "strip" }, tileOf("source", picture.source, null));
  for (const i of state.shown) strip.append(tileOf(variants[i], picture.sides[i].picture, picture.sides[i], i));
  const told = state.shown.map((i) => `${variants[i]} ${states[picture.sides[i].state]}`).join(", ");
  const size = picture.size ? picture.size.join(" × ") : "";
  const name = make("span", { className: "name" }, make("span", { textContent: picture.name, title: picture.name }));
  name.append(make("i", { textContent: size }));
  const card = make("button", { type: "button", className: "card", tabIndex: -1 }, strip, name);
  card.ariaLabel = `Compare ${picture.name}: ${told}`;
  card.dataset.index = index;
  const item = make("li", {}, card);
  item.ariaSetSize = matches.length;
  item.ariaPosInSet = index + 1;
  return item;
}

function tileOf(label, picture, side, i) {
  const frame = make("span", { className: "frame" });
  const address = picture.thumbnail ?? picture.full;
  if (address) {
    const image = make("img", { loading: "lazy", decoding: "async", alt: "", src: address });
    image.onerror = () => frame.replaceChildren(make("span", { className: "note missing", textContent: "cannot be shown" }));
    frame.append(image);
  } else {
    const text = side ? states[side.state] : "no picture";
    frame.append(make("span", { className: `note ${side?.state ?? ""}`, textContent: text, title: picture.problem ?? "" }));
  }
  const caption = make("span", { className: "label" }, make("span", { textContent: label }));
  const [sorted, column] = state.sort.split(" ");
  if (side && column !== undefined) {
    const value = column === "seconds" ? side.seconds : (side.scores[Number(column)] ?? null);
    if (value !== null) caption.append(make(Number(sorted) === i ? "b" : "span", { textContent: said(value) }));
  }
  const tile = make("span", { className: "tile" }, frame, caption);
  if (i !== undefined) tile.dataset.side = i;
  return tile;
}

function markActive() {
  for (const [i, item] of drawn) item.firstElementChild.tabIndex = -1;
  const item = drawn.get(active) ?? drawn.values().next().value;
  if (item) item.firstElementChild.tabIndex = 0;
}

function goTo(index) {
  active = Math.min(Math.max(index, 0), matches.length - 1);
  if (!drawn.has(active)) {
    const top = list.getBoundingClientRect().top + scrollY + Math.floor(active / columns) * rowHeight;
    scrollTo(0, top - innerHeight / 2);
    draw();
  }
  markActive();
  const item = drawn.get(active);
  item.firstElementChild.focus({ preventScroll: true });
  item.scrollIntoView({ block: "nearest" });
}

list.addEventListener("keydown", (event) => {
  const steps = {
    ArrowRight: active + 1,
    ArrowLeft: active - 1,
    ArrowDown: active + columns,
    ArrowUp: active - columns,
    Home: 0,
    End: matches.length - 1,
  };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = steps[event.key];
  if (next >= 0 && next < matches.length) goTo(next);
});
list.addEventListener("focusin", (event) => {
  if (event.target === list) return;
  active = Number(event.target.dataset.index);
  markActive();
});
list.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (!card) return;
  const side = event.target.closest(".tile")?.dataset.side;
  openViewer(Number(card.dataset.index), side);
});

// The viewer: any two of source and variants, one over the other

let current = 0;
const SOURCE = "source";

function fillSides() {
  for (const id of ["left", "right"]) {
    byId(id).append(new Option("source", SOURCE), ...variants.map((name, i) => new Option(name, i)));
  }
  byId("left").value = SOURCE;
}

function openViewer(index, side) {
  const last = state.shown.at(-1);
  if (side !== undefined) byId("right").value = side;
  else if (byId("right").value === SOURCE && last !== undefined) byId("right").value = last;
  show(index);
  viewer.showModal();
  byId("divider").focus();
}

function show(index) {
  current = index;
  const picture = matches[index];
  byId("viewer-name").textContent = picture.name;
  byId("viewer-place").textContent = `${index + 1} of ${matches.length}`;
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === matches.length - 1;
  const facts = [picture.prompt, picture.seeds.length ? `seed ${picture.seeds.join(", ")}` : "", picture.size?.join(" × ") ?? ""];
  byId("viewer-facts").textContent = facts.filter(Boolean).join(" · ");
  byId("viewer-table").replaceChildren(...tableOf(picture));
  showSides();
}

function showSides() {
  const picture = matches[current];
  const [width, height] = picture.size ?? [1, 1];
  viewer.querySelector(".stage").style.setProperty("--ratio", width / height);
  for (const id of ["left", "right"]) {
    const { value } = byId(id);
    const name = value === SOURCE ? "source" : variants[Number(value)];
    const from = value === SOURCE ? picture.source : picture.sides[Number(value)].picture;
    const what = value === SOURCE ? "no picture" : states[picture.sides[Number(value)].state];
    const content = from.full
      ? make("img", { src: from.full, alt: `${picture.name}, ${name}` })
      : make("p", { textContent: from.problem ? `${what}: ${from.problem}` : what });
    byId(`${id}-layer`).replaceChildren(content, make("span", { textContent: name }));
  }
  divide();
}

function divide() {
  const divider = byId("divider");
  const [left, right] = ["left", "right"].map((id) => byId(id).selectedOptions[0].textContent);
  viewer.querySelector(".stage").style.setProperty("--at", `${divider.value}%`);
  divider.ariaValueText = `${divider.value} % ${left}, ${100 - divider.value} % ${right}`;
}

function tableOf(picture) {
  const cell = (tag, text, className = "") => make(tag, { textContent: text, className });
  const head = make("tr", {}, ...["Variant", "Status"].map((text) => cell("th", text)));
  head.append(...["seconds", ...metrics].map((text) => cell("th", text, "number")), cell("th", "File"));
  for (const header of head.children) header.scope = "col";
  const rows = picture.sides.map((side, i) => {
    const name = cell("th", variants[i]);
    name.scope = "row";
    const status = states[side.state] + (side.picture.problem ? `: ${side.picture.problem}` : "");
    const values = [side.seconds, ...metrics.map((_, k) => side.scores[k] ?? null)];
    const file = make("td");
    if (side.picture.full) file.append(make("a", { href: side.picture.full, textContent: "open", target: "_blank" }));
    return make("tr", {}, name, cell("td", status), ...values.map((v) => cell("td", said(v), "number")), file);
  });
  return [make("thead", {}, head), make("tbody", {}, ...rows)];
}

function step(by) {
  const index = current + by;
  if (index >= 0 && index < matches.length) show(index);
}

byId("divider").addEventListener("input", divide);
byId("left").addEventListener("change", showSides);
byId("right").addEventListener("change", showSides);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();
});
viewer.addEventListener("close", () => goTo(current));
viewer.addEventListener("keydown", (event) => {
  if (event.target.matches("select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n") step(1);
  if (event.key === "p") step(-1);
});

// The tools

byId("search").addEventListener("input", (event) => {
  state.query = event.target.value;
  choose();
});
byId("status").addEventListener("change", (event) => {
  state.status = event.target.value;
  choose();
});
byId("sort").addEventListener("change", (event) => {
  state.sort = event.target.value;
  choose();
});
byId("direction").addEventListener("click", (event) => {
  state.descending = !state.descending;
  event.target.ariaPressed = state.descending;
  event.target.textContent = state.descending ? "↓" : "↑";
  choose();
});
for (const box of document.getElementsByName("variant")) {
  box.addEventListener("change", () => {
    state.shown = [...document.getElementsByName("variant")].filter((b) => b.checked).map((b) => Number(b.value));
    choose();
  });
}
byId("reset").addEventListener("click", () => {
  byId("search").value = byId("status").value = state.query = state.status = "";
  choose();
  byId("search").focus();
});
document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || viewer.open || event.target.matches("input[type=search], select")) return;
  event.preventDefault();
  byId("search").focus();
});

// Light and dark: as the system has it, until the button is pressed; remembered where that is allowed

const theme = byId("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function remembered() {
  try {
    return localStorage.getItem("sdcorrect-theme");
  } catch {
    return null;
  }
}

function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  theme.ariaPressed = (name ?? (systemDark.matches ? "dark" : "light")) === "dark";
}

theme.addEventListener("click", () => {
  const name = theme.ariaPressed === "true" ? "light" : "dark";
  setTheme(name);
  try {
    localStorage.setItem("sdcorrect-theme", name);
  } catch {
    // not where a browser keeps nothing for pages from a file
  }
});
systemDark.addEventListener("change", () => setTheme(document.documentElement.dataset.theme));

let waiting = false;
addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
});
let width = innerWidth;
new ResizeObserver(() => {
  if (width === innerWidth) return draw();
  width = innerWidth;
  const first = Math.floor(-list.getBoundingClientRect().top / rowHeight) * columns;
  redraw();
  if (first > 0) scrollBy(0, list.getBoundingClientRect().top + Math.floor(first / columns) * rowHeight);
}).observe(document.body);

setTheme(remembered());
fillSides();
choose();
