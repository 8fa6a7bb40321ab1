// Elements, and how numbers and times are written. Whatever is told is set as text, never as markup: peers are strangers.

export const $ = (id) => document.getElementById(id);

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.toggleAttribute(key, true);
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A link into the configured Grafana: the base is the bastion's own, what comes behind is numbers.
export function link(base, path, text) {
  const made = el("a", { rel: "noreferrer noopener", target: "_blank" }, text);
  if (/^https?:[/][/]/.test(base)) made.href = base + path;
  return made;
}

export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function flag(element, name, on) {
  if (element.hidden !== undefined && name === "hidden") element.hidden = on;
  else element.classList.toggle(name, on);
}

export const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export const two = (number) => String(number).padStart(2, "0");

export function clock(seconds, digits = 0) {
  const time = new Date(seconds * 1000);
  const text = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return digits ? `${text}.${String(time.getMilliseconds()).padStart(3, "0").slice(0, digits)}` : text;
}

export function day(seconds) {
  const time = new Date(seconds * 1000);
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
}

// With its day, unless that is today.
export function moment(seconds, now, digits = 0) {
  return day(seconds) === day(now) ? clock(seconds, digits) : `${day(seconds)} ${clock(seconds, digits)}`;
}

export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function secs(seconds) {
  if (seconds >= 3600) return age(seconds);
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

const collator = new Intl.Collator("en", { numeric: true });
export const natural = (a, b) => collator.compare(a, b);
