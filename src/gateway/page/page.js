// The page: one connection, a view with bounded state, and a drawing of it at most ten times a second.
//
//   #/topics[/NAME]  Explore                ┐
//   #/jobs/NAME      Job: panels, picture   ┴─ take(record), draw()  ◄── Connection ◄── /v1/events
//
// A replay sends tens of thousands of events a second: an event only changes a view, and whatever was
// overtaken before the next drawing is never drawn. What the panels are, each job's `[page]` says.

import { Connection, asRow } from "./connection.js";
import { Explore, Topics } from "./explore.js";
import { $, COUNT, TIME, node, spark } from "./format.js";
import { Job } from "./job.js";

const DRAW_EVERY_MS = 100;

const state = { view: null, topics: null, connection: null, clock: -Infinity, changed: false, paused: false, waiting: 0 };
const changed = () => (state.changed = true);

// ---- the stream ------------------------------------------------------------------------------

function connect(view) {
  state.connection?.stop();
  state.connection = new Connection(view.wants, {
    onrecord(record) {
      rate.count++;
      const row = asRow(record);
      if (row.at > state.clock) state.clock = row.at;
      view.take(row);
      changed();
    },
    oncontrol(control) {
      if (control.kind === "failed") return say("A topic cannot be read any more; trying again.");
      const jumps = control.jumps ?? [];
      if (jumps.length === 0) return;
      // A cursor beyond the end: these are other topics than those that the page has shown.
      if (jumps.some((jump) => jump.wanted > jump.next)) {
        view.clear();
        state.clock = -Infinity;
      }
      say(`Not resumed exactly: ${jumps[0].topic}, ${jumps[0].reason}`);
    },
    onstate: showState,
  });
  state.connection.open();
}

function showState(kind, words) {
  $("state").className = `state ${kind}`;
  $("state").lastElementChild.textContent = words;
}

function say(words) {
  $("note").textContent = words;
}

function pause() {
  state.paused = true;
  state.connection.stop();
  showState("paused", "paused");
  $("pause").textContent = "Resume";
  $("skip").hidden = false;
  countWaiting();
}

function unpause() {
  [state.paused, state.waiting] = [false, 0];
  $("pause").textContent = "Pause";
  $("skip").hidden = true;
}

function resume(skip) {
  const { waiting } = state;
  unpause();
  if (waiting > 0) say(skip ? `Skipped ${COUNT.format(waiting)} events.` : `Caught up ${COUNT.format(waiting)} events.`);
  state.connection.open(skip);
}

// While paused: how far the topics have gone since.
async function countWaiting() {
  if (!state.paused) return;
  try {
    state.waiting = await state.connection.behind();
    if (state.paused) showState("paused", state.waiting ? `paused, ${COUNT.format(state.waiting)} waiting` : "paused");
  } catch {
    // The gateway is away; the next look may find it.
  }
  if (state.paused) setTimeout(countWaiting, 2000);
}

// ---- the views -------------------------------------------------------------------------------

let jobs = [];

function show(view, title, about) {
  state.view?.stop();
  unpause();
  Object.assign(state, { view, clock: -Infinity });
  say("");
  $("title").textContent = title;
  $("about").textContent = about;
  document.title = title === "levada" ? title : `${title} · levada`;
  for (const link of $("views").children) {
    if (location.hash.startsWith(link.hash) || (link.hash === "#/topics" && view instanceof Explore)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  connect(view);
  changed();
}

function showJob(settings) {
  state.topics?.stop();
  state.topics = null;
  const view = new Job(settings, changed);
  $("main").className = "";
  $("main").replaceChildren(...view.elements);
  show(view, settings.title, settings.description ?? "");
}

function showTopic(name) {
  if (!state.topics) {
    state.topics = new Topics((held) => {
      // Without a choice: the first topic that holds anything.
      const first = [...held.values()].find(({ records }) => records > 0) ?? held.values().next().value;
      if (!(state.view instanceof Explore) && first) explore(first.name);
    });
    state.view?.stop();
    state.view = null;
    $("main").className = "topics";
    $("main").replaceChildren(state.topics.element);
  }
  if (name) explore(name);
}

function explore(name) {
  const view = new Explore(name, changed);
  $("main").replaceChildren(state.topics.element, view.element);
  state.topics.choose(name);
  show(view, name, "a topic, record by record");
}

function route() {
  // A place on the page, such as that of its content.
  if (state.view && location.hash && !location.hash.startsWith("#/")) return;
  const [, kind, name] = location.hash.split("/").map(decodeURIComponent);
  const job = jobs.find((each) => each.job === name);
  if (kind === "jobs" && job) return showJob(job);
  if (kind === "topics" || jobs.length === 0) return showTopic(name);
  history.replaceState(null, "", `#/jobs/${encodeURIComponent(jobs[0].job)}`);
  return showJob(jobs[0]);
}

async function begin() {
  try {
    jobs = (await (await fetch("/v1/pages")).json()).pages;
  } catch {
    return setTimeout(begin, 1000);
  }
  const links = jobs.map(({ job }) => node("a", { href: `#/jobs/${encodeURIComponent(job)}` }, job));
  $("views").replaceChildren(...links, node("a", { href: "#/topics" }, "topics"));
  route();
}

// ---- the drawing -----------------------------------------------------------------------------

// How many events a second, over the last two, and the last half minute as a line.
const rate = { count: 0, past: [], at: performance.now() };

function tick(now) {
  if (now - rate.at < 500) return;
  rate.past.push((rate.count * 1000) / (now - rate.at));
  if (rate.past.length > 60) rate.past.shift();
  [rate.count, rate.at] = [0, now];
  const recent = rate.past.slice(-4);
  $("rate").textContent = COUNT.format(Math.round(recent.reduce((sum, each) => sum + each, 0) / recent.length));
  spark($("spark"), rate.past, 60);
}

let drawn = -Infinity;
function frame(now) {
  requestAnimationFrame(frame);
  tick(now);
  if (now - drawn < DRAW_EVERY_MS || !state.changed || !state.view) return;
  [drawn, state.changed] = [now, false];
  const known = Number.isFinite(state.clock);
  $("clock").textContent = known ? `${TIME.format(state.clock)} UTC` : "–";
  if (known) $("clock").dateTime = new Date(state.clock).toISOString();
  state.view.draw();
}

$("pause").addEventListener("click", () => (state.paused ? resume(false) : pause()));
$("skip").addEventListener("click", () => resume(true));
addEventListener("hashchange", route);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
requestAnimationFrame(frame);
begin();
