// All tabs of a browser share one connection: it may have no more than six to one bastion.
import { Stream } from "./stream.js";

const ports = new Set();
let beat = null;

const stream = new Stream((message) => {
  if (message.kind === "beat") beat = message;
  for (const port of ports) port.postMessage(message);
});

globalThis.addEventListener("connect", ({ ports: [port] }) => {
  ports.add(port);
  port.onmessage = () => ports.delete(port); // it says nothing but that it goes
  if (stream.store) port.postMessage({ kind: "whole", sections: stream.store.sections() });
  if (beat && performance.now() - stream.heard < 1000) port.postMessage(beat);
});
