// A job's page: its panels in the order of the job file, and its picture.

import { node } from "./format.js";
import { makePanel } from "./panels.js";

export class Job {
  constructor(settings, changed) {
    this.panels = settings.panels.map((panel) => {
      const made = makePanel(panel, () => {
        made.changed = true;
        changed();
      });
      made.changed = true;
      return made;
    });
    // By topic: the panels that read it, and the most that one of them wants.
    this.readers = new Map();
    this.wants = new Map();
    for (const panel of this.panels) {
      for (const [topic, rows] of panel.wants) {
        this.readers.set(topic, [...(this.readers.get(topic) ?? []), panel]);
        this.wants.set(topic, Math.max(rows, this.wants.get(topic) ?? 0));
      }
    }
    const figures = this.panels.filter((_, index) => settings.panels[index].kind === "figure");
    const others = this.panels.filter((panel) => !figures.includes(panel));
    const tiles = node("section", { class: "tiles", "aria-label": "At a glance" }, ...figures.map(({ element }) => element));
    tiles.style.setProperty("--tiles", String(figures.length));
    const picture = node("img", { src: settings.graph, alt: `The steps of the job ${settings.job}, from its sources to its sinks` });
    const graph = node("section", { class: "panel graph", "aria-label": "The job" },
      node("div", { class: "head" }, node("h2", {}, "The job"), node("span", { class: "quiet" }, settings.topics.join(" · "))),
      node("div", { class: "picture", tabindex: "0", role: "region", "aria-label": "Picture of the job" }, picture));
    this.elements = [...(figures.length ? [tiles] : []), ...others.map(({ element }) => element), graph];
  }

  clear() {
    for (const panel of this.panels) {
      panel.clear();
      panel.changed = true;
    }
  }

  take(record) {
    for (const panel of this.readers.get(record.topic) ?? []) {
      panel.take(record);
      panel.changed = true;
    }
  }

  draw() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    for (const panel of this.panels) {
      if (panel.changed || dark !== this.dark) panel.draw();
      panel.changed = false;
    }
    this.dark = dark;
  }

  stop() {
    for (const panel of this.panels) panel.stop?.();
  }
}
