// Draws /api/data once a second. Whatever it says is set as text, never as markup: peers are strangers.
"use strict";

const STALE_MS = 5000;
const PROTOCOLS = ["http", "ws", "tcp"];
let latest = 0; // when data last came, on this browser's clock
let shown = ""; // its time, on the bastion's

function el(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function put(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

function table(caption, heads, rows) {
  const made = el("table");
  if (caption) made.append(el("caption", caption));
  const head = el("tr");
  for (const text of heads) head.append(el("th", text));
  made.append(head);
  for (const [name, ...cells] of rows) {
    const row = el("tr");
    row.append(el("th", name));
    for (const [text, kind] of cells) row.append(el("td", text, kind));
    made.append(row);
  }
  return made;
}

function word(streams) {
  if (!streams.length) return ["", ""];
  const states = streams.map((one) => (one.observed ? one.state : "unknown"));
  const bad = streams.find((one, at) => states[at] === "down" || states[at] === "frozen");
  if (bad) return [bad.state === "frozen" ? "frozen" : bad.cause || "down", "error"];
  return states.includes("unknown") ? ["unknown", "unknown"] : ["connected", "connected"];
}

function external(streams) {
  const rows = new Map();
  for (const one of streams) {
    const name = `${one.target} by ${one.path}`;
    if (!rows.has(name)) rows.set(name, []);
    rows.get(name).push(one);
  }
  return table("", ["target", "HTTP", "WS", "TCP"], [...rows].map(([name, its]) =>
    [name, ...PROTOCOLS.map((protocol) => word(its.filter((one) => one.protocol === protocol)))]));
}

function internal(status, peers, protocol) {
  const targets = new Set();
  for (const one of Object.values(status)) for (const name of Object.keys(one.connections || {})) targets.add(name);
  const names = [...targets].sort();
  const rows = Object.entries(status).map(([name, one]) => {
    const from = `From ${one.source || name}`;
    if (one.error !== undefined) {
      const peer = peers.find((each) => each.url === one.url) || {};
      return [from, [`NOT HEARD since ${clock(peer.since)}: ${one.error}`, "unknown"]];
    }
    return [from, ...names.map((target) => {
      const state = (one.connections[target] || {})[protocol] || "";
      return [state, state === "disconnected" ? "error" : state];
    })];
  });
  return table(protocol.toUpperCase(), ["", ...names], rows);
}

function clock(text) {
  const time = new Date(text);
  return isNaN(time) ? "?" : time.toLocaleString();
}

function event(item) {
  const source = item.stream ? item.stream.split("|")[0] : item.name;
  const from = item.source === "bastion" ? "Bastion" : source || item.reporter;
  const length = item.duration ? `${item.duration.estimate.toFixed(2)} s (${item.duration.lower.toFixed(2)} to ` +
    `${item.duration.upper.toFixed(2)} s)` : `${item.duration_sec} s`;
  const how = item.state === "open" ? `DISCONNECTED, so far ${length}` :
    item.state === "truncated" ? `DISCONNECTED, end not seen, ${length}` : `DISCONNECTED for ${length}`;
  const end = item.state === "closed" ? `, ended ${clock(item.end_time)}` : "";
  if (item.kind === "gap") {
    const whose = item.stream ? item.name : from;
    return el("li", `${whose} was not observed for ${length}: ${item.cause}, from ${clock(item.start_time)}`, "unknown");
  }
  if (item.kind === "target_change") {
    const [before, after] = [item.before, item.after].map((each) => (each || {})[item.cause] || "?");
    return el("li", `[${item.protocol}] ${from} → ${item.name}: seen as ${after} since ${clock(item.start_time)}, ` +
      `as ${before} before`);
  }
  const text = `[${item.protocol}] ${from} → ${item.name}: ${item.kind === "outage" ? how : `${item.kind}, ${length}`}, ` +
    `started ${clock(item.start_time)}${end}, ${item.cause}`;
  return el("li", text, item.state === "open" ? "error" : "");
}

function list(items, empty) {
  if (!items.length) return el("p", empty, "unknown");
  const made = el("ul");
  made.append(...items);
  return made;
}

function draw(data) {
  put("look", list(data.look.map((one) => el("li", `${one.sure === "likely" ? "" : "Possibly: "}${one.text}`)),
    "Nothing is known to fail."));
  put("external", external(data.streams));
  put("internal", ...["ws", "tcp", "http"].map((each) => internal(data.internal_status, data.peers, each)));
  put("history", list(data.history.map(event), "No disconnections yet."));
}

function tell(error) {
  const stale = Date.now() - latest > STALE_MS;
  document.body.classList.toggle("stale", stale);
  const state = latest ? `Last Updated: ${clock(shown)}` : "No data yet";
  put("updated", `${state}${stale ? ", which is stale" : ""}${error ? `. Error fetching data: ${error}` : ""}`);
}

async function refresh() {
  let error = "";
  try {
    const answer = await fetch("api/data", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const data = await answer.json();
    draw(data);
    shown = data.timestamp;
    latest = Date.now();
  } catch (problem) {
    error = problem.message;
  }
  tell(error);
  setTimeout(refresh, 1000);
}

async function clear() {
  const button = document.getElementById("clear");
  button.disabled = true;
  try {
    const headers = { Authorization: `Bearer ${document.getElementById("token").value}` };
    const answer = await fetch("api/clear_history", { method: "POST", headers, signal: AbortSignal.timeout(15000) });
    put("cleared", await answer.text());
  } catch (problem) {
    put("cleared", problem.message);
  }
  button.disabled = false;
}

document.getElementById("clear").addEventListener("click", clear);
refresh();
