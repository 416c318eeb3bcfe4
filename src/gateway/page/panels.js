// The panels of a job's page, as `[page]` of the job file sets them: figure, chart, list; tables are RowTable's.
//
//   settings ──► panel: take(record) changes bounded state ──► draw() shows it, when it has changed
//
// The settings come from the gateway, which has checked them; durations are milliseconds.

import { Chart } from "./chart.js";
import { SHORT, COUNT, colourOf, facts, fill, gist, node, number, reconcile, said, short, text, when } from "./format.js";
import { TablePanel } from "./table.js";

const KEEP = { entries: 500, ended: 20, values: 20000 };

// The last record of each key, and those whose key has ended.
class Keyed {
  constructor({ key, ends }) {
    Object.assign(this, { key, ends: Object.entries(ends ?? {}), open: new Map(), ended: [], seen: 0 });
  }

  take(record) {
    const name = this.key ? text(record.row[this.key]) : record.id;
    const known = this.open.delete(name);
    if (!known) this.seen++;
    // Where the key stands again, an entry with another revision is another element.
    const entry = { ...record, id: this.key ? `${name}@${record.id}` : record.id };
    if (this.ends.some(([column, values]) => values.includes(text(record.row[column])))) {
      this.ended.push(entry);
      if (this.ended.length > KEEP.ended) this.ended.shift();
      return;
    }
    this.open.set(name, entry);
    if (this.open.size > KEEP.entries) this.open.delete(this.open.keys().next().value);
  }

  // The open ones: the greatest of a column first, or the newest.
  sorted(column) {
    const open = [...this.open.values()];
    const of = ({ row }) => number(row[column]) || 0;
    return column ? open.sort((one, other) => of(other) - of(one)) : open.reverse();
  }
}

class FigurePanel {
  constructor(settings) {
    this.settings = settings;
    this.value = node("p", { class: "figure" }, "–");
    this.about = node("p", { class: "quiet" }, "none yet");
    this.element = node("div", { class: "tile" }, node("p", { class: "quiet" }, settings.title), this.value, this.about);
    this.clear();
  }

  clear() {
    // By partition, the offset of the next record: how many there have ever been.
    this.ends = new Map();
    this.keyed = new Keyed(this.settings);
    this.values = [];
    this.newest = null;
  }

  take(record) {
    const { settings, values } = this;
    this.ends.set(record.partition, record.offset + 1);
    if (settings.key) this.keyed.take(record);
    if (settings.column) {
      values.push([record.at, number(record.row[settings.column]), number(record.row[settings.weight ?? settings.of])]);
      // Partitions come one behind the other: what is oldest by its own time goes.
      if (values.length > KEEP.values) values.sort((one, other) => one[0] - other[0]).splice(0, KEEP.values / 2);
    }
    if (!this.newest || !(record.at < this.newest.at)) this.newest = record;
  }

  draw() {
    const { settings, newest } = this;
    if (!newest) return;
    const unit = settings.unit ? ` ${settings.unit}` : "";
    let about = newest;
    if (settings.column) {
      const since = newest.at - (settings.within ?? Infinity);
      const held = this.values.filter(([at]) => !(at <= since));
      const known = held.filter(([, value]) => Number.isFinite(value));
      const value = measure(settings, known);
      this.value.textContent = Number.isFinite(value) ? `${short(Math.round(value * 10) / 10)}${unit}` : "–";
      if (settings.of) {
        const [part, whole] = [value, held.reduce((sum, [, , of]) => sum + (of || 0), 0)];
        this.about.textContent = `of ${COUNT.format(whole)} ${said(settings.of)}${whole ? `, ${((part / whole) * 100).toFixed(1)} %` : ""}`;
        return;
      }
    } else if (settings.key) {
      this.value.textContent = COUNT.format(this.keyed.open.size) + unit;
      about = this.keyed.sorted(settings.sort)[0];
      if (!about) return void (this.about.textContent = `${COUNT.format(this.keyed.seen)} seen`);
    } else this.value.textContent = COUNT.format([...this.ends.values()].reduce((sum, end) => sum + end, 0)) + unit;
    this.about.textContent = settings.note ? fill(settings.note, about.row) : Number.isFinite(newest.at) ? `last: ${SHORT.format(newest.at)}` : "";
  }
}

// The figure of some values, each with a weight.
function measure({ measure, weight }, values) {
  if (values.length === 0) return NaN;
  if (measure === "last") return values.reduce((last, each) => (each[0] < last[0] ? last : each))[1];
  if (measure === "max" || measure === "min") return values.reduce((best, [, value]) => Math[measure](best, value), values[0][1]);
  const weighs = (each) => (measure === "avg" && weight ? each[2] || 0 : 1);
  const sum = values.reduce((sum, each) => sum + each[1] * weighs(each), 0);
  return measure === "avg" ? sum / values.reduce((sum, each) => sum + weighs(each), 0) : sum;
}

class ChartPanel {
  constructor(settings, changed) {
    this.settings = settings;
    const { y, bars, also, span, unit } = settings;
    this.chart = new Chart({ lines: y, bar: bars, also: also && `${said(also.topic)} ${said(also.y)}`, span, unit });
    this.chart.onlook = changed;
    this.element = this.chart.element;
    this.legend = this.chart.legend();
  }

  clear() {
    this.chart.clear();
  }

  take({ topic, row, at }) {
    const { by, x, y, bars, also } = this.settings;
    const name = by ? text(row[by]) : "";
    const time = (column) => (column ? when(row[column]) : at);
    if (topic === this.settings.topic) this.chart.put(name, time(x), y.map((column) => number(row[column])), bars ? number(row[bars]) : 0);
    if (also && topic === also.topic) this.chart.putAlso(name, time(also.x), number(row[also.y]));
  }

  draw() {
    this.chart.draw();
  }

  stop() {
    this.chart.observer.disconnect();
  }
}

class ListPanel {
  constructor(settings) {
    this.settings = settings;
    this.open = node("ol", {});
    this.ended = node("ol", { class: "ended" });
    this.head = node("h3", {}, "Recently ended");
    this.empty = node("p", { class: "empty" }, "Nothing yet. Records appear here the moment they are there.");
    this.element = node("div", { class: "list", tabindex: "0", role: "region", "aria-label": settings.title }, this.open, this.empty, this.head, this.ended);
    this.note = settings.sort ? `${settings.key ? "open, " : ""}by ${said(settings.sort)}` : "newest first";
    this.clear();
  }

  clear() {
    this.keyed = new Keyed(this.settings);
  }

  take(record) {
    this.keyed.take(record);
  }

  draw() {
    const { rows, sort, meter } = this.settings;
    const open = this.keyed.sorted(sort).slice(0, rows);
    const most = meter ? Math.max(1e-9, ...open.map(({ row }) => number(row[meter]) || 0)) : 0;
    reconcile(this.open, open, (entry) => this.entry(entry, true));
    if (meter) open.forEach(({ row }, index) => grade(this.open.children[index], (number(row[meter]) || 0) / most));
    reconcile(this.ended, [...this.keyed.ended].reverse(), (entry) => this.entry(entry, false));
    this.empty.hidden = open.length > 0;
    if (this.keyed.seen > 0) this.empty.textContent = "None is open.";
    this.head.hidden = this.keyed.ended.length === 0;
  }

  entry({ row, at, id }, whole) {
    const { label, strong, text: words, meter } = this.settings;
    const bar = meter && whole ? [node("div", { class: "meter" }, node("i", {}))] : [];
    return node("li", {}, node("details", {}, node("summary", {},
      ...(label ? [node("span", { class: `label ${colourOf(text(row[label]))}` }, said(row[label]))] : []),
      node("span", { class: "place" }, strong ? gist(row[strong]) : ""),
      node("time", { class: "quiet" }, Number.isFinite(at) ? SHORT.format(at) : ""),
      ...bar,
      node("p", { class: "why" }, words ? fill(words, row) : gist(row))), facts(row)));
  }
}

// A bar as long as the share, in the colour of its grade.
function grade(entry, share) {
  const meter = entry?.querySelector(".meter");
  if (!meter) return;
  meter.className = `meter ${share > 0.66 ? "high" : share > 0.33 ? "mid" : "low"}`;
  meter.firstChild.style.width = `${Math.max(3, Math.sqrt(share) * 100)}%`;
}

const KINDS = { figure: FigurePanel, chart: ChartPanel, list: ListPanel, table: TablePanel };

// A panel in its frame, and how many records of each of its topics it wants to begin with.
export function makePanel(settings, changed) {
  const panel = new KINDS[settings.kind](settings, changed);
  const rows = { figure: settings.column || settings.key ? 5000 : 1, chart: settings.rows, list: settings.key ? 5000 : 200, table: 200 }[settings.kind];
  panel.wants = new Map([[settings.topic, rows], ...(settings.also ? [[settings.also.topic, rows]] : [])]);
  if (settings.kind === "figure") return panel;
  const note = panel.legend ?? node("span", { class: "quiet" }, panel.note ?? "");
  const head = node("div", { class: "head" }, node("h2", {}, settings.title), note);
  panel.element = node("section", { class: `panel ${settings.kind} wide${settings.width} high${settings.height}`, "aria-label": settings.title, "data-topic": settings.topic }, head, panel.element);
  return panel;
}

