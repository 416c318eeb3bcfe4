"use strict";
// The page: one connection, a bounded model, and a drawing of it at most ten times a second.
//
//   EventSource ──► Connection ──► Model (bounded maps and lists) ──► views, each only when it changed
//
// A replay sends tens of thousands of events a second: an event only changes the model, and whatever was
// overtaken before the next drawing is never drawn. The cursor of the last event is kept, so that the page
// comes back, or resumes after a pause, exactly where it was.

const config = JSON.parse(document.getElementById("config").textContent);
const $ = (id) => document.getElementById(id);
const DRAW_EVERY_MS = 100;
const KEEP = { decisions: 300, open: 500, closed: 20, anomalies: 120 };
const SHOW = { decisions: 60, open: 40, closed: 12, anomalies: 60 };
const utc = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
const TIME = utc({ weekday: "short", day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
const SHORT = utc({ day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit" });
const DAY = utc({ day: "numeric", month: "short" });
const COUNT = new Intl.NumberFormat("en-GB");

function node(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const text = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));
// Null counts as missing, and not as 0.
const number = (value) => (value === null || value === undefined || value === "" ? NaN : Number(value));
const short = (value) => (Number.isFinite(value) ? (Math.abs(value) >= 100 ? COUNT.format(Math.round(value)) : String(+value.toFixed(1))) : "–");
const when = (value) => (typeof value === "number" ? value : Date.parse(value));

// JSON is nested, or stands in a text where a column was computed.
function unfold(value) {
  if (typeof value !== "string" || !/^[[{]/.test(value)) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

// A word always has the same colour.
function colourOf(word) {
  let hash = 7;
  for (const char of word) hash = (hash * 31 + char.codePointAt(0)) % 9973;
  return `c${hash % 6}`;
}

const said = (word) => text(word).replaceAll("_", " ");

// ---- the model -------------------------------------------------------------------------------

class Model {
  constructor(chart) {
    this.chart = chart;
    this.clear();
  }

  clear() {
    this.decisions = [];
    this.open = new Map();
    this.closed = [];
    this.anomalies = [];
    this.incidents = 0;
    // By role, the offset of the next record of every partition: how many there have ever been.
    this.ends = new Map(Object.keys(TAKES).map((role) => [role, new Map()]));
    this.clock = -Infinity;
    this.changed = new Set(["decisions", "incidents", "anomalies", "delays"]);
    this.chart.clear();
  }

  take(role, { value, time, partition, offset }) {
    if (value === null || typeof value !== "object") return;
    const at = [value.at, value.window_end, time].map(when).find(Number.isFinite) ?? NaN;
    if (at > this.clock) this.clock = at;
    this.changed.add(role === "forecasts" ? "delays" : role);
    this.ends.get(role).set(partition, offset + 1);
    TAKES[role](this, { ...value, at, id: `${partition}-${offset}` });
  }

  count(role) {
    return [...this.ends.get(role).values()].reduce((sum, end) => sum + end, 0);
  }

  static keep(list, most) {
    if (list.length > most * 2) list.splice(0, list.length - most);
  }

  static dropOldest(map, most) {
    if (map.size > most) map.delete(map.keys().next().value);
  }

  delays(row) {
    const avg = number(row.delay_avg);
    this.chart.row(text(row.origin), {
      t: [row.window_start, row.at].map(when).find(Number.isFinite),
      avg: Number.isFinite(avg) ? avg : null,
      cancelled: number(row.cancelled) || 0,
      flights: number(row.flights),
    });
  }

  forecasts(row) {
    this.chart.forecast(text(row.origin), { t: Math.floor(row.at / 3600000) * 3600000, value: number(row.delay), disrupted: number(row.disrupted) });
  }

  anomaly(row) {
    this.anomalies.push(row);
    Model.keep(this.anomalies, KEEP.anomalies);
  }

  decision(row) {
    this.decisions.push(row);
    Model.keep(this.decisions, KEEP.decisions);
  }

  incident(row) {
    const name = text(row.incident);
    const known = this.open.has(name);
    this.open.delete(name);
    if (row.kind === "closed") {
      this.closed.push(row);
      Model.keep(this.closed, KEEP.closed);
    } else if (row.kind !== "merged") {
      if (!known && row.kind === "opened") this.incidents++;
      this.open.set(name, row);
      Model.dropOldest(this.open, KEEP.open);
    }
  }
}

// What a topic's records do to the model.
const TAKES = {
  decisions: (model, row) => model.decision(row),
  incidents: (model, row) => model.incident(row),
  anomalies: (model, row) => model.anomaly(row),
  delays: (model, row) => model.delays(row),
  forecasts: (model, row) => model.forecasts(row),
};

// ---- the connection --------------------------------------------------------------------------

class Connection {
  constructor(roles, onevent, oncontrol, onstate) {
    Object.assign(this, { roles, onevent, oncontrol, onstate });
    this.cursor = null;
    this.attempt = 0;
    this.source = null;
    this.timer = null;
  }

  open(from) {
    this.stop();
    const topics = Object.values(config.topics);
    const query = new URLSearchParams({
      topics: topics.map(({ topic }) => topic).join(","),
      from: from ?? topics.map(({ from }) => from).join(","),
      wait: "true",
    });
    if (this.cursor && !from) query.set("cursor", this.cursor);
    this.onstate("connecting", "connecting");
    const source = new EventSource(`/v1/events?${query}`);
    this.source = source;
    source.onopen = () => {
      this.attempt = 0;
      this.onstate("live", "live");
    };
    source.onmessage = (message) => {
      this.cursor = message.lastEventId;
      const record = JSON.parse(message.data);
      const role = this.roles.get(record.topic);
      if (role) this.onevent(role, record);
    };
    source.addEventListener("control", (message) => {
      this.cursor = message.lastEventId;
      this.oncontrol(JSON.parse(message.data));
    });
    // The browser would come back by itself, but would not say when.
    source.onerror = () => this.again();
  }

  again() {
    this.stop();
    let left = Math.min(15, 2 ** this.attempt++);
    const tick = () => {
      if (left <= 0) return this.open();
      this.onstate("reconnecting", `reconnecting in ${left--} s`);
      this.timer = setTimeout(tick, 1000);
    };
    tick();
  }

  stop() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }
}

// ---- the views -------------------------------------------------------------------------------

// Makes the children of `parent` the elements of these rows, keeping those that are there already, so
// that what somebody has opened or focused stays.
function reconcile(parent, rows, make) {
  const known = new Map([...parent.children].map((child) => [child.dataset.id, child]));
  let place = parent.firstChild;
  for (const row of rows) {
    const id = row.viewId ?? row.id;
    let child = known.get(id);
    known.delete(id);
    if (!child) {
      child = make(row);
      child.dataset.id = id;
    }
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of known.values()) child.remove();
}

function facts(title, value) {
  const known = unfold(value);
  if (known === null || known === undefined || known === "") return [];
  const pairs = typeof known === "object" && !Array.isArray(known) ? Object.entries(known) : [[title, known]];
  return [
    ...(title ? [node("dt", { class: "part" }, title)] : []),
    ...pairs.flatMap(([name, each]) => [node("dt", {}, said(name)), node("dd", {}, typeof each === "number" ? String(+each.toFixed(3)) : text(each))]),
  ];
}

function makeDecision(row) {
  const parameters = unfold(row.parameters);
  const gist = parameters && typeof parameters === "object" ? Object.entries(parameters).map(([name, value]) => `${said(name)} ${typeof value === "number" ? short(value) : text(value)}`).join(" · ") : text(parameters);
  const action = text(row.action) || "decision";
  const about = { id: row.decision_id, policy: row.policy, priority: row.priority, reason: row.reason };
  return node("li", {},
    node("details", {},
      node("summary", {},
        node("span", { class: `label ${colourOf(action)}` }, said(action)),
        node("span", { class: "place" }, text(row.origin)),
        node("time", { class: "quiet" }, Number.isFinite(row.at) ? SHORT.format(row.at) : ""),
        node("p", { class: "why" }, [gist, text(row.reason)].filter(Boolean).join(" — "))),
      node("dl", {},
        ...facts("Decision", Object.fromEntries(Object.entries(about).filter(([, value]) => value !== undefined && value !== null))),
        ...facts("Parameters", row.parameters),
        ...facts("Inputs", row.inputs))));
}

// The most frequent values of a counted column, however they were written.
function mostFrequent(value) {
  const known = unfold(value);
  const pairs = Array.isArray(known) ? known.map((each) => (Array.isArray(each) ? each : each && typeof each === "object" ? [each.value ?? each.name ?? each.key, each.count] : [each])) : known && typeof known === "object" ? Object.entries(known) : [];
  return pairs.slice(0, 4).map(([name, count]) => (count === undefined ? text(name) : `${text(name)} ${short(Number(count))}`));
}

function severityGrade(severity) {
  return severity >= 150 ? ["high", "severe"] : severity >= 40 ? ["mid", "serious"] : ["low", "minor"];
}

function makeIncident(row) {
  const severity = number(row.severity) || 0;
  const [grade, word] = severityGrade(severity);
  const tops = Object.entries(row).filter(([name]) => name.endsWith("_top")).map(([name, value]) => [name.slice(0, -4), mostFrequent(value)]).filter(([, values]) => values.length);
  const begun = [row.first_at, row.at].map(when).find(Number.isFinite);
  const last = [row.last_at, row.at].map(when).find(Number.isFinite);
  const hours = (last - begun) / 3600000;
  const bar = node("i", {});
  bar.style.width = `${Math.min(100, Math.max(3, Math.sqrt(severity / 600) * 100))}%`;
  const reasons = unfold(row.reasons);
  const why = Array.isArray(reasons) ? mostFrequent(reasons).join(", ") : reasons && typeof reasons === "object" ? Object.keys(reasons).join(", ") : text(reasons);
  const head = node("div", { class: "row" },
    node("span", { class: `grade` }, short(severity)), node("span", { class: "quiet" }, word),
    node("span", { class: "tag" }, `${COUNT.format(number(row.events) || 0)} events`),
    node("time", { class: "quiet" }, Number.isFinite(begun) ? `${SHORT.format(begun)}${hours >= 1 ? `, ${hours.toFixed(0)} h` : ""}` : ""));
  if (row.kind === "closed") return node("li", { class: "incident" }, head);
  return node("li", { class: "incident" }, head,
    node("div", { class: `meter ${grade}` }, bar),
    node("p", { class: "quiet" }, [why, ...tops.map(([name, values]) => `${said(name)} ${values.join(", ")}`)].filter(Boolean).join("  ·  ")));
}

function makeAnomaly(row) {
  const above = row.direction ? /^(high|up|above|increase)/.test(text(row.direction)) : number(row.value) > number(row.expected);
  return node("tr", {},
    node("td", {}, node("time", { class: "quiet" }, Number.isFinite(row.at) ? SHORT.format(row.at) : "")),
    node("td", { class: "place" }, text(row.origin)),
    node("td", {}, node("span", { class: `label ${colourOf(text(row.detector))}` }, said(row.detector))),
    node("td", { class: `num ${above ? "up" : "down"}` }, `${above ? "▲" : "▼"} ${short(number(row.value))}`),
    node("td", { class: "num" }, short(number(row.expected))),
    node("td", { class: "num" }, short(number(row.score))));
}

const VIEWS = {
  decisions(model) {
    const rows = model.decisions.slice(-SHOW.decisions).reverse();
    reconcile($("decisions"), rows, makeDecision);
    $("e-decisions").hidden = rows.length > 0;
    $("n-decisions").textContent = COUNT.format(model.count("decisions"));
    $("t-decisions").textContent = rows[0] ? `last: ${said(rows[0].action)} ${text(rows[0].origin)}` : "none yet";
  },
  incidents(model) {
    const open = [...model.open.values()].sort((one, other) => (number(other.severity) || 0) - (number(one.severity) || 0));
    reconcile($("open"), open.slice(0, SHOW.open).map((row) => ({ ...row, viewId: `${row.incident}@${row.id}` })), makeIncident);
    const closed = model.closed.slice(-SHOW.closed).reverse();
    reconcile($("closed"), closed, makeIncident);
    $("e-incidents").hidden = open.length > 0;
    $("h-closed").hidden = closed.length === 0;
    $("n-incidents").textContent = COUNT.format(open.length);
    $("t-incidents").textContent = open[0] ? `worst: severity ${short(number(open[0].severity))}, ${COUNT.format(number(open[0].events) || 0)} events` : `${COUNT.format(model.incidents)} seen`;
  },
  anomalies(model) {
    const rows = model.anomalies.slice(-SHOW.anomalies).reverse();
    reconcile($("anomalies"), rows, makeAnomaly);
    $("e-anomalies").hidden = rows.length > 0;
    $("n-anomalies").textContent = COUNT.format(model.count("anomalies"));
    $("t-anomalies").textContent = rows[0] ? `last: ${text(rows[0].origin)}, ${said(rows[0].detector)}` : "none yet";
  },
  delays(model) {
    const { chart } = model;
    chart.draw();
    const since = chart.newest - 86400000;
    let [sum, flights, cancelled, all] = [0, 0, 0, 0];
    for (const { rows } of chart.series.values()) {
      for (let index = rows.length - 1; index >= 0 && rows[index].t > since; index--) {
        const row = rows[index];
        cancelled += row.cancelled;
        all += row.flights || 0;
        if (row.t === chart.newest && row.avg !== null) {
          const weight = row.flights || 1;
          [sum, flights] = [sum + row.avg * weight, flights + weight];
        }
      }
    }
    if (!Number.isFinite(chart.newest)) return;
    $("n-delay").textContent = flights ? `${(sum / flights).toFixed(0)} min` : "–";
    $("t-delay").textContent = flights ? `${COUNT.format(flights)} flights` : "no departures";
    $("n-cancelled").textContent = COUNT.format(cancelled);
    $("t-cancelled").textContent = all ? `of ${COUNT.format(all)} flights, ${((cancelled / all) * 100).toFixed(1)} %` : "";
  },
};

// How many events a second, over the last two, and the last half minute as a line.
class Rate {
  constructor(canvas) {
    this.canvas = canvas;
    this.count = 0;
    this.past = [];
    this.at = performance.now();
  }

  tick(now) {
    if (now - this.at < 500) return;
    this.past.push((this.count * 1000) / (now - this.at));
    if (this.past.length > 60) this.past.shift();
    [this.count, this.at] = [0, now];
    const recent = this.past.slice(-4);
    $("rate").textContent = COUNT.format(Math.round(recent.reduce((sum, each) => sum + each, 0) / recent.length));
    const pen = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    const most = Math.max(1, ...this.past);
    pen.clearRect(0, 0, width, height);
    pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    pen.lineWidth = 1.5;
    pen.beginPath();
    this.past.forEach((each, index) => pen.lineTo(width - (this.past.length - 1 - index) * (width / 59), height - 2 - (each / most) * (height - 4)));
    pen.stroke();
  }
}

// ---- all of it together ----------------------------------------------------------------------

const chart = new DelayChart($("chart"), $("tip"), config.series, config.window_days);
const model = new Model(chart);
const rate = new Rate($("spark"));
const roles = new Map(Object.entries(config.topics).map(([role, { topic }]) => [topic, role]));
let paused = false;
let waiting = 0;
chart.onlook = () => model.changed.add("delays");

const connection = new Connection(
  roles,
  (role, record) => {
    rate.count++;
    model.take(role, record);
  },
  (control) => {
    if (control.kind === "failed") return say("A topic cannot be read any more; trying again.");
    const jumps = control.jumps ?? [];
    if (jumps.length === 0) return;
    // A cursor beyond the end: these are other topics than those that the page has shown.
    if (jumps.some((jump) => jump.wanted > jump.next)) model.clear();
    say(`Not resumed exactly: ${jumps[0].topic}, ${jumps[0].reason}`);
  },
  (kind, words) => {
    $("state").className = `state ${kind}`;
    $("state").lastElementChild.textContent = words;
  },
);

function say(words) {
  $("note").textContent = words;
}

function pause() {
  paused = true;
  connection.stop();
  connection.onstate("paused", "paused");
  $("pause").textContent = "Resume";
  $("skip").hidden = false;
  countWaiting();
}

function resume(from) {
  paused = false;
  $("pause").textContent = "Pause";
  $("skip").hidden = true;
  if (from === "end" && waiting > 0) say(`Skipped ${COUNT.format(waiting)} events.`);
  else if (waiting > 0) say(`Caught up ${COUNT.format(waiting)} events.`);
  waiting = 0;
  connection.open(from);
}

// While paused: how far the topics have gone since.
async function countWaiting() {
  if (!paused || !connection.cursor) return;
  try {
    const { topics } = await (await fetch("/v1/topics")).json();
    const ends = new Map(topics.flatMap(({ name, partitions }) => partitions.map(({ partition, next }) => [`${name}:${partition}`, next])));
    waiting = 0;
    for (const part of connection.cursor.split(";")) {
      const [topic, places] = part.split(":");
      for (const place of places.split(",").filter(Boolean)) {
        const [partition, offset] = place.split("=");
        waiting += Math.max(0, (ends.get(`${topic}:${partition}`) ?? 0) - Number(offset));
      }
    }
    if (paused) connection.onstate("paused", waiting ? `paused, ${COUNT.format(waiting)} waiting` : "paused");
  } catch {
    // The gateway is away; the next look may find it.
  }
  if (paused) setTimeout(countWaiting, 2000);
}

$("pause").addEventListener("click", () => (paused ? resume() : pause()));
$("skip").addEventListener("click", () => resume("end"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => model.changed.add("delays"));

let drawn = -Infinity;
function frame(now) {
  requestAnimationFrame(frame);
  rate.tick(now);
  if (now - drawn < DRAW_EVERY_MS || model.changed.size === 0) return;
  drawn = now;
  const changed = model.changed;
  model.changed = new Set();
  if (Number.isFinite(model.clock)) {
    $("clock").textContent = `${TIME.format(model.clock)} UTC`;
    $("clock").dateTime = new Date(model.clock).toISOString();
  }
  for (const view of changed) VIEWS[view](model);
}

async function showJob() {
  try {
    const { jobs } = await (await fetch("/v1/jobs")).json();
    const job = jobs.find(({ name }) => name === config.job) ?? jobs[0];
    $("job").textContent = job?.name ?? "levada";
    document.title = job ? `${job.name} · levada` : "levada";
    if (!job) return;
    $("graph-note").textContent = job.topics.join(" · ");
    const picture = node("img", { src: job.graph, alt: `The steps of the job ${job.name}, from its sources to its sinks` });
    $("graph").querySelector(".picture").replaceChildren(picture);
    $("graph").hidden = false;
  } catch {
    // The events matter more than the picture.
  }
}

requestAnimationFrame(frame);
connection.open();
showJob();
