// What the page knows of the bastion, by way of the connection that all tabs share, and how late the bastion's clock is.
import { Store } from "./store.js";
import { Stream } from "./stream.js";

const STALE_MS = 2500;
const ALONE_MS = 12000; // without a beat by way of the others' connection: have one of our own

export class Live {
  // `changed` is called with the sections that changed, `told` whenever fresh or stale may have changed.
  constructor(changed, told) {
    this.store = new Store();
    this.changed = changed;
    this.told = told;
    this.beaten = -Infinity; // when, on our own monotonic clock
    this.at = 0; // the bastion's time then
    this.joined = performance.now();
    setInterval(() => this.check(), 250);
    document.addEventListener("visibilitychange", () => this.check());
    addEventListener("pagehide", () => this.leave());
    addEventListener("pageshow", (event) => { if (event.persisted) this.join(); });
    this.join();
  }

  get stale() {
    return performance.now() - this.beaten > STALE_MS;
  }

  // The bastion's time, Unix seconds. It stands still when nothing is heard: nobody knows what goes on.
  get now() {
    return this.at ? this.at + Math.min(performance.now() - this.beaten, STALE_MS) / 1000 : Date.now() / 1000;
  }

  join() {
    this.joined = performance.now();
    try {
      const worker = new SharedWorker(new URL("worker.js", import.meta.url), { type: "module" });
      worker.onerror = () => this.alone();
      worker.port.onmessage = (event) => this.take(event.data);
      this.port = worker.port;
    } catch {
      this.alone(); // this browser shares nothing
    }
  }

  leave() {
    this.port?.postMessage("bye");
    this.port?.close();
    this.port = null;
    this.own?.close();
    this.own = null;
  }

  alone() {
    this.leave();
    this.own = new Stream((message) => this.take(message));
  }

  take(message) {
    if (message.kind === "beat") {
      this.at = message.at;
      this.beaten = performance.now();
      this.told();
    } else if (message.kind === "whole") {
      this.store = new Store(message.sections);
      this.changed(Object.keys(message.sections));
    } else {
      this.changed(this.store.apply(message.change));
    }
  }

  check() {
    if (this.port && performance.now() - Math.max(this.beaten, this.joined) > ALONE_MS) this.alone();
    this.told();
  }
}
