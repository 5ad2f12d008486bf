// A table of labels and values: a row for each set of labels, a column for each query.
import { make } from "./elements.js";
import { linked } from "./links.js";
import { ofThreshold } from "./colours.js";
import { inUnit } from "./units.js";

const HIDDEN = new Set(["__name__"]);

export function table(box, panel, series, around) {
  const labels = [...new Set(series.flatMap(one => Object.keys(one.labels)))].filter(label => !HIDDEN.has(label)).sort();
  const queries = [...new Set(series.map(one => one.query))];
  const rows = new Map();
  for (const one of series) {
    const key = JSON.stringify(labels.map(label => one.labels[label] ?? ""));
    rows.set(key, { ...rows.get(key), [one.query]: one, "": rows.get(key)?.[""] ?? one });
  }
  const head = (textContent, className = "") => make("th", { scope: "col", textContent, className });
  const heads = [...labels.map(label => head(label)), ...queries.map(query => head(title(query), "number"))];
  const body = [...rows.values()].map(row => make("tr", {},
    ...labels.map((label, at) => labelCell(row[""], label, at, around)), ...queries.map(query => valueCell(row[query]))));
  const made = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
  const element = make("div", { className: "scroll", tabIndex: 0 }, made);
  element.ariaLabel = panel.title;
  box.append(element);
  return () => {};
}

function title(query) {
  return /^[A-Z]$|\{\{/.test(query) ? "value" : query;
}

function labelCell(one, label, at, around) {
  const value = one.labels[label] ?? "";
  return at === 0 && one.settings.links?.length ? make("td", {}, linked({ ...one, name: value }, around)) : make("td", { textContent: value });
}

function valueCell(one) {
  const textContent = one ? inUnit(one.values[0], one.settings.unit, one.settings.decimals) : "";
  const cell = make("td", { className: "number", textContent });
  if (one?.settings.color?.mode === "thresholds") cell.style.color = ofThreshold(one.values[0], one.settings.thresholds?.steps);
  return cell;
}
