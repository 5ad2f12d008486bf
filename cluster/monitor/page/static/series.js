// Series of a panel's queries: asked, named, and with the settings of the panel for each.
import { instant, range } from "./api.js";

export const CALCULATIONS = {
  lastNotNull: values => values.findLast(one => one !== null) ?? null, last: values => values.at(-1) ?? null,
  firstNotNull: values => values.find(one => one !== null) ?? null, first: values => values[0] ?? null,
  max: values => over(values, found => found.reduce((a, b) => Math.max(a, b))),
  min: values => over(values, found => found.reduce((a, b) => Math.min(a, b))),
  mean: values => over(values, found => found.reduce((a, b) => a + b) / found.length),
  sum: values => over(values, found => found.reduce((a, b) => a + b)),
  range: values => CALCULATIONS.max(values) - CALCULATIONS.min(values),
  count: values => values.filter(one => one !== null).length,
};
export const TITLES = { lastNotNull: "last", firstNotNull: "first" };

function over(values, reduce) {
  const found = values.filter(one => one !== null);
  return found.length ? reduce(found) : null;
}

// [{name, labels, refId, values, settings}] of all queries of the panel, in their order.
export async function load(panel, variables, window, signal) {
  const targets = (panel.targets ?? []).filter(one => !one.hide);
  const found = await Promise.all(targets.map(async target => {
    const ask = panel.type === "table" || (target.instant && !target.range) ? instant : range;
    const series = await ask(variables.filledIn(target.expr, window), window, signal);
    return series.map(one => settled(panel, target, one)).sort((a, b) => order.compare(a.name, b.name));
  }));
  return found.flat();
}

const order = new Intl.Collator(undefined, { numeric: true });

function settled(panel, target, { labels, values }) {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {};
  const one = { name: legend(target, labels), labels, values, refId: target.refId, query: target.legendFormat || target.refId };
  const settings = { ...defaults };
  for (const { matcher, properties } of overrides)
    if (matches(matcher, one)) for (const { id, value } of properties) settings[id] = value;
  return { ...one, settings, name: settings.displayName || one.name };
}

function matches({ id, options }, { name, refId }) {
  if (id === "byRegexp") return new RegExp(options.replace(/^\/(.*)\/$/, "$1")).test(name);
  return id === "byName" ? options === name : options === refId;
}

function legend({ legendFormat, refId }, labels) {
  if (legendFormat && legendFormat !== "__auto")
    return legendFormat.replace(/\{\{\s*([\w.]+)\s*\}\}/g, (_, label) => labels[label] ?? "").trim() || refId;
  const { __name__: metric = "", ...others } = labels;
  const pairs = Object.entries(others).map(([label, value]) => `${label}="${value}"`).join(", ");
  return metric + (pairs ? `{${pairs}}` : "") || refId;
}
