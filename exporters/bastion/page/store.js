// The bastion's state as it was told, section by section, and what of it several parts of the page need. Pure but for itself.

const SECTIONS = ["streams", "cells", "peers", "events", "marks", "facts"];
export const RANK = { down: 0, frozen: 1, unknown: 2, up: 3 };
export const SIDE = 0, SOURCE = 1, TARGET = 2, PATH = 3, PROTOCOL = 4, FAMILY = 5; // parts of a stream
export const PROTOCOLS = ["http", "tcp", "ws"];

export class Store {
  constructor(sections = {}) {
    for (const section of SECTIONS) this[section] = sections[section] || new Map();
  }

  sections() {
    return Object.fromEntries(SECTIONS.map((section) => [section, this[section]]));
  }

  // Takes a change; returns the sections it touched.
  apply({ set = {}, gone = {} }) {
    for (const [section, values] of Object.entries(set)) {
      for (const [key, value] of Object.entries(values)) this[section].set(key, value);
    }
    for (const [section, keys] of Object.entries(gone)) for (const key of keys) this[section].delete(key);
    return [...Object.keys(set), ...Object.keys(gone)];
  }

  // The cell that changed last, and its stream.
  latest() {
    let found = null;
    for (const [number, cell] of this.cells) {
      if (!found || cell[1] > found[1][1]) found = [this.streams.get(number), cell];
    }
    return found;
  }

  // Sources that no peer by which they answered is heard, by name, with that peer.
  unheard() {
    const silent = new Map(), heard = new Set();
    for (const [name, peer] of this.peers) {
      for (const source of peer.sources) {
        if (peer.heard === false) silent.set(source, { name, ...peer });
        else heard.add(source);
      }
      if (peer.heard === false && !peer.sources.length) silent.set(name, { name, ...peer });
    }
    for (const source of heard) silent.delete(source);
    return silent;
  }
}

export function worst(cells) {
  let found = null;
  for (const cell of cells) if (!found || RANK[cell[0]] < RANK[found[0]]) found = cell;
  return found;
}

// How long an event lasts, at `now`: [lower, estimate, upper] in seconds; what is open grows.
export function lengths(event, now) {
  if (event.length) return event.length;
  const [first, last] = event.start;
  return [Math.max(0, now - last - 1), Math.max(0, now - event.begin), Math.max(0, now - first)];
}

export const fromTo = (event) => {
  if (event.kind === "phase") return event.node === "*" ? "all nodes" : event.node || "cluster";
  if (!event.stream) return event.name;
  return `${event.stream[0]} → ${event.stream[1]}`;
};

export const by = (event) => {
  if (!event.stream) return "";
  const [, , path, protocol, family] = event.stream;
  return `${path}/${protocol}${family === "6" ? " IPv6" : ""}`;
};
