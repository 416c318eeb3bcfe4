// The newest rows of a topic as a table; its columns are those of the rows.
//
// A column whose values are all numbers stands right. A row opens (click, Enter) to all that it holds.

import { SHORT, colourOf, facts, figure, gist, isTime, node, reconcile, said, stamp, text, unfold } from "./format.js";

// A topic whose records all differ would otherwise have a column for each name.
const MAX_COLUMNS = 60;

export class RowTable {
  // `columns`: which, or all; `time` writes a record's time; `labels`: those whose words get a colour; `keep` rows are searched, `show` shown.
  constructor({ columns = [], labels = [], keep = 2000, show = 100, time = stamp }) {
    Object.assign(this, { fixed: columns, labels: new Set(labels), keep, show, time });
    this.head = node("tr", {});
    this.body = node("tbody", {});
    this.element = node("table", { class: "rows" }, node("thead", {}, this.head), this.body);
    this.clear();
  }

  clear() {
    this.records = [];
    this.opened = new Set();
    // By column: how many numbers, and how many other values.
    this.columns = new Map(this.fixed.map((name) => [name, { numbers: 0, others: 0 }]));
    this.drawn = "";
  }

  take(record) {
    this.records.push(record);
    if (this.records.length > this.keep * 2) this.records.splice(0, this.records.length - this.keep);
    for (const [name, value] of Object.entries(record.row)) {
      let column = this.columns.get(name);
      if (!column && this.fixed.length === 0 && this.columns.size < MAX_COLUMNS) this.columns.set(name, (column = { numbers: 0, others: 0 }));
      if (!column || value === null) continue;
      if (typeof value === "number") column.numbers++;
      else column.others++;
    }
  }

  isNumber(name) {
    const { numbers, others } = this.columns.get(name) ?? { numbers: 0, others: 0 };
    return numbers > 0 && others === 0;
  }

  numbers() {
    return [...this.columns.keys()].filter((name) => this.isNumber(name));
  }

  // The newest rows that contain the text, the newest first; how many there are.
  draw(filter = "") {
    const wanted = filter.trim().toLowerCase();
    const held = this.records.slice(-this.keep);
    const found = wanted ? held.filter((record) => (record.said ??= `${text(record.key)} ${stamp(record.at)} ${JSON.stringify(record.row)}`.toLowerCase()).includes(wanted)) : held;
    const names = [...this.columns.keys()];
    const shape = names.map((name) => `${name}${this.isNumber(name) ? "#" : ""}`).join();
    if (shape !== this.drawn) {
      this.drawn = shape;
      this.body.replaceChildren();
      this.head.replaceChildren(node("th", { scope: "col" }, "time"), ...names.map((name) => node("th", { scope: "col", class: this.isNumber(name) ? "num" : undefined }, said(name))));
    }
    this.filter = filter;
    const shown = found.slice(-this.show).reverse();
    const entries = shown.flatMap((record) => (this.opened.has(record.id) ? [record, { id: `${record.id}+`, whole: record }] : [record]));
    reconcile(this.body, entries, (entry) => (entry.whole ? this.whole(entry.whole, names.length + 1) : this.line(entry, names)));
    return { found: found.length, held: held.length };
  }

  line(record, names) {
    const button = node("button", { type: "button", class: "open", "aria-expanded": String(this.opened.has(record.id)), title: "All of this record" }, Number.isFinite(record.at) ? this.time(record.at) : "no time");
    button.addEventListener("click", () => {
      const opens = !this.opened.delete(record.id);
      if (opens) this.opened.add(record.id);
      button.setAttribute("aria-expanded", String(opens));
      this.draw(this.filter);
    });
    return node("tr", {}, node("td", { class: "time" }, button), ...names.map((name) => this.cell(name, record.row[name])));
  }

  whole(record, width) {
    const { partition, offset, key } = record;
    const where = key === undefined ? { partition, offset } : { partition, offset, key };
    return node("tr", { class: "whole" }, node("td", { colspan: width }, facts({ ...record.row, record: where })));
  }

  cell(name, value) {
    if (value === null || value === undefined) return node("td", { class: "quiet" }, "");
    if (typeof value === "number") return node("td", { class: this.isNumber(name) ? "num" : undefined, title: String(value) }, figure(value));
    if (isTime(value)) return node("td", { class: "time" }, stamp(Date.parse(value)));
    if (this.labels.has(name)) return node("td", {}, node("span", { class: `label ${colourOf(text(value))}` }, said(value)));
    const known = unfold(value);
    if (typeof known === "object") return node("td", { class: "nested", title: JSON.stringify(known, null, 1).slice(0, 2000) }, gist(known));
    return node("td", { class: text(value).length > 48 ? "long" : undefined }, text(value));
  }
}

// A table among the panels of a page.
export class TablePanel {
  constructor(settings) {
    this.table = new RowTable({ columns: settings.columns, labels: settings.labels, keep: 400, show: settings.rows, time: (ms) => SHORT.format(ms) });
    this.empty = node("p", { class: "empty" }, "Nothing yet.");
    this.element = node("div", { class: "list", tabindex: "0", role: "region", "aria-label": settings.title }, this.table.element, this.empty);
    this.note = "newest first";
  }

  clear() {
    this.table.clear();
  }

  take(record) {
    this.table.take(record);
  }

  draw() {
    this.empty.hidden = this.table.draw().found > 0;
  }
}

