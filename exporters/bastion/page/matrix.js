// A matrix of states of any size: rows and columns by name, one cell each; a letter and a shape beside the colour.
import { $, age, el, flag, moment, put } from "./dom.js";
import { Rows } from "./rows.js";

const SIGN = { up: "•", down: "✕", frozen: "F", unknown: "?" };
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Matrix {
  // `read(row, column)` gives {state, since, cause, title, parts} or null; `open` is called with what was chosen.
  constructor(root, { label, height, read, open, now }) {
    Object.assign(this, { root, read, open, now, rows: [], columns: [], at: [0, 0], height });
    this.head = el("div", { class: "mhead", role: "rowgroup" });
    this.body = el("div", { class: "mbody", role: "rowgroup" });
    this.scroller = el("div", { class: "scroller", role: "grid", "aria-label": label }, this.head, this.body);
    this.empty = el("p", { class: "empty" });
    root.append(this.scroller, this.empty);
    this.list = new Rows(this.scroller, this.body, height, () => this.make(), (number, row) => this.fill(number, row));
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    for (const [kind, show] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
      this.scroller.addEventListener(kind, (event) => this.tip(event.target.closest("[role=gridcell]"), show));
    }
    this.scroller.addEventListener("click", (event) => this.choose(event.target.closest("[role=gridcell]")));
  }

  // rows: [{key, label, note}]; columns: [{key, label, group}]; groups stand above their columns.
  shape(rows, columns, empty) {
    Object.assign(this, { rows, columns });
    this.scroller.ariaRowCount = String(rows.length + 1);
    this.scroller.ariaColCount = String(columns.length + 1);
    this.scroller.style.setProperty("--columns", columns.length);
    flag(this.scroller, "hidden", !rows.length);
    flag(this.empty, "hidden", rows.length > 0);
    put(this.empty, empty);
    this.heading();
    this.at = [Math.min(this.at[0], Math.max(rows.length - 1, 0)), Math.min(this.at[1], Math.max(columns.length - 1, 0))];
    this.body.replaceChildren();
    this.list.rows.clear();
    this.list.spare = [];
    this.list.set(rows.length);
  }

  heading() {
    const groups = el("div", { class: "mrow groups", "aria-hidden": "true" }, el("span", { class: "mlabel" }));
    let before = null, made = null, wide = 0;
    for (const column of this.columns) {
      if (column.group !== before) {
        made = el("span", { class: "mgroup" }, column.group || "");
        groups.append(made);
        [before, wide] = [column.group, 0];
      }
      made.style.setProperty("--wide", ++wide);
    }
    const row = el("div", { class: "mrow", role: "row", "aria-rowindex": "1" }, el("span", { class: "mlabel", role: "columnheader" }));
    row.firstChild.append(el("span", { class: "hidden" }, "name"));
    this.columns.forEach((column, number) => row.append(
      el("span", { class: `mcol${this.splits(number) ? " split" : ""}`, role: "columnheader", title: column.title || column.label },
        el("span", {}, column.label))));
    this.head.replaceChildren(...(this.columns.some((each) => each.group) ? [groups, row] : [row]));
  }

  splits(number) {
    return number > 0 && this.columns[number].group !== this.columns[number - 1].group;
  }

  make() {
    const row = el("div", { class: "mrow", role: "row" }, el("span", { class: "mlabel", role: "rowheader" }));
    this.columns.forEach((_, number) => {
      row.append(el("span", { class: "cell", role: "gridcell", tabindex: "-1", "aria-colindex": number + 2 }));
    });
    return row;
  }

  fill(number, row) {
    const item = this.rows[number];
    const label = row.firstChild;
    put(label, item.label);
    label.title = item.note ? `${item.label}: ${item.note}` : item.label;
    flag(label, "noted", Boolean(item.note));
    row.dataset.row = number;
    row.ariaRowIndex = String(number + 2); // the first one is the heading
    this.columns.forEach((column, at) => {
      const cell = row.children[at + 1];
      const found = this.read(item.key, column.key);
      const state = found ? found.state : "none";
      const kind = `cell ${state}${this.splits(at) ? " split" : ""}`;
      if (cell.className !== kind) cell.className = kind;
      put(cell, SIGN[state] || "");
      const words = `${item.label}, ${column.title || column.label}: ${found ? found.state : "not probed"}${found && found.cause ? `, ${found.cause}` : ""}`;
      if (cell.ariaLabel !== words) cell.ariaLabel = words;
      const reached = number === this.at[0] && at === this.at[1];
      if (cell.tabIndex !== (reached ? 0 : -1)) cell.tabIndex = reached ? 0 : -1;
    });
  }

  refresh() {
    this.list.draw(true);
  }

  place(cell) {
    return [Number(cell.parentNode.dataset.row), Number(cell.ariaColIndex) - 2];
  }

  found(cell) {
    const [row, column] = this.place(cell);
    return this.rows[row] && this.columns[column] ? this.read(this.rows[row].key, this.columns[column].key) : null;
  }

  key(event) {
    const cell = event.target.closest("[role=gridcell]");
    if (!cell) return;
    if (event.key === "Escape") this.tip(null, false);
    let [row, column] = this.place(cell);
    if (event.key === "Enter" || event.key === " ") this.choose(cell);
    else if (event.key === "Home") column = 0;
    else if (event.key === "End") column = this.columns.length - 1;
    else if (event.key === "PageDown" || event.key === "PageUp") row += (event.key === "PageDown" ? 1 : -1) * 10;
    else if (MOVES[event.key]) [row, column] = [row + MOVES[event.key][0], column + MOVES[event.key][1]];
    else return;
    event.preventDefault();
    this.at = [Math.max(0, Math.min(row, this.rows.length - 1)), Math.max(0, Math.min(column, this.columns.length - 1))];
    const reached = this.list.reach(this.at[0]);
    cell.tabIndex = -1;
    const next = reached.children[this.at[1] + 1];
    next.tabIndex = 0;
    next.focus();
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  choose(cell) {
    const found = cell && this.found(cell);
    if (found) this.open(found);
  }

  tip(cell, show) {
    const tip = $("tip");
    const found = show && cell ? this.found(cell) : null;
    tip.hidden = !found;
    if (!found) return;
    const now = this.now();
    tip.replaceChildren(el("strong", {}, found.title), ...found.parts.map(([name, [state, since, cause]]) =>
      el("span", { class: "line" }, el("b", { class: `word ${state}` }, `${name} ${state}`),
        ` ${age(now - since)}, since ${moment(since, now)}${cause ? `: ${cause}` : ""}`)),
      ...(found.note ? [el("span", { class: "line" }, found.note)] : []));
    const box = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = box.bottom + own.height + 12 < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - own.width - 8))}px`;
    tip.style.top = `${below ? box.bottom + 6 : box.top - own.height - 6}px`;
  }
}
