// A chart over event time: one small chart for each series, the same axes, on one canvas.
//
// In: points (series, time, values of the lines, a bar) and points of a second, dashed line, in any order.
// Out: pixels, and what lies under the pointer or the arrow keys. Points older than the span leave, so memory
// is bounded, and a drawing costs a few hundred line segments whatever the rate of events.

import { DAY, TIME, figure, node, said } from "./format.js";
import { look } from "./tip.js";

const MINUTE = 60000;
const HOUR = 60 * MINUTE;
const DAYS = 24 * HOUR;
const STEPS = [1000, 5000, 15000, 30000, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAYS, 2 * DAYS, 7 * DAYS, 14 * DAYS, 30 * DAYS, 91 * DAYS, 365 * DAYS];
const MAX_SERIES = 8;
const MAX_COUNTED = 9999;
const MAX_POINTS = 4000;
const COLOURS = ["avg", "forecast", "third", "fourth"];
const FONT = "12px ui-sans-serif, system-ui, sans-serif";

export class Chart {
  // `lines` and `bar` are names of columns; `also` is the name of the dashed line; `span` milliseconds, or all.
  constructor({ lines, bar, also, span, unit }) {
    Object.assign(this, { lines, bar, also, span, unit: unit ? ` ${unit}` : "" });
    this.canvas = node("canvas", { class: "chart", tabindex: "0", role: "img", "aria-label": "No data yet" });
    this.tip = node("div", { class: "tip" });
    this.tip.hidden = true;
    this.element = node("div", { class: "plot" }, this.canvas, this.tip);
    this.unseen = node("li", { class: "unseen" });
    this.unseen.hidden = true;
    this.onlook = () => {};
    this.hover = null;
    this.width = 0;
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("blur", () => this.point(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.observer = new ResizeObserver(() => this.onlook());
    this.observer.observe(this.canvas);
    this.clear();
  }

  clear() {
    this.series = new Map();
    this.others = new Map();
    [this.newest, this.oldest] = [-Infinity, Infinity];
  }

  legend() {
    const entry = (name, colour, kind) => {
      const mark = node("i", { class: kind, "aria-hidden": "true" });
      mark.style.setProperty("--mark", `var(--${colour})`);
      return node("li", {}, mark, said(name) + (kind === "bar" ? "" : this.unit && `,${this.unit}`));
    };
    const lines = this.lines.map((name, index) => entry(name, COLOURS[index % COLOURS.length], "line"));
    const also = this.also ? [entry(this.also, "forecast", "dash")] : [];
    const bar = this.bar ? [entry(this.bar, "bar", "bar")] : [];
    return node("ul", { class: "legend", "aria-label": "Legend" }, ...lines, ...also, ...bar, this.unseen);
  }

  of(name) {
    let series = this.series.get(name);
    if (!series && this.series.size < MAX_SERIES) this.series.set(name, (series = { name, points: [], also: [] }));
    return series;
  }

  // A point: `values` of the lines in their order, and the bar's.
  put(name, t, values, bar) {
    this.add(name, "points", { t, values, bar });
  }

  putAlso(name, t, value) {
    this.add(name, "also", { t, values: [value] });
  }

  // Points come nearly always in order: the search from the end is one step.
  add(name, which, point) {
    if (!Number.isFinite(point.t)) return;
    const series = this.of(name);
    if (!series) {
      if (this.others.has(name) || this.others.size < MAX_COUNTED) this.others.set(name, Math.max(point.t, this.others.get(name) ?? -Infinity));
      return;
    }
    const points = series[which];
    let at = points.length;
    while (at > 0 && points[at - 1].t > point.t) at--;
    points.splice(at, 0, point);
    if (which === "points") [this.newest, this.oldest] = [Math.max(this.newest, point.t), Math.min(this.oldest, point.t)];
    // In bulk: taking one off the front of a long array each time would cost more than the drawing.
    if (points.length > MAX_POINTS * 1.5) points.splice(0, points.length - MAX_POINTS);
    if (this.span && points.length > 64 && points[32].t < this.newest - this.span * 1.1) points.splice(0, points.findIndex(({ t }) => t >= this.newest - this.span * 1.05));
  }

  range() {
    const end = Number.isFinite(this.newest) ? this.newest : 0;
    const start = this.span ? end - this.span : Math.min(this.oldest, end);
    return start < end ? [start, end] : [end - MINUTE, end];
  }

  frame() {
    return { left: 48, width: Math.max(1, this.width - 48 - 12) };
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !Number.isFinite(this.newest)) return;
    event.preventDefault();
    const times = this.times();
    const at = this.hover === null ? times.length - (step < 0 ? 0 : 1) : times.indexOf(this.hover);
    this.hover = times[Math.min(times.length - 1, Math.max(0, at + step))] ?? null;
    this.onlook();
  }

  point(x) {
    this.hover = null;
    if (x !== null) {
      const { left, width } = this.frame();
      const [start, end] = this.range();
      const wanted = start + Math.min(1, Math.max(0, (x - left) / width)) * (end - start);
      for (const t of this.times()) if (this.hover === null || Math.abs(t - wanted) < Math.abs(this.hover - wanted)) this.hover = t;
    }
    this.onlook();
  }

  // The times that are shown, each once, in order.
  times() {
    const [start, end] = this.range();
    const all = [...this.series.values()].flatMap(({ points }) => points.map(({ t }) => t));
    return [...new Set(all)].filter((t) => t >= start && t <= end).sort((one, other) => one - other);
  }

  draw() {
    const box = this.canvas.getBoundingClientRect();
    if (box.width < 80) return;
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) [this.canvas.width, this.canvas.height] = [wide, high];
    this.width = box.width;
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, box.width, box.height);
    pen.font = FONT;

    const { left, width } = this.frame();
    const [start, end] = this.range();
    const x = (t) => left + ((t - start) / (end - start)) * width;
    const inside = (points) => points.filter(({ t }) => t >= start && t <= end);
    const visible = [...this.series.values()].sort((one, other) => (one.name < other.name ? -1 : 1)).map(({ name, points, also }) => ({ name, points: inside(points), also: inside(also) }));
    const scale = this.scale(visible);
    const each = (box.height - 22) / Math.max(1, visible.length);
    visible.forEach((series, index) => this.band(pen, series, { top: index * each + 22, floor: (index + 1) * each - 6, x, left, width, scale, alone: visible.length === 1 }, colour));
    this.axis(pen, x, start, end, box.height, colour);
    look(this, pen, x, visible, box, colour);
    // What has not come for longer than is shown would not be drawn either.
    for (const [name, t] of this.others) if (t < start) this.others.delete(name);
    this.unseen.hidden = this.others.size === 0;
    this.unseen.textContent = this.more();
    this.describe(visible);
  }

  // What is not drawn for want of room, in words.
  more() {
    return `${this.series.size} of ${this.series.size + this.others.size}${this.others.size < MAX_COUNTED ? "" : " or more"} shown`;
  }

  // The values from the lowest to the highest, in steps that read well, and the highest bar.
  scale(visible) {
    let [low, high, most] = [0, 0, 1];
    for (const { points, also } of visible) {
      for (const { values, bar } of [...points, ...also]) {
        for (const value of values) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
        if (Number.isFinite(bar)) most = Math.max(most, bar);
      }
    }
    const rough = Math.max(1e-9, high - low) / (visible.length > 2 ? 3 : 4);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    // A little below nothing is no reason for another line of the grid.
    low = low < -step * 0.2 ? -Math.ceil(-low / step) * step : low;
    return { low, high: Math.max(step, Math.ceil(high / step) * step), step, most };
  }

  band(pen, { name, points, also }, { top, floor, x, left, width, scale, alone }, colour) {
    const { low, high, step, most } = scale;
    const y = (value) => floor - ((value - low) / (high - low)) * (floor - top);
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    pen.lineWidth = 1;
    for (let value = Math.ceil(low / step) * step; value <= high + step / 2; value += step) {
      pen.strokeStyle = colour("grid");
      pen.beginPath();
      pen.moveTo(left, Math.round(y(value)) + 0.5);
      pen.lineTo(left + width, Math.round(y(value)) + 0.5);
      pen.stroke();
      pen.fillStyle = colour("quiet");
      pen.fillText(figure(+value.toPrecision(6)), left - 8, y(value));
    }
    const usual = median(points);
    const gap = usual * 3.5;
    pen.fillStyle = colour("bar");
    const thick = Math.max(1.5, Math.min(24, (x(usual) - x(0)) * 0.8));
    for (const { t, bar } of points) {
      const tall = Math.max(2, (bar / most) * (y(0) - top) * 0.85);
      if (bar > 0) pen.fillRect(x(t) - thick / 2, y(0) - tall, thick, tall);
    }
    this.lines.forEach((_, index) => this.line(pen, points.map(({ t, values }) => [t, values[index]]), x, y, colour(COLOURS[index % COLOURS.length]), [], gap));
    this.line(pen, also.map(({ t, values }) => [t, values[0]]), x, y, colour("forecast"), [5, 4], median(also) * 3.5);
    if (alone && name === "") return;
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.fillStyle = colour("ink");
    pen.font = `650 13px ${FONT.slice(5)}`;
    pen.fillText(name || "–", left, top - 8);
    const after = pen.measureText(name || "–").width;
    pen.font = FONT;
    const last = points.at(-1)?.values[0];
    pen.fillStyle = colour("quiet");
    if (Number.isFinite(last)) pen.fillText(`${figure(+last.toPrecision(3))}${this.unit} now`, left + after + 10, top - 8);
  }

  // A line breaks where points are missing; where several share a time there are dots, and no line.
  line(pen, points, x, y, colour, dash, gap) {
    const known = points.filter(([, value]) => Number.isFinite(value));
    [pen.strokeStyle, pen.fillStyle, pen.lineWidth, pen.lineJoin] = [colour, colour, 1.6, "round"];
    if (known.some(([t], index) => index > 0 && t === known[index - 1][0]) || known.length === 1) {
      for (const [t, value] of known) pen.fillRect(x(t) - 1.5, y(value) - 1.5, 3, 3);
      return;
    }
    pen.setLineDash(dash);
    pen.beginPath();
    let last = -Infinity;
    for (const [t, value] of known) {
      if (t - last <= gap) pen.lineTo(x(t), y(value));
      else pen.moveTo(x(t), y(value));
      last = t;
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  axis(pen, x, start, end, height, colour) {
    if (!Number.isFinite(this.newest)) return;
    pen.fillStyle = colour("quiet");
    pen.textBaseline = "alphabetic";
    pen.textAlign = "left";
    const step = STEPS.find((each) => x(each) - x(0) >= 62) ?? STEPS.at(-1);
    for (let t = Math.ceil(start / step) * step; t <= end; t += step) {
      pen.fillRect(x(t), height - 20, 1, 5);
      const clock = new Date(t).toISOString().slice(11, step < MINUTE ? 19 : 16);
      if (x(t) < this.width - 50) pen.fillText(t % DAYS === 0 ? DAY.format(t) : clock, x(t) + 4, height - 6);
    }
  }

  // At most every three seconds, so that nobody is read to without end; what came meanwhile is said then.
  describe(visible) {
    this.latest = visible;
    const wait = (this.described ?? 0) + 3000 - Date.now();
    if (wait > 0) {
      this.due ??= setTimeout(() => this.describe(this.latest), wait);
      return;
    }
    clearTimeout(this.due);
    this.due = undefined;
    this.described = Date.now();
    const parts = visible.map(({ name, points }) => {
      const last = points.at(-1);
      const said = last?.values.map((value, index) => `${this.lines[index]} ${Number.isFinite(value) ? figure(value) : "unknown"}`).join(", ");
      return `${name} ${said ?? "no data"}`;
    });
    const until = Number.isFinite(this.newest) ? ` at ${TIME.format(this.newest)}` : "";
    this.canvas.setAttribute("aria-label", `The newest values${until}: ${parts.join("; ") || "none yet"}.${this.others.size ? ` ${this.more()}.` : ""} Arrow keys read single times.`);
  }
}

// The usual time between two points.
function median(points) {
  const steps = [];
  for (let index = 1; index < points.length; index++) if (points[index].t > points[index - 1].t) steps.push(points[index].t - points[index - 1].t);
  return steps.sort((one, other) => one - other)[Math.floor(steps.length / 2)] ?? MINUTE;
}
