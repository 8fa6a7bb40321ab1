// What people may do: open and close a window, add a note, clear. The token is asked once and kept in this page alone.
import { $, el, put } from "./dom.js";

let token = "";

const ACTS = {
  start: { title: "Start a window", button: "Start", url: "api/windows",
    fields: () => [field("Name", { name: "name", required: true, maxlength: "100", placeholder: "node-3 reboots" }),
      field("Budget, seconds that may be out (or none)", { name: "budget", type: "number", min: "0.1", step: "any" })],
    body: (form) => ({ name: form.name.value, budget_seconds: form.budget.value ? Number(form.budget.value) : null }) },
  end: { title: "End the window", button: "End", url: "api/windows/end", fields: () => [], body: () => ({}) },
  note: { title: "Add a note", button: "Add", url: "api/notes",
    fields: () => [field("Note", { name: "text", required: true, maxlength: "500" })], body: (form) => ({ text: form.text.value }) },
  clear: { title: "Clear the history", button: "Clear", url: "api/clear_history", body: () => ({}),
    fields: () => [el("p", {}, "What is over goes off the list, here and at every peer. What is open stays; nothing is lost.")] },
};

function field(label, attributes) {
  return el("label", { class: "field" }, label, el("input", { autocomplete: "off", ...attributes }));
}

export function acts(store) {
  $("act-window").addEventListener("click", () => ask(open(store()) ? "end" : "start"));
  $("act-note").addEventListener("click", () => ask("note"));
  $("act-clear").addEventListener("click", () => ask("clear"));
}

const open = (store) => [...store.marks.values()].find((each) => each.kind === "window" && each.end === null);

export function refresh(store) {
  const may = store.facts.get("about")?.acts;
  put($("act-window"), open(store) ? "End window" : "Start window");
  for (const name of ["act-window", "act-note", "act-clear"]) {
    $(name).disabled = !may;
    $(name).title = may ? "" : "Read-only: the bastion was started without a token";
  }
}

function ask(name) {
  const act = ACTS[name], dialog = $("act");
  const said = el("p", { class: "said", role: "alert" });
  const key = token ? [] : [field("Token of the bastion", { name: "token", type: "password", required: true })];
  const form = el("form", { method: "dialog" }, el("h2", { id: "act-title" }, act.title), ...act.fields(), ...key, said,
    el("div", { class: "buttons" }, el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"),
      el("button", { type: "submit", class: "main" }, act.button)));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = token || form.elements.token.value;
    const wrong = await send(act.url, act.body(form.elements), given);
    if (!wrong) {
      dialog.close();
      return;
    }
    put(said, wrong);
    if (!token && form.elements.token) form.elements.token.select();
    else if (!token) ask(name);
  });
  dialog.replaceChildren(form);
  if (!dialog.open) dialog.showModal();
  form.querySelector("input")?.focus();
}

// Returns what went wrong, "" if nothing.
async function send(url, body, given) {
  try {
    const headers = { Authorization: `Bearer ${given}`, "Content-Type": "application/json" };
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal: AbortSignal.timeout(15000) });
    if (answer.ok) token = given;
    else if (answer.status === 401) token = "";
    if (answer.ok) return "";
    const text = await answer.text();
    if (answer.status === 401) return "The bastion takes another token.";
    return answer.headers.get("Content-Type")?.startsWith("application/json") ? JSON.parse(text).error : text;
  } catch (problem) {
    return `Not sent: ${problem.message}`;
  }
}
