// A panel: its title, description and links, and its body in one of four states: loading, drawn, empty, error.
import { make, link } from "./elements.js";
import { heatmap } from "./heatmap.js";
import { unknownIn } from "./known.js";
import { address } from "./links.js";
import { load } from "./series.js";
import { bargauge, stat } from "./stat.js";
import { table } from "./table.js";
import { timeseries } from "./timeseries.js";

const KINDS = { timeseries, stat, table, heatmap, bargauge };

export class Panel {
  #panel; #body = make("div", { className: "body" }); #note = make("p", { className: "unknown" }); #links = make("span", { className: "links" });
  #end = () => {}; #asked = null; #series = null; #around = null;

  constructor(panel) {
    this.#panel = panel;
    const id = `panel-${panel.id}`, title = make("h3", { id, textContent: panel.title || panel.type });
    const about = make("p", { className: "about", textContent: panel.description || "" });
    const head = make("div", { className: "head" }, title, this.#links);
    this.element = make("section", { className: "panel" }, head, about, this.#body, this.#note);
    if (panel.type in KINDS) this.element.classList.add(panel.type);
    this.element.setAttribute("aria-labelledby", id);
    this.element.dataset.state = "loading";
    about.title = panel.description || "";
    const { x = 0, w = 24, h = 8 } = panel.gridPos ?? {};
    for (const [name, value] of Object.entries({ x: x + 1, w, h })) this.element.style.setProperty(`--${name}`, value);
    const unknown = panel.type in KINDS ? unknownIn(panel) : [];
    if (unknown.length) this.#note.textContent = `This page does not know: ${unknown.join(", ")}`;
  }

  // Asks anew and draws. `around`: {variables, window, parameters, dashboard}.
  async refresh(around) {
    this.#asked?.abort();
    if (!(this.#panel.type in KINDS)) return this.#say("error", `This page does not know panels of type ${this.#panel.type}`);
    const asked = (this.#asked = new AbortController());
    try {
      const series = await load(this.#panel, around.variables, around.window, asked.signal);
      if (asked === this.#asked) { [this.#series, this.#around] = [series, around]; this.draw(); }
    } catch (error) {
      if (asked === this.#asked && error.name !== "AbortError") { this.#series = null; this.#say("error", error.message); }
    }
  }

  // Draws what was asked last; in other colours, after the ground has changed.
  draw() {
    if (!this.#series) return;
    const { noValue } = this.#panel.fieldConfig?.defaults ?? {};
    if (!this.#series.some(one => one.values.some(value => value !== null))) { this.#say("empty", noValue || "No data"); return; }
    const focused = this.#focusable().indexOf(document.activeElement);
    const scrolled = this.#body.querySelector(".legend, .scroll, .stats, .gauges")?.scrollTop ?? 0;
    this.#clear();
    this.#links.replaceChildren(...(this.#panel.links ?? []).map(one => link(one.title, address(one.url, this.#around), one.targetBlank)));
    this.element.dataset.state = "drawn";
    this.#end = KINDS[this.#panel.type](this.#body, this.#panel, this.#series, this.#around);
    this.#body.lastElementChild.scrollTop = scrolled;
    this.#focusable()[focused]?.focus({ preventScroll: true });
  }

  #focusable() {
    return [...this.#body.querySelectorAll("a, [tabindex]")];
  }

  #clear() {
    this.#end();
    this.#end = () => {};
    this.#body.replaceChildren();
  }

  #say(state, text) {
    this.#clear();
    this.element.dataset.state = state;
    this.#body.append(make("p", { className: "says", role: "status", textContent: text }));
  }
}
