// One connection to the bastion: resumes where it was, and tells of the whole state, of changes and of beats.
import { Store } from "./store.js";

const DEAD_MS = 6000; // without a beat: a new connection is tried
const AGAIN_MS = 1000;
const URL_OF = new URL("../api/stream", import.meta.url);

export class Stream {
  // `tell` is called with {kind: "whole", sections}, {kind: "change", change} and {kind: "beat", at}.
  constructor(tell) {
    this.tell = tell;
    this.store = null; // once it is whole
    this.next = null; // one that is being filled
    this.last = ""; // id of the last change that we have whole
    this.heard = performance.now();
    this.timer = setInterval(() => this.check(), 500);
    this.connect();
  }

  connect() {
    this.source?.close();
    this.heard = performance.now();
    this.source = new EventSource(`${URL_OF}?last=${encodeURIComponent(this.last)}`);
    this.source.addEventListener("reset", () => { this.next = new Store(); });
    this.source.addEventListener("change", (event) => this.take(event));
    this.source.addEventListener("ready", (event) => {
      [this.store, this.next, this.last] = [this.next || this.store, null, event.lastEventId];
      this.tell({ kind: "whole", sections: this.store.sections() });
    });
    this.source.addEventListener("beat", (event) => {
      this.heard = performance.now();
      this.tell({ kind: "beat", at: JSON.parse(event.data).at });
    });
    this.source.addEventListener("error", () => this.reconnect());
  }

  take(event) {
    const change = JSON.parse(event.data);
    (this.next || this.store).apply(change);
    if (this.next) return;
    this.last = event.lastEventId;
    this.tell({ kind: "change", change });
  }

  reconnect() {
    this.source.close();
    this.next = null;
    clearTimeout(this.again);
    this.again = setTimeout(() => this.connect(), AGAIN_MS);
  }

  check() {
    if (performance.now() - this.heard <= DEAD_MS) return;
    this.heard = performance.now();
    this.reconnect();
  }

  close() {
    clearInterval(this.timer);
    clearTimeout(this.again);
    this.source.close();
  }
}
