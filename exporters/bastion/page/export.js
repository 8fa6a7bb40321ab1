// What is shown as a file: CSV and JSON. Names come from elsewhere: none of them becomes a formula in a spreadsheet.
import { el } from "./dom.js";
import { lengths } from "./store.js";

const FORMULA = /^[=+\-@\t\r]/;
const iso = (seconds) => (seconds === undefined ? "" : new Date(seconds * 1000).toISOString());

const COLUMNS = {
  id: (id) => id,
  kind: (_, event) => event.kind,
  state: (_, event) => event.state,
  source: (_, event) => event.stream?.[0] ?? event.name,
  target: (_, event) => event.stream?.[1] ?? "",
  path: (_, event) => event.stream?.[2] ?? "",
  protocol: (_, event) => event.stream?.[3] ?? "",
  family: (_, event) => event.stream?.[4] ?? "",
  start_earliest: (_, event) => iso(event.start[0]),
  start_latest: (_, event) => iso(event.start[1]),
  end_earliest: (_, event) => iso(event.end?.[0]),
  end_latest: (_, event) => iso(event.end?.[1]),
  lower_seconds: (_, event, now) => round(lengths(event, now)[0]),
  estimate_seconds: (_, event, now) => round(lengths(event, now)[1]),
  upper_seconds: (_, event, now) => round(lengths(event, now)[2]),
  cause: (_, event) => event.cause,
  unconfirmed: (_, event) => event.unconfirmed,
  stall_overlap: (_, event) => event.stalled,
  before: (_, event) => event.before,
  after: (_, event) => event.after,
};

const round = (seconds) => Math.round(seconds * 1e6) / 1e6;

const records = (entries, now) =>
  entries.map(([id, event]) => Object.fromEntries(Object.entries(COLUMNS).map(([name, read]) => [name, read(id, event, now)])));

function cell(value) {
  if (typeof value !== "string") return String(value);
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function csv(entries, now) {
  const rows = records(entries, now).map((record) => Object.values(record).map(cell).join(","));
  return [Object.keys(COLUMNS).join(","), ...rows].map((row) => `${row}\r\n`).join("");
}

export const json = (entries, now) => JSON.stringify(records(entries, now), null, 1);

export function save(name, kind, text) {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  const made = el("a", { download: name });
  made.href = url;
  made.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
