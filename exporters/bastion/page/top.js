// The first look: the verdict, what the night cost, whether the watcher itself is all right, and where to look.
import { $, age, clock, day, el, flag, many, moment, put, secs } from "./dom.js";

const SIGNS = { up: "✓", down: "✕", unknown: "?", none: "?", stale: "!" };

export function top(store, live, now) {
  const facts = store.facts;
  const about = facts.get("about");
  if (!about) return;
  put($("source"), about.source);
  put($("version"), `ovnwatch ${about.version}`);
  verdict(facts.get("verdict"), live, now, store);
  spent(facts.get("summary"), now);
  coverage(facts.get("coverage"), facts.get("summary"));
  changed(store, now);
  peers(store, now);
  look(facts.get("look"), facts.get("watcher"));
}

export function fresh(live) {
  const stale = live.stale;
  document.body.classList.toggle("is-stale", stale);
  const known = live.at > 0;
  put($("live"), stale ? (known ? `Stale since ${clock(live.at)}` : "Connecting") : "Live");
  put($("clock"), known ? `${day(live.now)} ${clock(live.now)}` : "");
  // Each beat puts the banner off, in CSS: a page that hangs shows it as well.
  return stale;
}

export function beat() {
  const banner = $("stale");
  const even = banner.classList.contains("even");
  banner.classList.toggle("even", !even);
  banner.classList.toggle("odd", even);
}

function verdict(found, live, now, store) {
  const stale = live.stale;
  const level = stale ? "stale" : found.level;
  document.body.dataset.level = level;
  put($("sign"), SIGNS[level]);
  put($("verdict"), stale ? `Stale: nothing heard since ${clock(live.at)}` : found.text);
  const parts = [];
  if (stale) parts.push(`then: ${found.text}`);
  const window = [...store.marks.values()].find((each) => each.kind === "window" && each.end === null);
  if (window) parts.push(`window “${window.text}” open for ${age(now - window.start)}`);
  const { out, in: inside } = found.sides;
  for (const [name, words] of [["from outside", out], ["pod to pod", inside]]) {
    const count = Object.values(words).reduce((sum, each) => sum + each, 0);
    if (count) parts.push(`${name} ${words.up || 0} of ${count} up`);
  }
  put($("subline"), parts.join(" · "));
  document.title = `${stale ? "Stale" : found.text} · ${store.facts.get("about").source} · Live Migration Dashboard`;
}

function spent(summary, now) {
  const [lower, middle, upper] = summary.spent;
  put($("spent-name"), `Out since ${/^the /.test(summary.name) ? summary.name : `“${summary.name}” began`}`);
  put($("spent"), `${middle.toFixed(1)} s${summary.budget ? ` of ${summary.budget} s` : ""}`);
  const counts = Object.entries(summary.counts).filter(([kind]) => kind !== "gap" && kind !== "phase");
  const parts = counts.map(([kind, count]) => `${count} ${kind}${count > 1 && kind !== "frozen" ? "s" : ""}`);
  if (summary.worst) {
    const [stream, length] = summary.worst;
    parts.push(`worst ${stream[1]} ${stream[2]}/${stream[3]} ${secs(length)}`);
  }
  put($("spent-more"), `between ${lower.toFixed(1)} and ${upper.toFixed(1)} s · ${parts.join(" · ") || "no events"}`);
  const budget = $("budget");
  flag(budget, "hidden", !summary.budget);
  if (summary.budget) {
    budget.max = summary.budget;
    budget.value = Math.min(middle, summary.budget);
    budget.classList.toggle("over", upper > summary.budget);
  }
  $("spent").classList.toggle("bad", Boolean(summary.budget) && middle > summary.budget);
}

// Of each path by any source; so who did not observe, and which paths nobody ever reached, is said beside it.
function coverage(found, summary) {
  const known = found && found.worst;
  put($("coverage"), known ? `${(Math.floor(found.share * 1e4) / 100).toFixed(2)} %` : found ? "unknown" : "–");
  $("coverage").classList.toggle("bad", Boolean(found) && !found.enough);
  const parts = [], more = [];
  if (!found) parts.push("too early to say");
  if (known) parts.push(found.share === 1 ? `all ${found.paths} paths, by any source` : `by any source · least: ${found.worst.join(" by ")}`);
  if (found?.unknowns) {
    parts.push(`${found.unknowns} never reached: ${few(found.unknown.map((place) => place.join(" by ")), found.unknowns, 1)}`);
    more.push(`Never reached, so unknown: ${few(found.unknown.map((place) => place.join(" by ")), found.unknowns, 10)}`);
  }
  if (found?.misses) {
    const names = found.missed.map(([name, seconds]) => `${name} ${age(seconds)}`);
    parts.push(`missed by ${few(names, found.misses, 2)}`);
    more.push(`${found.misses} of ${found.sources} sources did not observe all the time: ${few(names, found.misses, 10)}`);
  }
  const count = summary.counts.gap;
  if (count) parts.push(many(count, "gap"));
  put($("coverage-more"), parts.join(" · "));
  const title = more.join("\n");
  if ($("coverage-more").title !== title) $("coverage-more").title = title;
}

const few = (names, count, most) => names.slice(0, most).join(", ") + (count > most ? ` and ${count - most} more` : "");

function changed(store, now) {
  const latest = store.latest();
  put($("changed"), latest ? `${age(now - latest[1][1])} ago` : "–");
  put($("changed-more"), latest ? `${latest[0][2]} ${latest[0][3]}/${latest[0][4]} ${latest[1][0]}` : "");
}

function peers(store, now) {
  const all = [...store.peers];
  const heard = all.filter(([, peer]) => peer.heard).length;
  put($("peers"), all.length ? `${heard} of ${all.length}` : "none");
  const silent = all.filter(([, peer]) => peer.heard === false);
  $("peers").classList.toggle("bad", silent.length > 0);
  put($("peers-more"), silent.length ?
    silent.slice(0, 3).map(([name, peer]) => `${name} not since ${moment(peer.since, now)}`).join(", ") +
    (silent.length > 3 ? `, ${silent.length - 3} more` : "") : all.length ? "all that are asked" : "no peer is asked");
}

function look(findings, watcher) {
  const lines = findings.map((each) => ["look", `${each.likely ? "" : "Possibly: "}${each.text}`]);
  if (watcher.journal) lines.push(["watcher", `The journal has trouble: ${watcher.journal}. Measuring goes on.`]);
  if (watcher.left_out) lines.push(["watcher", `${watcher.left_out} more streams of peers are not shown.`]);
  const list = $("look");
  const key = JSON.stringify(lines);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...lines.map(([kind, text]) => el("li", { class: kind }, text)));
}
