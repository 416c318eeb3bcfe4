// How values read: numbers, times, JSON in a text, words; and elements made of them.

const utc = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
export const TIME = utc({ weekday: "short", day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
export const SHORT = utc({ day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit" });
export const DAY = utc({ day: "numeric", month: "short" });
export const COUNT = new Intl.NumberFormat("en-GB");
const FEW = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 4, useGrouping: false });

export const $ = (id) => document.getElementById(id);

export function node(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export const text = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));
// Null counts as missing, and not as 0.
export const number = (value) => (value === null || value === undefined || value === "" || typeof value === "boolean" ? NaN : Number(value));
export const short = (value) => (Number.isFinite(value) ? (Math.abs(value) >= 100 ? COUNT.format(Math.round(value)) : String(+value.toFixed(1))) : "–");
export const plural = (count, word) => `${COUNT.format(count)} ${word}${count === 1 ? "" : "s"}`;

// A number as it stands in a table: whole, or with four digits that count.
export function figure(value) {
  if (Number.isInteger(value)) return Math.abs(value) >= 10000 ? COUNT.format(value) : String(value);
  return Math.abs(value) >= 1000 ? COUNT.format(Math.round(value)) : FEW.format(value);
}

const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)$/;
export const isTime = (value) => typeof value === "string" && INSTANT.test(value);
export const when = (value) => (typeof value === "number" ? value : isTime(value) ? Date.parse(value) : NaN);

// 2013-01-01 10:17, with what is there of seconds; a window's row stands a millisecond before its end.
export function stamp(ms) {
  if (!Number.isFinite(ms) || Math.abs(ms) > 8e15) return "";
  const [day, time] = new Date(ms).toISOString().slice(0, -1).split("T");
  return `${day} ${time.replace(/(:00)?\.000$|\.999$/, "")}`;
}

// Some columns hold JSON in a text.
export function unfold(value) {
  if (typeof value !== "string" || !/^[[{]/.test(value)) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

// A word always has the same colour.
export function colourOf(word) {
  let hash = 7;
  for (const char of word) hash = (hash * 31 + char.codePointAt(0)) % 9973;
  return `c${hash % 6}`;
}

export const said = (word) => text(word).replaceAll("_", " ");

// A value on one line: `airport JFK · delay 45`, `ORD 9, BOS 3`.
export function gist(value) {
  const known = unfold(value);
  if (known === null || known === undefined) return "";
  if (typeof known === "number") return figure(known);
  if (isTime(known)) return stamp(Date.parse(known));
  if (Array.isArray(known)) {
    const shown = known.slice(0, 6).map((each) => (Array.isArray(each) ? each.map(gist).join(" ") : gist(each)));
    return shown.join(", ") + (known.length > 6 ? ", …" : "");
  }
  if (typeof known === "object") return Object.entries(known).map(([name, each]) => `${said(name)} ${gist(each)}`).join(" · ");
  return text(known);
}

// `{column}` in a text becomes the row's value; a part between · or — whose columns are all empty is left out.
export function fill(template, row) {
  const parts = template.split(/ (·|—) /);
  let out = "";
  for (let index = 0; index < parts.length; index += 2) {
    let [asked, found] = [0, 0];
    const part = parts[index].replace(/\{([^{}]*)\}/g, (_, name) => {
      const value = said(gist(row[name]));
      [asked, found] = [asked + 1, found + (value !== "" ? 1 : 0)];
      return value;
    });
    if (asked === 0 || found > 0) out += (out ? ` ${parts[index - 1] ?? "·"} ` : "") + part;
  }
  return out;
}

// All of a row, with what is nested taken apart.
export function facts(row) {
  const list = [];
  for (const [name, value] of Object.entries(row)) {
    const known = unfold(value);
    if (known === null || known === undefined || known === "") continue;
    if (typeof known === "object" && !Array.isArray(known)) {
      list.push(node("dt", { class: "part" }, said(name)));
      for (const [inner, each] of Object.entries(known)) list.push(node("dt", {}, said(inner)), node("dd", {}, typeof each === "number" ? String(+each.toFixed(3)) : gist(each)));
    } else list.push(node("dt", {}, said(name)), node("dd", {}, typeof known === "number" ? String(known) : gist(known)));
  }
  return node("dl", {}, ...list);
}

// Makes the children of `parent` the elements of these entries, keeping those that are there already, so that
// what somebody has opened or focused stays.
export function reconcile(parent, entries, make) {
  const known = new Map([...parent.children].map((child) => [child.dataset.id, child]));
  let place = parent.firstChild;
  for (const entry of entries) {
    let child = known.get(entry.id);
    known.delete(entry.id);
    if (!child) {
      child = make(entry);
      child.dataset.id = entry.id;
    }
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of known.values()) child.remove();
}

// A line of past values, the newest at the right.
export function spark(canvas, past, room) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth || 96, canvas.clientHeight || 24];
  if (canvas.width !== Math.round(width * ratio)) [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const pen = canvas.getContext("2d");
  const most = Math.max(1e-9, ...past);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.strokeStyle = getComputedStyle(canvas).getPropertyValue("--accent");
  pen.lineWidth = 1.5;
  pen.beginPath();
  past.forEach((each, index) => pen.lineTo(width - (past.length - 1 - index) * (width / (room - 1)), height - 2 - (each / most) * (height - 4)));
  pen.stroke();
}
