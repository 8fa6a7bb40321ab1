// Wires the page: what changed marks its parts for drawing, which happens once a frame.
import { acts, refresh as refreshActs } from "./acts.js";
import { $, el, flag, many, natural, put } from "./dom.js";
import { csv, json, save } from "./export.js";
import { History } from "./history.js";
import { Live } from "./live.js";
import { Matrix } from "./matrix.js";
import { PATH, PROTOCOL, PROTOCOLS, SIDE, SOURCE, TARGET, worst } from "./store.js";
import { SPANS, Timeline, marks } from "./timeline.js";
import { beat, fresh, top } from "./top.js";

const dirty = new Set();
let frame = 0, beaten = 0, wanted = "worst";
const index = { out: new Map(), in: new Map() }; // "row\ncolumn" to numbers of streams

const live = new Live((sections) => {
  sections.forEach((each) => dirty.add(each));
  soon();
}, () => {
  if (live.beaten !== beaten && live.at) {
    beaten = live.beaten;
    beat();
    dirty.add("time");
    soon();
  }
  if (fresh(live) !== (document.body.dataset.level === "stale")) {
    dirty.add("time");
    soon();
  }
});

const now = () => live.now;
const history = new History($("history"), live);
const timeline = new Timeline($("timeline"), live, (id) => history.detail(id));

function choose(stream, words) {
  history.only({ source: stream[SOURCE], target: stream[TARGET], ...words });
}

const outside = new Matrix($("outside"), { label: "States from outside", height: 26, now, read: (row, column) => read("out", row, column),
  open: ({ stream }) => choose(stream, { path: stream[PATH], protocol: stream[PROTOCOL] }) });
const mesh = new Matrix($("mesh"), { label: "States from pod to pod", height: 22, now, read: (row, column) => read("in", row, column),
  open: ({ stream }) => choose(stream, wanted === "worst" ? {} : { protocol: wanted }) });

function read(side, row, column) {
  const numbers = index[side].get(`${row}\n${column}`);
  if (!numbers) return null;
  const parts = [];
  for (const number of numbers) {
    const stream = live.store.streams.get(number), cell = live.store.cells.get(number);
    if (side === "in" && wanted !== "worst" && stream[PROTOCOL] !== wanted) continue;
    if (cell) parts.push([`${stream[PROTOCOL]}${numbers.length > 1 && stream[5] === 6 ? " IPv6" : ""}`, cell, stream]);
  }
  if (!parts.length) return null;
  const [state, since, cause] = worst(parts.map((each) => each[1]));
  const stream = parts[0][2];
  const title = side === "out" ? `${stream[TARGET]} by ${stream[PATH]}` : `${stream[SOURCE]} → ${stream[TARGET]}`;
  return { state, since, cause, title, parts, stream, note: side === "in" ? unheard.get(row)?.note : "" };
}

let unheard = new Map();

// Which rows and columns there are.
function shape() {
  index.out.clear();
  index.in.clear();
  const targets = new Set(), columns = new Map(), from = new Set(), to = new Set();
  for (const [number, stream] of live.store.streams) {
    const side = stream[SIDE];
    const column = side === "out" ? `${stream[PATH]}|${stream[PROTOCOL]}` : stream[TARGET];
    const row = side === "out" ? stream[TARGET] : stream[SOURCE];
    (side === "out" ? targets : from).add(row);
    if (side === "out") columns.set(column, { key: column, label: stream[PROTOCOL], group: stream[PATH], title: `${stream[PATH]} ${stream[PROTOCOL]}` });
    else to.add(column);
    const key = `${row}\n${column}`;
    if (!index[side].has(key)) index[side].set(key, []);
    index[side].get(key).push(number);
  }
  unheard = new Map([...live.store.unheard()].map(([source, peer]) => [source, { ...peer, note: `not heard${peer.error ? `: ${peer.error}` : ""}` }]));
  for (const source of unheard.keys()) from.add(source);
  const rank = (column) => PROTOCOLS.indexOf(column.label);
  const across = [...columns.values()].sort((a, b) => natural(a.group, b.group) || rank(a) - rank(b));
  outside.shape(only([...targets].sort(natural), across.map((each) => each.key), "out").map((key) => ({ key, label: key })), across,
    targets.size ? "No trouble." : "Nothing is probed from here.");
  const names = [...to].sort(natural);
  $("mesh").classList.toggle("dense", names.length > 14);
  mesh.shape(only([...from].sort(natural), names, "in").map((key) => ({ key, label: key, note: unheard.get(key)?.note })),
    names.map((key) => ({ key, label: key })), from.size ? "No trouble." : "No peer tells of others.");
  put($("outside-count"), many(targets.size, "target"));
  put($("mesh-count"), many(from.size, "peer"));
}

function only(rows, columns, side) {
  if (!$(side === "out" ? "outside-trouble" : "mesh-trouble").checked) return rows;
  return rows.filter((row) => unheard.has(row) || columns.some((column) => {
    const found = read(side, row, column);
    return found && found.state !== "up";
  }));
}

function soon() {
  if (!frame) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  const { store } = live;
  if (!store.facts.has("verdict")) return;
  const filtered = $("outside-trouble").checked || $("mesh-trouble").checked;
  if (dirty.has("streams") || dirty.has("peers") || (dirty.has("cells") && filtered)) shape();
  else if (dirty.has("cells")) {
    outside.refresh();
    mesh.refresh();
  }
  top(store, live, now());
  if (dirty.has("events") || dirty.has("marks")) history.draw();
  else if (dirty.has("time")) history.tick();
  if (dirty.has("events") || dirty.has("marks") || (dirty.has("time") && timeline.end === null)) timeline.draw();
  put($("when-range"), timeline.words || "");
  marks($("marks"), store, now());
  refreshActs(store);
  dirty.clear();
}

function segments(id, choices, chosen, take) {
  const field = $(id);
  for (const [label, value] of choices) {
    const input = el("input", { type: "radio", name: id, value, onchange: () => take(value) });
    input.checked = value === chosen;
    field.append(el("label", {}, input, el("span", {}, label)));
  }
}

segments("mesh-protocol", [["worst of", "worst"], ...PROTOCOLS.map((each) => [each, each])], "worst", (value) => {
  wanted = value;
  shape();
});
segments("when-span", SPANS, 900, (value) => redraw(() => timeline.show(Number(value))));
segments("when-lanes", [["streams", false], ["paths", true]], false, (value) => redraw(() => { timeline.byPath = value; timeline.draw(); }));

function redraw(act) {
  act();
  put($("when-range"), timeline.words);
}

$("zoom-in").addEventListener("click", () => redraw(() => timeline.zoom(0.5)));
$("zoom-out").addEventListener("click", () => redraw(() => timeline.zoom(2)));
$("zoom-left").addEventListener("click", () => redraw(() => timeline.move(-0.25)));
$("zoom-right").addEventListener("click", () => redraw(() => timeline.move(0.25)));
for (const id of ["outside-trouble", "mesh-trouble"]) $(id).addEventListener("change", shape);
$("export-csv").addEventListener("click", () => save("ovnwatch.csv", "text/csv", csv(history.shown, now())));
$("export-json").addEventListener("click", () => save("ovnwatch.json", "application/json", json(history.shown, now())));
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
acts(() => live.store);
flag(document.body, "ready", true);
