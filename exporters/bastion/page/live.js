// The stream of changes: connects, resumes where it was, and says how late the bastion's clock is.
import { Store } from "./store.js";

const STALE_MS = 2500;
const DEAD_MS = 6000; // without a beat: a new connection is tried
const AGAIN_MS = 1000;

export class Live {
  // `changed` is called with the sections that changed, `told` whenever fresh or stale may have changed.
  constructor(changed, told) {
    this.store = new Store();
    this.changed = changed;
    this.told = told;
    this.last = ""; // id of the last change that we have whole
    this.beaten = -Infinity; // when, on our own monotonic clock
    this.at = 0; // the bastion's time then
    this.source = null;
    this.next = null; // a store that is being filled
    this.opened = performance.now();
    setInterval(() => this.check(), 250);
    document.addEventListener("visibilitychange", () => this.check());
    this.connect();
  }

  get stale() {
    return performance.now() - this.beaten > STALE_MS;
  }

  // The bastion's time, Unix seconds. It stands still when nothing is heard: nobody knows what goes on.
  get now() {
    return this.at ? this.at + Math.min(performance.now() - this.beaten, STALE_MS) / 1000 : Date.now() / 1000;
  }

  connect() {
    clearTimeout(this.again);
    if (this.source) this.source.close();
    this.opened = performance.now();
    const source = new EventSource(`api/stream?last=${encodeURIComponent(this.last)}`);
    this.source = source;
    source.addEventListener("reset", () => { this.next = new Store(); });
    source.addEventListener("change", (event) => this.take(event));
    source.addEventListener("ready", (event) => {
      this.store = this.next || this.store;
      this.next = null;
      this.last = event.lastEventId;
      this.changed(["streams", "cells", "peers", "events", "marks", "facts"]);
    });
    source.addEventListener("beat", (event) => {
      this.at = JSON.parse(event.data).at;
      this.beaten = performance.now();
      this.told();
    });
    source.addEventListener("error", () => this.reconnect());
  }

  take(event) {
    const change = JSON.parse(event.data);
    if (this.next) {
      this.next.apply(change);
      return;
    }
    const touched = this.store.apply(change);
    this.last = event.lastEventId;
    this.changed(touched);
  }

  reconnect() {
    this.source.close();
    this.next = null;
    clearTimeout(this.again);
    this.again = setTimeout(() => this.connect(), AGAIN_MS);
  }

  check() {
    const now = performance.now();
    if (now - Math.max(this.beaten, this.opened) > DEAD_MS) this.reconnect(this.opened = now);
    this.told();
  }
}
