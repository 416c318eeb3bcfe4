// The topics that there are: how much each holds and how fast it grows; one of them, row by row.
//
// What it shows needs no settings: columns, their kinds and what a chart can draw are read off the rows.

import { Chart } from "./chart.js";
import { COUNT, node, number, plural, reconcile, said, spark, text, when } from "./format.js";
import { RowTable } from "./table.js";

const LOOK_EVERY_MS = 2000;
const PAST = 60;
const BEGIN_WITH = 1000;
const MAX_SERIES = 6;

// The list of topics, looked at every two seconds.
export class Topics {
  constructor(onlist) {
    this.onlist = onlist;
    this.held = new Map();
    this.list = node("ul", { class: "topics" });
    this.empty = node("p", { class: "empty" }, "There are no topics yet. They appear here once something writes them.");
    this.element = node("nav", { class: "panel side", "aria-label": "Topics" }, node("div", { class: "head" }, node("h2", {}, "Topics")), this.list, this.empty);
    this.stopped = false;
    this.look();
  }

  async look() {
    if (this.stopped) return;
    try {
      if (!document.hidden || this.held.size === 0) this.take((await (await fetch("/v1/topics")).json()).topics);
    } catch {
      // The gateway is away; the next look may find it.
    }
    this.timer = setTimeout(() => this.look(), LOOK_EVERY_MS);
  }

  take(topics) {
    const now = performance.now();
    const old = this.held;
    this.held = new Map();
    for (const { name, partitions } of topics) {
      const records = partitions.reduce((sum, { first, next }) => sum + next - first, 0);
      const ever = partitions.reduce((sum, { next }) => sum + next, 0);
      const known = old.get(name);
      const past = known?.past ?? [];
      if (known) past.push(Math.max(0, ((ever - known.ever) * 1000) / (now - known.at)));
      if (past.length > PAST) past.shift();
      this.held.set(name, { id: name, name, records, ever, at: now, past, partitions: partitions.length });
    }
    this.draw();
    this.onlist(this.held);
  }

  choose(name) {
    this.chosen = name;
    this.draw();
  }

  draw() {
    this.empty.hidden = this.held.size > 0;
    const topics = [...this.held.values()];
    reconcile(this.list, topics, ({ name }) => node("li", {}, node("a", { href: `#/topics/${encodeURIComponent(name)}` },
      node("span", { class: "name" }, name), node("span", { class: "count" }), node("canvas", { "aria-hidden": "true" }), node("span", { class: "quiet rate" }))));
    topics.forEach(({ name, records, past }, index) => {
      const link = this.list.children[index].firstChild;
      if (name === this.chosen) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      link.querySelector(".count").textContent = COUNT.format(records);
      const rate = past.at(-1) ?? 0;
      link.querySelector(".rate").textContent = rate > 0 ? `${rate < 10 ? rate.toFixed(1) : COUNT.format(Math.round(rate))} / s` : "quiet";
      spark(link.querySelector("canvas"), past, PAST);
    });
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }
}

// One topic: its newest rows, and a chart of one of their columns.
export class Explore {
  constructor(name, changed) {
    this.name = name;
    this.changed = changed;
    this.wants = new Map([[name, BEGIN_WITH]]);
    this.table = new RowTable({});
    this.filter = node("input", { type: "search", placeholder: "Filter rows", "aria-label": "Filter rows by text", spellcheck: "false" });
    this.filter.addEventListener("input", changed);
    const chooser = (label) => {
      const select = node("select", { "aria-label": label });
      select.addEventListener("change", () => {
        select.dataset.chosen = "true";
        this.plotted = null;
        changed();
      });
      return select;
    };
    [this.column, this.over, this.by] = [chooser("Column of the chart"), chooser("Time of the chart"), chooser("A line for each")];
    this.about = node("span", { class: "quiet" });
    this.plot = node("div", {});
    this.empty = node("p", { class: "empty" }, "No record yet.");
    const choice = (word, select) => node("label", { class: "choice" }, node("span", { class: "quiet" }, word), select);
    this.charted = node("section", { class: "panel charted", "aria-label": "Chart" }, node("div", { class: "head" }, choice("chart", this.column), choice("for each", this.by), choice("over", this.over)), this.plot);
    const json = node("a", { href: `/v1/topics/${encodeURIComponent(name)}/records` }, "JSON");
    const rows = node("section", { class: "panel listed", "aria-label": `Rows of ${name}` },
      node("div", { class: "head" }, node("div", {}, node("h2", {}, name), this.about), node("div", { class: "tools" }, this.filter, json)),
      node("div", { class: "list", tabindex: "0", role: "region", "aria-label": "Rows" }, this.table.element, this.empty));
    this.element = node("div", { class: "explore" }, this.charted, rows);
    this.clear();
  }

  clear() {
    this.table.clear();
    // By column, the different words in it, as long as they are few; and the columns that hold times.
    this.words = new Map();
    this.times = new Set();
    this.plotted = null;
  }

  take(record) {
    this.table.take(record);
    for (const [name, value] of Object.entries(record.row)) {
      if (typeof value !== "string") continue;
      if (Number.isFinite(when(value))) this.times.add(name);
      else this.word(name, value);
    }
    this.put(record);
  }

  word(name, value) {
    let words = this.words.get(name);
    if (!words) this.words.set(name, (words = new Set()));
    if (words.size <= MAX_SERIES) words.add(value);
  }

  put({ row, at }) {
    if (!this.plotted) return;
    const { chart, column, by, over } = this.plotted;
    chart.put(by ? text(row[by]) : "", over ? when(row[over]) : at, [number(row[column])], 0);
  }

  draw() {
    const { found, held } = this.table.draw(this.filter.value);
    this.empty.hidden = found > 0;
    this.empty.textContent = held ? "No row contains that." : "No record yet.";
    const shown = Math.min(found, this.table.show);
    this.about.textContent = this.filter.value ? `${plural(found, "row")} of the newest ${COUNT.format(held)}` : held ? `the newest ${COUNT.format(shown)}` : "";
    this.choose();
    this.plotted?.chart.draw();
  }

  // Offers what can be drawn, and draws what was chosen, or what most probably is meant.
  choose() {
    const numbers = this.table.numbers();
    const few = [...this.words].filter(([, words]) => words.size > 1 && words.size <= MAX_SERIES).map(([name]) => name);
    this.charted.hidden = numbers.length === 0;
    if (numbers.length === 0) return;
    const likely = numbers.find((name) => /avg|mean|p9\d|ms$|rate|value|score|count|errors|latency|amount/.test(name)) ?? numbers[0];
    offer(this.column, numbers.map((name) => [name, said(name)]), likely);
    offer(this.by, [["", "all rows"], ...few.map((name) => [name, said(name)])], few[0] ?? "");
    offer(this.over, [["", "record time"], ...[...this.times].map((name) => [name, said(name)])], "");
    const wanted = [this.column.value, this.by.value, this.over.value];
    if (this.plotted && wanted.join("\n") === this.plotted.wanted) return;
    this.plotted?.chart.observer.disconnect();
    const [column, by, over] = wanted;
    const chart = new Chart({ lines: [column], span: 0 });
    chart.onlook = this.changed;
    this.plotted = { chart, column, by, over, wanted: wanted.join("\n") };
    this.plot.replaceChildren(chart.element);
    for (const record of this.table.records) this.put(record);
  }

  stop() {
    this.plotted?.chart.observer.disconnect();
  }
}

// Fills a choice, and keeps what somebody has chosen.
function offer(select, options, likely) {
  const shape = options.map(([value]) => value).join("\n");
  if (select.dataset.shape === shape) return;
  const chosen = select.dataset.chosen && options.some(([value]) => value === select.value) ? select.value : likely;
  select.dataset.shape = shape;
  select.replaceChildren(...options.map(([value, words]) => node("option", { value }, words)));
  select.value = chosen;
}
