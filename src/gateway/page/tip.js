// What a chart holds at the time under the pointer, or where the arrow keys went.

import { figure, node, said, stamp } from "./format.js";

export function look(chart, pen, x, visible, box, colour) {
  const { tip, hover } = chart;
  tip.hidden = hover === null || !Number.isFinite(chart.newest);
  if (tip.hidden) return;
  pen.strokeStyle = colour("quiet");
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x(hover), 0);
  pen.lineTo(x(hover), box.height - 20);
  pen.stroke();
  const shown = (value) => node("td", {}, Number.isFinite(value) ? figure(+value.toPrecision(4)) : "–");
  const rows = visible.map(({ name, points, also }) => {
    const at = points.find(({ t }) => t === hover);
    const cells = [...chart.lines.map((_, index) => at?.values[index]), ...(chart.also ? [nearest(also, hover)] : []), ...(chart.bar ? [at?.bar] : [])];
    return node("tr", {}, node("th", { scope: "row" }, name), ...cells.map(shown));
  });
  const heads = ["", ...chart.lines, ...(chart.also ? [chart.also] : []), ...(chart.bar ? [chart.bar] : [])];
  const head = node("thead", {}, node("tr", {}, ...heads.map((each) => node("th", {}, said(each)))));
  tip.replaceChildren(node("b", {}, `${stamp(hover)} UTC`), node("table", {}, head, node("tbody", {}, ...rows)));
  const [at, wide] = [x(hover), tip.offsetWidth];
  const left = at + 14 + wide > box.width ? at - wide - 14 : at + 14;
  tip.style.left = `${Math.max(0, left)}px`;
}

// The dashed line's last value at or before a time.
function nearest(points, t) {
  const after = points.findIndex((point) => point.t > t);
  return points.at(after === -1 ? -1 : Math.max(0, after - 1))?.values[0];
}
