// Rows of panels; those that are in sight are asked for.
import { make } from "./elements.js";
import { Panel } from "./panel.js";

export class Dashboard {
  #panels = new Map(); #stale = new Set(); #around = null;
  #sight = new IntersectionObserver(found => found.forEach(one => this.#seen(one)), { rootMargin: "200px" });

  constructor({ panels }) {
    this.elements = rows(panels).map(row => this.#row(row));
  }

  // Asks for the panels in sight now, and for the others once they come into sight.
  refresh(around) {
    this.#around = around;
    for (const one of this.#panels.values()) this.#stale.add(one);
    for (const one of this.#panels.values()) if (one.isSeen) this.#ask(one);
  }

  redraw() {
    for (const one of this.#panels.values()) one.draw();
  }

  #row({ title, collapsed, panels }) {
    const made = panels.map(panel => new Panel(panel));
    for (const one of made) { this.#panels.set(one.element, one); this.#sight.observe(one.element); }
    const grid = make("div", { className: "grid" }, ...made.map(one => one.element));
    if (title === undefined) return grid;
    return make("details", { className: "row", open: !collapsed }, make("summary", {}, make("h2", { textContent: title })), grid);
  }

  #seen({ target, isIntersecting }) {
    const one = this.#panels.get(target);
    one.isSeen = isIntersecting;
    if (isIntersecting && this.#stale.has(one)) this.#ask(one);
  }

  #ask(one) {
    this.#stale.delete(one);
    one.refresh(this.#around);
  }
}

// [{title, collapsed, panels}]: a row of Grafana has the panels after it, or within it where it is folded.
function rows(panels) {
  const found = [{ panels: [] }];
  for (const one of panels) {
    if (one.type === "row") found.push({ title: one.title, collapsed: one.collapsed, panels: [...(one.panels ?? [])] });
    else found.at(-1).panels.push(one);
  }
  return found.filter(row => row.panels.length);
}
