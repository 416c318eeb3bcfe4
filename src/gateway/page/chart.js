"use strict";
// The delay chart: one small chart for each series, the same axes, on one canvas.
//
// In: rows (time, average, cancelled, flights) and forecasts (time, value), in any order. Out: pixels, and
// what lies under the pointer or the arrow keys. Rows older than the window leave, so memory is bounded, and
// a drawing costs a few hundred line segments whatever the rate of events.

class Series {
  constructor(name) {
    this.name = name;
    this.rows = [];
    this.forecasts = [];
  }

  // Rows come nearly always in order: the search from the end is one step.
  static put(rows, row) {
    let at = rows.length;
    while (at > 0 && rows[at - 1].t > row.t) at--;
    if (at > 0 && rows[at - 1].t === row.t) rows[at - 1] = row;
    else rows.splice(at, 0, row);
  }

  // In bulk: taking one off the front of a long array each time would cost more than the drawing.
  static forget(rows, before) {
    if (rows.length > 64 && rows[32].t < before) rows.splice(0, rows.findIndex((row) => row.t >= before));
    if (rows.length > 4000) rows.splice(0, rows.length - 4000);
  }
}

class DelayChart {
  constructor(canvas, tip, names, days) {
    this.canvas = canvas;
    this.tip = tip;
    this.span = days * 86400000;
    this.series = new Map(names.map((name) => [name, new Series(name)]));
    this.newest = -Infinity;
    this.hover = null;
    this.size = { width: 0, height: 0 };
    this.onlook = () => {};
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.onlook()).observe(canvas);
  }

  clear() {
    for (const name of this.series.keys()) this.series.set(name, new Series(name));
    this.newest = -Infinity;
  }

  of(name) {
    let series = this.series.get(name);
    if (!series && this.series.size < 6) this.series.set(name, (series = new Series(name)));
    return series;
  }

  row(name, row) {
    const series = this.of(name);
    if (!series || !Number.isFinite(row.t)) return;
    Series.put(series.rows, row);
    this.newest = Math.max(this.newest, row.t);
    Series.forget(series.rows, this.newest - this.span - 86400000);
  }

  forecast(name, row) {
    const series = this.of(name);
    if (!series || !Number.isFinite(row.t) || !Number.isFinite(row.value)) return;
    Series.put(series.forecasts, row);
    Series.forget(series.forecasts, this.newest - this.span - 86400000);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !Number.isFinite(this.newest)) return;
    event.preventDefault();
    const hour = 3600000;
    const from = this.hover === null ? this.newest + (step < 0 ? hour : 0) : this.hover;
    this.hover = Math.min(this.newest, Math.max(this.newest - this.span, from + step * hour));
    this.onlook();
  }

  point(x) {
    if (x === null) this.hover = null;
    else {
      const { left, width } = this.frame();
      const share = Math.min(1, Math.max(0, (x - left) / width));
      this.hover = Math.round((this.start() + share * this.span) / 3600000) * 3600000;
    }
    this.onlook();
  }

  start() {
    return (Number.isFinite(this.newest) ? this.newest : 0) - this.span;
  }

  frame() {
    return { left: 40, width: this.size.width - 40 - 12 };
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const box = canvas.getBoundingClientRect();
    if (box.width < 80) return;
    const [w, h] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    this.size = { width: box.width, height: box.height };
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, box.width, box.height);
    pen.font = "12px ui-sans-serif, system-ui, sans-serif";

    const { left, width } = this.frame();
    const [start, end] = [this.start(), this.start() + this.span];
    const x = (t) => left + ((t - start) / this.span) * width;
    const visible = [...this.series.values()].map((series) => ({
      name: series.name,
      rows: series.rows.filter((row) => row.t >= start),
      forecasts: series.forecasts.filter((row) => row.t >= start && row.t <= end),
    }));
    let [low, high, most] = [0, 30, 5];
    for (const { rows, forecasts } of visible) {
      for (const row of rows) {
        if (row.avg !== null) [low, high] = [Math.min(low, row.avg), Math.max(high, row.avg)];
        most = Math.max(most, row.cancelled);
      }
      for (const row of forecasts) high = Math.max(high, row.value);
    }
    const step = [10, 20, 30, 50, 60, 100, 120, 200, 300, 600].find((each) => (high - low) / each <= 4) || 1200;
    low = low < -2 ? Math.max(low, -step) : 0;
    high = Math.ceil(high / step) * step;

    const bottom = 22;
    const each = (box.height - bottom) / Math.max(1, visible.length);
    visible.forEach((series, index) => {
      const [top, floor] = [index * each + 22, (index + 1) * each - 6];
      const y = (value) => floor - ((Math.max(low, value) - low) / (high - low)) * (floor - top);
      pen.textBaseline = "middle";
      pen.textAlign = "right";
      pen.lineWidth = 1;
      for (let value = 0; value <= high; value += step) {
        pen.strokeStyle = colour("grid");
        pen.beginPath();
        pen.moveTo(left, Math.round(y(value)) + 0.5);
        pen.lineTo(left + width, Math.round(y(value)) + 0.5);
        pen.stroke();
        pen.fillStyle = colour("quiet");
        pen.fillText(String(value), left - 8, y(value));
      }
      this.bars(pen, series.rows, { x, floor: y(0), height: (y(0) - top) * 0.85, most, wide: width / (this.span / 3600000) }, colour("bar"));
      this.line(pen, series.rows.map((row) => [row.t, row.avg]), x, y, colour("avg"), [], 1.6, 3);
      this.line(pen, series.forecasts.map((row) => [row.t, row.value]), x, y, colour("forecast"), [5, 4], 1.5, 3);
      pen.textAlign = "left";
      pen.textBaseline = "alphabetic";
      pen.fillStyle = colour("ink");
      pen.font = "650 13px ui-sans-serif, system-ui, sans-serif";
      pen.fillText(series.name, left, top - 8);
      pen.font = "12px ui-sans-serif, system-ui, sans-serif";
      const last = series.rows.at(-1);
      if (last && last.avg !== null) {
        pen.fillStyle = colour("quiet");
        pen.fillText(`${last.avg.toFixed(0)} min now`, left + 38, top - 8);
      }
    });
    this.days(pen, x, start, end, box.height, colour);
    this.look(pen, x, visible, box, colour);
    this.describe(visible);
  }

  bars(pen, rows, { x, floor, height, most, wide }, fill) {
    pen.fillStyle = fill;
    const thick = Math.max(1.5, wide * 0.8);
    for (const row of rows) {
      if (row.cancelled > 0) {
        const tall = Math.max(2, (row.cancelled / most) * height);
        pen.fillRect(x(row.t) - thick / 2, floor - tall, thick, tall);
      }
    }
  }

  // A line breaks where rows are missing for longer than `hours`: the night is no flight.
  line(pen, points, x, y, colour, dash, thick, hours) {
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.lineJoin = "round";
    pen.setLineDash(dash);
    pen.beginPath();
    let last = null;
    for (const [t, value] of points) {
      if (value === null) continue;
      if (last !== null && t - last <= hours * 3600000) pen.lineTo(x(t), y(value));
      else pen.moveTo(x(t), y(value));
      last = t;
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  days(pen, x, start, end, height, colour) {
    if (!Number.isFinite(this.newest)) return;
    pen.fillStyle = colour("quiet");
    pen.textBaseline = "alphabetic";
    pen.textAlign = "left";
    const day = 86400000;
    const room = Math.ceil(58 / (x(day) - x(0)));
    for (let t = Math.ceil(start / day) * day; t <= end; t += day) {
      if (Math.round(t / day) % room) continue;
      pen.fillRect(x(t), height - 20, 1, 5);
      if (x(t) < this.size.width - 50) pen.fillText(DAY.format(t), x(t) + 4, height - 6);
    }
  }

  look(pen, x, visible, box, colour) {
    this.tip.hidden = this.hover === null || !Number.isFinite(this.newest);
    if (this.tip.hidden) return;
    const near = (rows) => rows.find((row) => Math.abs(row.t - this.hover) < 1800000);
    pen.strokeStyle = colour("quiet");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x(this.hover), 0);
    pen.lineTo(x(this.hover), box.height - 20);
    pen.stroke();
    const whole = (value) => (Number.isFinite(value) ? value.toFixed(0) : "–");
    const rows = visible.map(({ name, rows, forecasts }) => {
      const [row, forecast] = [near(rows), near(forecasts)];
      return node("tr", {}, node("th", { scope: "row" }, name),
        ...[row?.avg, forecast?.value, row?.cancelled, row?.flights].map((value) => node("td", {}, whole(value))));
    });
    const head = ["", "average", "forecast", "cancelled", "flights"].map((text) => node("th", {}, text));
    this.tip.replaceChildren(node("b", {}, TIME.format(this.hover)),
      node("table", {}, node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...rows)));
    const at = x(this.hover);
    const wide = this.tip.offsetWidth;
    this.tip.style.left = `${at + 14 + wide > box.width ? at - wide - 14 : at + 14}px`;
  }

  describe(visible) {
    const now = Date.now();
    if (now - (this.described || 0) < 3000) return;
    this.described = now;
    const parts = visible.map(({ name, rows }) => {
      const last = rows.at(-1);
      return last && last.avg !== null ? `${name} ${last.avg.toFixed(0)} minutes, ${last.cancelled} cancelled` : `${name} no data`;
    });
    this.canvas.setAttribute("aria-label", `Average departure delay in the last hour: ${parts.join("; ")}. Arrow keys read single hours.`);
  }
}
