// The timeline: a lane for each stream or path, outages with soft edges where their bounds are, gaps hatched, marks above.
import { age, clock, day, el, flag, moment, natural, put, svg } from "./dom.js";
import { by, fromTo, lengths } from "./store.js";
import { Rows } from "./rows.js";

const LANE = 24, AXIS = 58;
const LABEL = 17; // a lane's name stands above it where there is no room beside it
const narrow = matchMedia("(max-width: 760px)");
const SPANS = [["15 min", 900], ["1 h", 3600], ["6 h", 21600], ["window", 0]];
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
const TINY = 3; // pixels that the shortest event is wide
const TIME = 27; // half a time of the axis
const NOTE = 28, LETTER = 6.3; // letters of a note on the axis, and how wide one is

export class Timeline {
  constructor(root, live, open) {
    Object.assign(this, { live, open, span: 900, end: null, lanes: [], byPath: false, events: [] });
    this.axis = svg("svg", { class: "axis", height: AXIS, role: "img", "aria-label": "Time, windows and notes" });
    this.body = el("div", { class: "lanes", role: "list", "aria-label": "Lanes" });
    this.over = svg("svg", { class: "over", "aria-hidden": "true" });
    this.none = el("p", { class: "empty" }, "Nothing happened in this time.");
    this.top = el("div", { class: "taxis" }, el("span", { class: "tlabel" }), this.axis);
    this.scroller = el("div", { class: "scroller", tabindex: "0", role: "group", "aria-label": "Timeline; plus, minus and arrows zoom and move" },
      this.top, this.body, this.none);
    root.append(this.scroller, soft());
    this.list = new Rows(this.scroller, this.body, LANE, () => this.make(), (number, row) => this.fill(number, row));
    this.scroller.addEventListener("click", (event) => {
      const id = event.target.closest("[data-id]")?.dataset.id;
      if (id) this.open(id);
    });
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.scroller.addEventListener("pointerdown", (event) => this.grab(event));
    new ResizeObserver(() => this.draw()).observe(root);
  }

  get store() {
    return this.live.store;
  }

  get to() {
    return this.end ?? this.live.now;
  }

  get from() {
    if (this.span) return this.to - this.span;
    const window = this.window();
    return window ? window.start - 5 : this.to - 900;
  }

  window() {
    const windows = [...this.store.marks.values()].filter((each) => each.kind === "window");
    return windows.find((each) => each.end === null) || windows.at(-1);
  }

  show(seconds) {
    this.span = seconds;
    const window = seconds ? null : this.window();
    this.end = window && window.end !== null ? window.end + 5 : null;
    this.draw();
  }

  // What is live stays so.
  zoom(factor, at = this.end === null ? 1 : 0.5) {
    const [from, to] = [this.from, this.to];
    const middle = from + (to - from) * at;
    this.set(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }

  move(share) {
    const width = this.to - this.from;
    this.set(this.from + share * width, this.to + share * width);
  }

  set(from, to) {
    const now = this.live.now;
    this.span = Math.min(Math.max(to - from, 2), 7 * 86400);
    this.end = to > now - 0.5 ? null : to;
    this.draw();
  }

  key(event) {
    const acts = { "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), "0": () => this.show(900),
      ArrowLeft: () => this.move(-0.25), ArrowRight: () => this.move(0.25) };
    if (!acts[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    acts[event.key]();
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.share(event.clientX));
  }

  share(x) {
    const box = this.axis.getBoundingClientRect();
    return Math.min(Math.max((x - box.left) / Math.max(box.width, 1), 0), 1);
  }

  // Who draws over the axis zooms to what was drawn over.
  grab(event) {
    if (!event.target.closest(".axis") || event.button) return;
    const from = this.share(event.clientX);
    const band = svg("rect", { class: "band", y: 0, height: AXIS });
    this.axis.append(band);
    const move = (at) => {
      const [left, right] = [from, this.share(at.clientX)].sort((a, b) => a - b);
      band.setAttribute("x", left * this.width);
      band.setAttribute("width", (right - left) * this.width);
    };
    const done = (at) => {
      removeEventListener("pointermove", move);
      band.remove();
      const [left, right] = [from, this.share(at.clientX)].sort((a, b) => a - b);
      const [begin, width] = [this.from, this.to - this.from];
      if ((right - left) * this.width > 6) this.set(begin + left * width, begin + right * width);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", done, { once: true });
  }

  draw() {
    this.width = Math.max(this.axis.clientWidth, 50);
    this.sort();
    this.head();
    flag(this.none, "hidden", this.lanes.length > 0);
    this.list.set(this.lanes.length, LANE + (narrow.matches ? LABEL : 0));
  }

  // The lanes in which something is, those with something open first.
  sort() {
    const [from, to, now] = [this.from, this.to, this.live.now];
    const lanes = new Map();
    this.gaps = [];
    for (const [id, event] of this.store.events) {
      const [begin, end] = [event.start[0], event.end ? event.end[1] : now];
      if (end < from || begin > to) continue;
      if (event.kind === "gap" && !event.stream) {
        this.gaps.push([id, event]);
        continue;
      }
      const name = event.kind === "phase" ? `phase of ${fromTo(event)}` : this.byPath && event.stream ? `${fromTo(event)} ${event.stream[2]}` : `${fromTo(event)} ${by(event)}`;
      const phase = event.kind === "phase";
      if (!lanes.has(name)) lanes.set(name, { name, events: [], open: false, phase, source: event.stream?.[0] });
      const lane = lanes.get(name);
      lane.events.push([id, event]);
      lane.open ||= !event.end && !phase;
    }
    this.lanes = [...lanes.values()].sort((a, b) => b.phase - a.phase || b.open - a.open || natural(a.name, b.name));
  }

  x(seconds) {
    return ((seconds - this.from) / (this.to - this.from)) * this.width;
  }

  head() {
    const [from, to] = [this.from, this.to];
    const step = STEPS.find((each) => (each / (to - from)) * this.width >= 88) || STEPS.at(-1);
    const parts = [];
    const zone = new Date(to * 1000).getTimezoneOffset() * 60;
    for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) {
      const x = this.x(at);
      parts.push(svg("line", { class: "tick", x1: x, x2: x, y1: AXIS - 8, y2: AXIS }),
        svg("text", { class: "time", x: Math.max(TIME, Math.min(x, this.width - TIME)), y: AXIS - 13, "text-anchor": "middle" }, step < 60 ? clock(at) : clock(at).slice(0, 5)));
    }
    for (const mark of this.store.marks.values()) parts.push(...this.mark(mark));
    parts.push(...this.notes());
    this.axis.replaceChildren(...parts);
    this.words = `${day(from)} ${clock(from)} to ${clock(to)}, ${age(to - from)}${this.end === null ? ", live" : ""}`;
  }

  mark(mark) {
    const [from, to] = [this.from, this.to];
    const end = mark.end ?? this.live.now;
    if (end < from || mark.start > to) return [];
    const x = Math.max(this.x(mark.start), 0);
    if (mark.kind === "window") {
      const width = Math.max(Math.min(this.x(end), this.width) - x, 2);
      const words = `${mark.text}${mark.budget ? ` (${mark.budget} s)` : ""}`;
      return [svg("rect", { class: "window", x, y: 1, width, height: 15, rx: 3 }, svg("title", {}, `window ${words}`)),
        ...(width > 40 ? [svg("text", { class: "wname", x: x + 6, y: 12 }, words.slice(0, Math.floor(width / 7)))] : [])];
    }
    const title = svg("title", {}, mark.kind === "note" ? `${clock(mark.start)} ${mark.text}` : `${clock(mark.start)} cleared`);
    const shape = mark.kind === "note" ? `M${x} 18 l5 6 l-5 6 l-5 -6 Z` : `M${x - 5} 19 h10 l-5 10 Z`;
    return [svg("path", { class: mark.kind, d: shape }, title)];
  }

  // What notes say, on the side where there is room; where there is none their shapes and the list below tell it.
  notes() {
    const shown = [...this.store.marks.values()].filter((each) => each.kind === "note" && each.start >= this.from && each.start <= this.to);
    shown.sort((a, b) => a.start - b.start);
    const texts = [];
    let taken = 0;
    shown.forEach((note, number) => {
      const x = this.x(note.start), text = note.text.slice(0, NOTE), wide = 8 + text.length * LETTER;
      const next = number + 1 < shown.length ? this.x(shown[number + 1].start) - 8 : this.width;
      const right = x + wide <= next;
      if (right || x - wide >= taken) texts.push(svg("text", { class: "note", x: right ? x + 8 : x - 8, y: 28, "text-anchor": right ? "start" : "end" }, text));
      taken = right ? x + wide : x + 8;
    });
    return texts;
  }

  make() {
    return el("div", { class: "lane", role: "listitem" }, el("span", { class: "tlabel" }), svg("svg", { height: LANE, "aria-hidden": "true" }),
      el("span", { class: "hidden" }));
  }

  fill(number, row) {
    const lane = this.lanes[number];
    const [label, drawing, words] = row.children;
    put(label, lane.name);
    label.title = lane.name;
    flag(label, "bad", lane.open);
    const now = this.live.now;
    const marks = [...this.store.marks.values()].filter((each) => each.kind !== "cleared" || each.start > this.from);
    drawing.replaceChildren(
      ...marks.filter((each) => each.start >= this.from && each.start <= this.to).map((each) =>
        svg("line", { class: `at ${each.kind}`, x1: this.x(each.start), x2: this.x(each.start), y1: 0, y2: LANE })),
      ...this.gaps.filter(([, gap]) => !lane.source || gap.name === lane.source).map(([id, gap]) => this.gap(id, gap, now)),
      ...lane.events.flatMap(([id, event]) => this.event(id, event, now)));
    const sum = lane.events.reduce((total, [, event]) => total + lengths(event, now)[1], 0);
    put(words, `: ${lane.events.length} events, ${sum.toFixed(2)} s${lane.open ? ", one is open" : ""}`);
  }

  gap(id, gap, now) {
    const [left, right] = [this.x(gap.start[0]), this.x(gap.end ? gap.end[1] : now)];
    return svg("rect", { class: "gap", "data-id": id, x: left, y: 0, width: Math.max(right - left, TINY), height: LANE, fill: "url(#hatch)" });
  }

  // What lasts is a bar with its name in it, what happened a tick.
  phase(id, event, now) {
    const [left, right] = [Math.max(this.x(event.start[0]), 0), Math.min(this.x(event.end ? event.end[1] : now), this.width)];
    const width = Math.max(right - left, TINY);
    const bar = svg("rect", { class: `ev phase ${event.cause === "event" ? "moment" : ""}`, "data-id": id, x: left, y: 4, width, height: LANE - 8, rx: 3 },
      svg("title", {}, `${event.text} of ${fromTo(event)}, ${clock(event.start[0], 1)}`));
    return width > 30 ? [bar, svg("text", { class: "wname", "data-id": id, x: left + 5, y: LANE - 8 }, event.text.slice(0, Math.floor(width / 7)))] : [bar];
  }

  // Its sure part is full, its edges fade out over the time in which it may have begun or ended.
  event(id, event, now) {
    if (event.kind === "gap") return [this.gap(id, event, now)];
    if (event.kind === "phase") return this.phase(id, event, now);
    const [a, b] = event.start.map((each) => this.x(each));
    const [c, d] = (event.end || [now, now]).map((each) => this.x(each));
    const about = { "data-id": id, y: 5, height: LANE - 10 };
    const title = () => svg("title", {}, `${event.kind} ${event.cause}, ${clock(event.start[0], 1)}, ${lengths(event, now)[1].toFixed(2)} s`);
    if (event.kind === "break" || d - a < TINY) {
      const middle = (a + d) / 2;
      return [svg("rect", { ...about, y: 2, height: LANE - 4, class: `ev ${event.kind}`, x: middle - TINY / 2, width: TINY }, title())];
    }
    const full = Math.max(c - b, 0);
    const parts = [svg("rect", { ...about, class: `ev ${event.kind}`, x: full ? b : (a + d) / 2 - 1, width: Math.max(full, 2) }, title())];
    if (b - a > 0.5) parts.push(svg("rect", { ...about, class: `ev ${event.kind}`, x: a, width: b - a, mask: "url(#fade-in)" }, title()));
    if (d - c > 0.5) parts.push(svg("rect", { ...about, class: `ev ${event.kind}`, x: c, width: d - c, mask: "url(#fade-out)" }, title()));
    if (!event.end) parts.push(svg("path", { class: "open", d: `M${Math.min(c, this.width - 8)} 4 l7 8 l-7 8 Z`, "data-id": id }));
    return parts;
  }
}

export { SPANS };

// The same marks in words, the newest first; windows that are over with what they cost.
export function marks(list, store, now, most = 8) {
  const costs = store.facts.get("windows") || {};
  const lines = [...store.marks].slice(-most).reverse().map(([id, mark]) => {
    const cost = costs[id];
    if (mark.kind !== "window") return [mark.kind, `${moment(mark.start, now)} ${mark.text || "cleared"}`];
    const span = `${moment(mark.start, now)}–${mark.end === null ? "now" : moment(mark.end, now)} “${mark.text}”`;
    if (!cost) return ["window", span];
    const [lower, middle, upper] = cost.spent.map((each) => each.toFixed(1));
    const budget = mark.budget ? ` of ${mark.budget} s` : "";
    return [mark.budget && cost.spent[1] > mark.budget ? "window over" : "window", `${span}: ${middle} s out (${lower}–${upper})${budget}`];
  });
  const key = JSON.stringify(lines);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...lines.map(([kind, text]) => el("li", { class: kind }, text)));
}

// What fades and hatches, shared by all lanes.
function soft() {
  const fade = (id, first, last) => svg("mask", { id, maskContentUnits: "objectBoundingBox" },
    svg("linearGradient", { id: `${id}-g` }, svg("stop", { offset: 0, "stop-color": "#fff", "stop-opacity": first }),
      svg("stop", { offset: 1, "stop-color": "#fff", "stop-opacity": last })),
    svg("rect", { width: 1, height: 1, fill: `url(#${id}-g)` }));
  const hatch = svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("rect", { class: "hatch", width: 2, height: 6 }));
  return svg("svg", { class: "defs", width: 0, height: 0, "aria-hidden": "true" }, svg("defs", {}, hatch, fade("fade-in", 0.08, 0.9), fade("fade-out", 0.9, 0.08)));
}
