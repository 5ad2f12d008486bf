// One number of each series, with its course behind it; and bar gauges, which are numbers with a bar.
import { chart } from "./chart.js";
import { faint, ofThreshold, seriesColour } from "./colours.js";
import { make } from "./elements.js";
import { linked } from "./links.js";
import { CALCULATIONS } from "./series.js";
import { times } from "./times.js";
import { inUnit } from "./units.js";

export function stat(box, panel, series, around) {
  const { reduceOptions, graphMode = "area", colorMode = "value", textMode = "auto" } = panel.options ?? {};
  const list = make("div", { className: "stats" });
  box.append(list);
  const ends = series.map((one, at) => {
    const value = reduced(one, reduceOptions), solid = seriesColour(at, value, one.settings);
    const number = make("div", { className: "figure", textContent: inUnit(value, one.settings.unit, one.settings.decimals) });
    if (colorMode !== "none") number.style.color = solid;
    const name = make("div", { className: "name" }, linked(one, around));
    name.hidden = textMode === "value" || (textMode === "auto" && series.length === 1);
    const course = make("div", { className: "course" });
    list.append(make("div", { className: "stat" }, name, number, course));
    return graphMode === "none" || one.values.length < 2 ? () => {} : sparkline(course, one, solid, around.window);
  });
  return () => ends.forEach(end => end());
}

function sparkline(box, { values, settings }, stroke, window) {
  const y = (_, least, most) => {
    const low = Math.min(settings.min ?? least ?? 0, least ?? 0);
    return [low, Math.max(most ?? 1, low + Number.EPSILON) + (most === low ? 1 : 0)];
  };
  const line = { stroke, width: 1, fill: faint(stroke, 0.15), points: { show: false } };
  return chart(box, [times(window), values], { series: [line], y, axis: {}, bare: true, window });
}

function reduced({ values }, options) {
  return CALCULATIONS[options?.calcs?.[0] ?? "lastNotNull"]?.(values) ?? null;
}

export function bargauge(box, panel, series, around) {
  const found = series.map(one => reduced(one, panel.options?.reduceOptions));
  const rows = series.map((one, at) => {
    const { min = 0, max = Math.max(...found.filter(value => value !== null), 0), thresholds, unit, decimals } = one.settings;
    const bar = make("i"), share = found[at] === null ? 0 : (found[at] - min) / (max - min || 1);
    bar.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
    bar.style.background = thresholds ? ofThreshold(found[at], thresholds.steps) : seriesColour(at, found[at], one.settings);
    const number = make("span", { className: "number", textContent: inUnit(found[at], unit, decimals) });
    return make("div", { className: "gauge" }, linked(one, around), make("div", { className: "track" }, bar), number);
  });
  box.append(make("div", { className: "gauges" }, ...rows));
  return () => {};
}
