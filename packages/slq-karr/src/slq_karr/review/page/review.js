"use strict";

// What a check says when it passed, and when it failed.
const CHECKS = {
  leak: ["does not name the target", "names the target"], true_of_image: ["true of the image", "not true of the image"],
  surface: ["asks for knowledge", "found by its surface alone"], answerable: ["leads to the target", "does not lead to the target"],
  duplicate: ["no duplicate", "a duplicate"],
};
const DONE = { accept: "accepted", edit: "edited", reject: "rejected" };
const UNREACHABLE = "The review server does not answer. Start it again with the same command and --port, then repeat: nothing saved is lost.";

const $ = (id) => document.getElementById(id);
const address = new URL(location.href);
let reviewer = address.searchParams.get("reviewer") || "";
let filter = address.searchParams.get("filter") || "all";
let current = decodeURIComponent(address.hash.slice(1));
let candidates = [], visible = [], hintTimer = 0, restSaid = 0;
let waiting = Promise.resolve(), failures = 0;
// What is typed but not decided yet survives moving about and reloading: candidate -> {note, text}.
const drafts = JSON.parse(sessionStorage.getItem("drafts") || "{}");

/* ---- the server ---- */

async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    throw new Error(UNREACHABLE);
  }
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// Keys wait for what is under way. After a failure those already waiting are dropped: they were meant for another candidate.
function attempt(action) {
  const asked = failures;
  waiting = waiting.then(async () => {
    if (asked !== failures) return;
    try {
      await action();
      $("problem").hidden = true;
    } catch (error) {
      failures += 1;
      $("problem").textContent = error.message;
      $("problem").hidden = false;
    }
  });
}

async function load() {
  if (!reviewer) return askName();
  const state = await ask("state?" + new URLSearchParams({ reviewer }));
  reviewer = state.reviewer;
  candidates = state.candidates;
  document.title = `${state.set}: review`;
  $("set").textContent = state.set;
  $("who").textContent = reviewer;
  $("failures").hidden = !state.failures.length;
  $("failures").querySelector("summary").textContent = `${state.failures.length} line(s) could not be read`;
  $("failures").querySelector("ul").replaceChildren(...state.failures.map((each) => element("li", each)));
  const labels = new Map(candidates.map((each) => [each.category, each.category_label]));
  $("categories").replaceChildren(...[...labels].sort().map(([id, label]) => Object.assign(element("option", label), { value: "category:" + id })));
  $("filter").value = filter;
  if (!$("filter").value) $("filter").value = filter = "all";
  summarise(state);
  choose();
  show();
}

async function decide(decision, query = "") {
  const here = visible.indexOf(current);
  const note = $("note").value;
  const state = await ask("decide", { reviewer, candidate: current, decision, query, note });
  take(state);
  say(`${capital(DONE[decision])}.`);
  const following = visible[here + 1];
  choose();
  if (following) current = following;
  else say(`${capital(DONE[decision])}. That was the last one here.`);
  show();
}

async function undo() {
  const state = await ask("undo", { reviewer });
  const undone = candidates.find((each) => each.id === state.candidate?.id);
  take(state);
  if (undone) {
    current = undone.id;
    if (undone.own?.note) draft("note", undone.own.note);
    choose();
    if (!visible.includes(current)) { filter = $("filter").value = "all"; choose(); }
    say(state.candidate.own ? `Undone: ${DONE[state.candidate.own.decision]} again.` : "Undone: open again.");
  }
  show();
}

function take(state) {
  if (state.candidate) {
    candidates[candidates.findIndex((each) => each.id === state.candidate.id)] = state.candidate;
    delete drafts[state.candidate.id];
    keepDrafts();
  }
  summarise(state);
}

/* ---- what is shown ---- */

function fits(candidate) {
  if (filter === "undecided") return !candidate.own;
  if (filter === "disagreeing") return candidate.own && candidate.others.some((other) => other.decision !== candidate.own.decision);
  return filter === "all" || filter === "category:" + candidate.category;
}

function choose() {
  const before = visible.indexOf(current);
  visible = candidates.filter(fits).map((each) => each.id);
  if (!visible.includes(current)) current = visible[Math.max(0, Math.min(before, visible.length - 1))] || "";
}

function show() {
  const candidate = candidates.find((each) => each.id === current);
  address.search = new URLSearchParams({ reviewer, filter });
  address.hash = encodeURIComponent(current);
  history.replaceState(null, "", address);
  $("work").hidden = !candidate;
  $("empty").hidden = Boolean(candidate);
  if (!candidate) return;
  const place = visible.indexOf(current);
  $("place").textContent = `${place + 1} of ${visible.length}`;
  $("previous").disabled = place <= 0;
  $("next").disabled = place >= visible.length - 1;
  for (const part of ["query", "target", "caption"]) $(part).textContent = candidate[part];
  $("category").textContent = candidate.category_label;
  showImage(candidate, visible[place + 1]);
  $("verdicts").replaceChildren(...candidate.verdicts.map(verdict));
  showDecision(candidate);
  closeEditor();
  if (drafts[current]?.text !== undefined) openEditor(candidate);
}

function showImage(candidate, following) {
  const source = "images/" + encodeURIComponent(candidate.id);
  const image = $("image");
  if (image.getAttribute("src") !== source) {
    image.hidden = false;
    $("no-image").hidden = true;
    image.src = source;
  }
  image.alt = candidate.caption || "no caption";
  if (following) new Image().src = "images/" + encodeURIComponent(following);
}

function verdict({ check, passed, why }) {
  const line = element("li");
  const text = element("span", CHECKS[check] ? CHECKS[check][passed ? 0 : 1] : check.replaceAll("_", " "));
  const outcome = element("span", passed ? "passed: " : "failed: ");
  outcome.className = "skip";
  text.prepend(outcome);
  if (why) text.append(Object.assign(element("span", ` – ${why}`), { className: "why" }));
  if (!passed) line.className = "failed";
  line.append(text);
  return line;
}

function showDecision(candidate) {
  const own = candidate.own;
  $("own").hidden = !own;
  $("own").textContent = own ? DONE[own.decision] : "";
  $("own").className = "tag " + (own ? own.decision : "");
  $("decided").hidden = !own || own.query === candidate.query;
  $("decided").textContent = own ? `Your wording: ${own.query}` : "";
  for (const choice of Object.keys(DONE)) $(choice).setAttribute("aria-pressed", String(own?.decision === choice));
  $("note").value = drafts[current]?.note ?? own?.note ?? "";
  const others = $("others");
  if (!own) others.replaceChildren("The others' decisions appear once you have made yours.");
  else if (!candidate.others.length) others.replaceChildren("Nobody else has decided this one yet.");
  else others.replaceChildren(list(candidate.others.map((other) => otherLine(other, candidate))));
}

function otherLine(other, candidate) {
  const line = element("li");
  const wording = other.query === candidate.query ? "" : `: ${other.query}`;
  line.append(element("b", other.reviewer), ` ${DONE[other.decision]}${wording}${other.note ? ` (${other.note})` : ""}`);
  return line;
}

function summarise({ progress, agreement }) {
  const done = candidates.filter((each) => each.own).length;
  $("bar").max = candidates.length || 1;
  $("bar").value = done;
  $("count").textContent = `${done} of ${candidates.length} decided`;
  $("progress").replaceChildren(...Object.entries(progress).map(([name, count]) => element("li", `${name}: ${count} of ${candidates.length}`)));
  $("no-rows").hidden = agreement.length > 0;
  $("rows").replaceChildren(...agreement.map((row) => {
    const line = element("tr");
    const observed = row.observed === null ? "–" : `${Math.round(100 * row.observed)} %`;
    const kappa = row.kappa === null ? "–" : `${row.kappa.toFixed(2).replace("-", "−")} (${row.statistic.split("'")[0]})`;
    line.append(...[row.reviewers.join(", "), row.items, observed, kappa].map((text) => element("td", text)));
    return line;
  }));
}

/* ---- editing ---- */

function openEditor(candidate) {
  $("editor").hidden = false;
  $("text").value = drafts[current]?.text ?? candidate.own?.query ?? candidate.query;
  $("text").focus();
  hint();
}

function closeEditor() {
  $("editor").hidden = true;
  $("hint").textContent = "";
  if (document.activeElement === $("text")) $("work").focus();
}

function leaveEditor() {
  if (drafts[current]) delete drafts[current].text;
  keepDrafts();
  closeEditor();
  $("edit").focus();
}

function hint() {
  clearTimeout(hintTimer);
  hintTimer = setTimeout(async () => {
    const asked = { candidate: current, query: $("text").value };
    const answer = await ask("leaks?" + new URLSearchParams(asked)).catch(() => null);
    if (!answer || $("editor").hidden || asked.candidate !== current || asked.query !== $("text").value) return;
    const found = answer.leaks.map(({ word, reason }) => `“${word}” (${reason})`).join(", ");
    $("hint").className = found ? "leaks" : "";
    $("hint").textContent = found ? `Gives the target away: ${found}` : answer.checked ? "Does not name the target." : answer.why;
  }, 250);
}

function keepDrafts() {
  sessionStorage.setItem("drafts", JSON.stringify(drafts));
}

function draft(part, value) {
  drafts[current] = { ...drafts[current], [part]: value };
  keepDrafts();
}

/* ---- small things ---- */

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function list(lines) {
  const made = element("ul");
  made.append(...lines);
  return made;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function say(text, seen = true) {
  clearTimeout(restSaid);
  $("said").className = seen ? "" : "skip"; // read out, not shown
  $("said").textContent = text;
  restSaid = setTimeout(() => { $("said").textContent = ""; }, 4000);
}

function move(step) {
  const place = visible.indexOf(current) + step;
  if (place < 0 || place >= visible.length) return say(step < 0 ? "This is the first." : "This is the last.");
  current = visible[place];
  show();
  say(`${place + 1} of ${visible.length}: ${$("query").textContent}`, false);
}

function askName() {
  $("reviewer").value = reviewer;
  $("name").showModal();
}

function edit() {
  openEditor(candidates.find((each) => each.id === current));
}

async function openAgreement() {
  await load();
  $("agreement").showModal();
}

/* ---- keys and buttons ---- */

const KEYS = {
  a: () => attempt(() => decide("accept")), e: () => attempt(edit), r: () => attempt(() => decide("reject")), u: () => attempt(undo),
  n: () => $("note").focus(), "?": () => $("help").showModal(),
  ArrowLeft: () => attempt(() => move(-1)), ArrowRight: () => attempt(() => move(1)),
};
const ON_A_CANDIDATE = new Set(["a", "e", "r", "n"]);

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select");
  if (event.target === $("note") && (event.key === "Enter" || event.key === "Escape")) return $("work").focus();
  if (typing || event.repeat && !event.key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!Object.hasOwn(KEYS, key) || (ON_A_CANDIDATE.has(key) && !current)) return;
  event.preventDefault();
  KEYS[key]();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Escape") leaveEditor();
  if (event.key === "Enter" && !event.isComposing) {
    event.preventDefault();
    $("editor").requestSubmit();
  }
});
$("text").addEventListener("input", () => { draft("text", $("text").value); hint(); });
$("note").addEventListener("input", () => draft("note", $("note").value));
$("editor").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => decide("edit", $("text").value));
});
$("cancel").addEventListener("click", leaveEditor);
$("image").addEventListener("error", () => { $("image").hidden = true; $("no-image").hidden = false; });
$("filter").addEventListener("change", () => {
  attempt(() => { filter = $("filter").value; choose(); show(); });
  $("filter").blur();
});
$("name").querySelector("form").addEventListener("submit", () => {
  reviewer = $("reviewer").value.trim();
  for (const each of Object.keys(drafts)) delete drafts[each];
  keepDrafts();
  attempt(load);
});
for (const [id, action] of Object.entries({
  accept: KEYS.a, edit: KEYS.e, reject: KEYS.r, undo: KEYS.u, previous: KEYS.ArrowLeft, next: KEYS.ArrowRight, who: askName, "show-help": KEYS["?"],
  "show-agreement": () => attempt(openAgreement),
})) $(id).addEventListener("click", action);
document.addEventListener("visibilitychange", () => { if (!document.hidden && $("editor").hidden && reviewer) attempt(load); });

attempt(load);
