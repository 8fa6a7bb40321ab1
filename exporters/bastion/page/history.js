// The history: what is open first and counting, then the newest; filters; one row an event, all of it in a dialog.
import { $, clock, el, flag, link, moment, natural, put, secs } from "./dom.js";
import { Rows } from "./rows.js";
import { by, fromTo, lengths } from "./store.js";

const BOARD = "/d/ovnwatch-connectivity/connectivity";
const HEADS = ["What", "Start", "Length", "From → to", "By", "Cause", "Answered before → after"];
const WORDS = [["kind", "Kind"], ["source", "From"], ["target", "To"], ["path", "Path"], ["protocol", "Protocol"], ["cause", "Cause"]];
const narrow = matchMedia("(max-width: 760px)");

const part = { kind: (event) => event.kind, cause: (event) => event.cause, source: (event) => event.stream?.[0] || event.name,
  target: (event) => event.stream?.[1] || "", path: (event) => event.stream?.[2] || "", protocol: (event) => event.stream?.[3] || "" };

export class History {
  constructor(root, live) {
    Object.assign(this, { live, shown: [], wanted: {}, longer: 0, cleared: true });
    const head = el("div", { class: "hrow heads", role: "row", "aria-rowindex": "1" }, ...HEADS.map((text) => el("span", { role: "columnheader" }, text)));
    this.body = el("div", { class: "hbody", role: "rowgroup" });
    this.none = el("p", { class: "empty" });
    this.scroller = el("div", { class: "scroller", role: "grid", "aria-label": "Events", "aria-colcount": HEADS.length },
      el("div", { role: "rowgroup", class: "hhead" }, head), this.body);
    root.append(this.scroller, this.none);
    this.list = new Rows(this.scroller, this.body, this.height, () => this.make(), (number, row) => this.fill(number, row));
    narrow.addEventListener("change", () => this.draw());
    this.form();
  }

  get height() {
    return narrow.matches ? 124 : 34; // five lines: from and to may take two
  }

  get store() {
    return this.live.store;
  }

  form() {
    const form = $("filters");
    for (const [name, label] of WORDS) {
      form.append(el("label", {}, label, el("select", { name, onchange: (event) => this.filter(name, event.target.value) })));
    }
    form.append(el("label", {}, "Longer than", el("input", { name: "longer", type: "number", min: "0", step: "any", placeholder: "0 s",
      oninput: (event) => { this.longer = Number(event.target.value) || 0; this.draw(); } })));
    form.append(el("label", { class: "check" }, el("input", { type: "checkbox", name: "cleared",
      onchange: (event) => { this.cleared = !event.target.checked; this.draw(); } }), " cleared, too"));
    form.append(el("button", { type: "reset", class: "quiet" }, "All"));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => { Object.assign(this, { wanted: {}, longer: 0, cleared: true }); setTimeout(() => this.draw()); });
  }

  filter(name, value) {
    this.wanted[name] = value;
    const select = $("filters").elements[name];
    if (select.value !== value) select.value = value;
    this.draw();
  }

  // Only what concerns a stream, as a matrix's cell asks for.
  only(words) {
    for (const [name] of WORDS) this.filter(name, words[name] || "");
    this.scroller.scrollTop = 0;
    $("what").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
  }

  draw() {
    const all = [...this.store.events];
    this.choices(all.map(([, event]) => event));
    const since = this.cleared ? this.clearedAt() : 0;
    const now = this.live.now;
    const wanted = Object.entries(this.wanted).filter(([, value]) => value);
    this.shown = all.filter(([, event]) => (!event.end || event.end[1] > since) &&
      wanted.every(([name, value]) => part[name](event) === value) && (!this.longer || lengths(event, now)[1] > this.longer));
    this.shown.sort(([, a], [, b]) => (a.end ? 1 : 0) - (b.end ? 1 : 0) || b.start[0] - a.start[0]);
    const open = this.shown.filter(([, event]) => !event.end).length;
    put($("what-count"), `${this.shown.length} of ${all.length} events${open ? `, ${open} open` : ""}`);
    put(this.none, this.nothing(all, since));
    flag(this.none, "hidden", this.shown.length > 0);
    flag(this.scroller, "hidden", !this.shown.length);
    this.scroller.ariaRowCount = String(this.shown.length + 1);
    this.list.set(this.shown.length, this.height);
  }

  // Why the list is empty.
  nothing(all, since) {
    if (!all.length) return "No disconnections yet.";
    const left = all.some(([, event]) => !event.end || event.end[1] > since);
    return left ? "Nothing fits the filters." : `Cleared at ${moment(since, this.live.now)}: what is counted begins there. Nothing since.`;
  }

  clearedAt() {
    let at = 0;
    for (const mark of this.store.marks.values()) if (mark.kind === "cleared") at = Math.max(at, mark.start);
    return at;
  }

  choices(events) {
    for (const [name] of WORDS) {
      const words = new Set(events.map(part[name]));
      if (this.wanted[name]) words.add(this.wanted[name]);
      words.delete("");
      const list = [...words].sort(natural);
      const select = $("filters").elements[name];
      if (select.dataset.key === list.join("\n")) continue;
      select.dataset.key = list.join("\n");
      select.replaceChildren(el("option", { value: "" }, "any"), ...list.map((word) => el("option", { value: word }, word)));
      select.value = this.wanted[name] || "";
    }
  }

  // What is open goes on counting between two changes.
  tick() {
    if (this.shown.some(([, event]) => !event.end)) this.list.draw(true);
  }

  make() {
    const row = el("div", { class: "hrow", role: "row" }, ...HEADS.map((_, at) => el("span", { role: at ? "gridcell" : "rowheader", class: `h${at}` })));
    row.tabIndex = 0;
    row.addEventListener("click", () => this.detail(row.dataset.id));
    row.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "Enter") this.detail(row.dataset.id);
      if (!step) return;
      event.preventDefault();
      this.list.reach(Math.max(0, Math.min(this.shown.length - 1, Number(row.dataset.number) + step)))?.focus();
    });
    return row;
  }

  fill(number, row) {
    const [id, event] = this.shown[number];
    const now = this.live.now;
    row.dataset.id = id;
    row.dataset.number = number;
    row.ariaRowIndex = String(number + 2);
    const [lower, middle, upper] = lengths(event, now);
    const length = event.end ? `${secs(middle)} (${lower.toFixed(2)}–${upper.toFixed(2)})` : `${secs(middle)} so far`;
    const cells = [`${event.kind}${event.unconfirmed ? "?" : ""}${event.end ? (event.state === "truncated" ? " …" : "") : " open"}`,
      moment(event.begin, now, 1), length, fromTo(event), by(event),
      (event.text || event.cause) + (event.stalled ? ", while we stalled" : ""), `${event.before || "–"} → ${event.after || "–"}`];
    cells.forEach((text, at) => {
      put(row.children[at], text);
      if (at > 2) row.children[at].title = text;
    });
    const kind = `h0 word ${event.kind}${event.end ? "" : " open"}`;
    if (row.children[0].className !== kind) row.children[0].className = kind;
  }

  detail(id) {
    const event = this.store.events.get(id);
    if (!event) return;
    const now = this.live.now;
    const [lower, middle, upper] = lengths(event, now);
    const edge = (pair) => (pair[0] === pair[1] ? moment(pair[0], now, 3) : `between ${moment(pair[0], now, 3)} and ${moment(pair[1], now, 3)}`);
    const rows = [["Began", edge(event.start)],
      ["Ended", event.end ? edge(event.end) + (event.state === "truncated" ? " (not seen: what watched it ended)" : "") : "it is open"],
      ["Length", `${middle.toFixed(3)} s${event.end ? "" : " so far"}, at least ${lower.toFixed(3)} s, at most ${upper.toFixed(3)} s`],
      ["By", by(event)], ["Phase", event.text || ""], ["Cause", event.cause],
      ["Causes", Object.entries(event.causes).map(([cause, count]) => `${cause} ${count}×`).join(", ")],
      ["Answered before", event.before], ["Answered after", event.after],
      ["Seen by", event.via ? `${event.stream?.[0] || event.name}, told by ${event.via}` : this.store.facts.get("about").source],
      ["Note", [event.unconfirmed ? "unconfirmed: it may have been one slow answer" : "", event.stalled ? "we ourselves were held up meanwhile" : ""].filter(Boolean).join("; ")]];
    const base = this.store.facts.get("about").grafana;
    const [from, to] = [event.start[0] - 300, (event.end ? event.end[1] : now) + 300].map((each) => Math.round(each * 1000));
    const dialog = $("detail");
    dialog.replaceChildren(
      el("h2", { id: "detail-title" }, `${event.kind}: ${fromTo(event)}`),
      el("dl", {}, ...rows.filter(([, text]) => text).flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])),
      el("div", { class: "buttons" }, ...(base ? [link(base, `${BOARD}?from=${from}&to=${to}`, `Grafana at ${clock(event.start[0])}`)] : []),
        el("button", { type: "button", onclick: () => dialog.close() }, "Close")));
    if (!dialog.open) dialog.showModal();
  }
}
