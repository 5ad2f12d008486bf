// The choices at the top of a dashboard, and what they put into queries.
import { ask } from "./api.js";
import { make } from "./elements.js";
import { ofGrafana } from "./times.js";

const ALL = "$__all";
const NAME = /\$(?:\{(\w+)(?::(\w+))?\}|(\w+))/g;
const LABEL_VALUES = /^label_values\((?:(.+),)?\s*([a-zA-Z_]\w*)\s*\)$/s;

export class Variables {
  #own; #chosen = new Map(); #found = new Map();

  // `given` are the parameters of the page's address: var-model=a&var-model=b.
  constructor(list, given) {
    this.#own = list.filter(one => one.type === "query");
    this.unknown = list.filter(one => one.type !== "datasource" && !isKnown(one)).map(one => `variable ${one.name} (${one.type})`);
    for (const one of this.#own) {
      const values = given.getAll(`var-${one.name}`).map(value => (value === "All" ? ALL : value));
      this.#chosen.set(one.name, values.length ? values : [one.includeAll ? ALL : one.current?.value ?? ""].flat());
    }
  }

  get parameters() {
    return this.#own.flatMap(({ name }) => this.#chosen.get(name).map(value => [`var-${name}`, value === ALL ? "All" : value]));
  }

  // The text with its variables put in; throws Error for one that is not known.
  filledIn(text, window, escape = inQuery) {
    const ready = { ...ofGrafana(window), datasource: "prometheus" };
    return text.replace(NAME, (_, braced, format, bare) => {
      const name = braced ?? bare, own = this.#own.find(one => one.name === name);
      if (name in ready) return ready[name];
      if (!own) throw new Error(`variable $${name} is not known`);
      if (format && format !== "regex") throw new Error(`format ${format} of variable $${name} is not known`);
      return escape(own, this.#chosen.get(name));
    });
  }

  // Menus of all variables; `changed` is called after a choice.
  menus(window, changed) {
    return this.#own.map(one => this.#menu(one, window, changed));
  }

  #menu(one, window, changed) {
    const title = make("summary"), list = make("div", { className: "values" });
    const says = () => { title.textContent = `${one.label || one.name}: ${shown(this.#chosen.get(one.name))}`; };
    const box = make("details", { className: "menu" }, title, list);
    box.dataset.variable = one.name;
    box.addEventListener("toggle", async () => {
      if (!box.open) return;
      try {
        await this.#load(one, window());
        list.replaceChildren(...this.#boxes(one, () => { says(); changed(); }));
      } catch (error) {
        list.textContent = error.message;
      }
    });
    box.addEventListener("keydown", event => { if (event.key === "Escape") { box.open = false; title.focus(); } });
    box.addEventListener("focusout", event => { if (event.relatedTarget && !box.contains(event.relatedTarget)) box.open = false; });
    says();
    return box;
  }

  async #load(one, window) {
    const [, selector, label] = LABEL_VALUES.exec(queryOf(one).trim());
    const asked = { start: window.start, end: window.end + window.step };
    if (selector) asked["match[]"] = this.filledIn(selector, window);
    this.#found.set(one.name, (await ask(`/api/v1/label/${label}/values`, asked)).filter(value => value !== ""));
  }

  #boxes(one, changed) {
    const chosen = this.#chosen.get(one.name), kept = chosen.filter(value => value !== ALL);
    const values = [...new Set([...this.#found.get(one.name), ...kept])].sort(new Intl.Collator(undefined, { numeric: true }).compare);
    const all = one.includeAll ? [ALL] : [];
    if (!values.length && !all.length) return ["no values"];
    return [...all, ...values].map(value => {
      const input = make("input", { type: one.multi ? "checkbox" : "radio", name: one.name, value, checked: chosen.includes(value) });
      input.addEventListener("change", () => { this.#choose(one, input); changed(); });
      return make("label", {}, input, ` ${value === ALL ? "All" : value}`);
    });
  }

  // All excludes the others; where nothing is left, All is chosen.
  #choose(one, input) {
    const before = this.#chosen.get(one.name);
    const others = one.multi ? before.filter(value => value !== input.value && (input.value === ALL) === (value === ALL)) : [];
    const now = input.checked && input.value === ALL ? [ALL] : input.checked ? [...others, input.value] : others;
    this.#chosen.set(one.name, now.length ? now : one.includeAll ? [ALL] : before);
    for (const box of input.closest("div").querySelectorAll("input")) box.checked = this.#chosen.get(one.name).includes(box.value);
  }
}

function isKnown(one) {
  return one.type === "query" && LABEL_VALUES.test(queryOf(one).trim()) && !one.regex;
}

function queryOf({ query, definition }) {
  return typeof query === "string" ? query : query?.query ?? definition ?? "";
}

function shown(chosen) {
  return chosen.map(value => (value === ALL ? "All" : value || "(none)")).join(" + ");
}

// As Grafana does for Prometheus: several values are alternatives of a regular expression, and are escaped for one.
function inQuery(one, chosen) {
  if (chosen.includes(ALL)) return one.allValue || ".*";
  if (!one.multi && !one.includeAll) return chosen[0].replaceAll("\\", "\\\\").replaceAll('"', '\\"');
  const escaped = chosen.map(value => value.replaceAll("\\", "\\\\\\\\").replace(/[$^*{}[\]'+?.()|]/g, "\\\\$&").replaceAll('"', '\\"'));
  return escaped.length > 1 ? `(${escaped.join("|")})` : escaped[0];
}

// In an address.
export function inAddress(one, chosen) {
  return encodeURIComponent(chosen.map(value => (value === ALL ? "All" : value)).join(","));
}
