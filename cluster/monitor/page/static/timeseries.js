// Lines over time, with a table of the series below: their last and highest values, or those at the cursor.
/* global uPlot */
import { chart } from "./chart.js";
import { colour, css, faint, seriesColour } from "./colours.js";
import { make } from "./elements.js";
import { linked } from "./links.js";
import { CALCULATIONS, TITLES } from "./series.js";
import { clock, times } from "./times.js";
import { increments, inUnit } from "./units.js";

export function timeseries(box, panel, series, around) {
  const { defaults = {} } = panel.fieldConfig ?? {}, custom = defaults.custom ?? {};
  const isStacked = custom.stacking?.mode === "normal";
  const colours = series.map((one, at) => seriesColour(at, CALCULATIONS.lastNotNull(one.values), one.settings));
  const place = make("div", { className: "plot" }), table = legend(panel, series, colours, around);
  box.append(place, table.element);
  const all = times(around.window);
  return chart(place, [all, ...(isStacked ? stacked(series) : series.map(one => one.values))], {
    window: around.window, sync: around.dashboard, y: limits(defaults),
    series: colours.map(stroke => line(stroke, custom)),
    bands: isStacked ? series.slice(1).map((_, at) => ({ series: [at + 2, at + 1] })) : [],
    axis: { text: value => inUnit(value, defaults.unit, axisDecimals(defaults)), incrs: increments(defaults.unit, defaults.decimals) },
    hooks: { setCursor: [plot => table.show(plot.cursor.idx, all)], draw: [plot => thresholds(plot, defaults)] },
  });
}

function axisDecimals({ decimals }) {
  return decimals === 0 ? 0 : undefined;
}

function line(stroke, { lineWidth = 1, fillOpacity = 0, spanNulls = false, showPoints = "auto" }) {
  return {
    stroke, width: lineWidth + 0.5, spanGaps: spanNulls === true, ...(fillOpacity ? { fill: faint(stroke, fillOpacity / 100) } : {}),
    points: { size: 5, fill: stroke, show: true, filter: showPoints === "always" ? undefined : alone },
  };
}

// Points that no line goes through, for they have no neighbours; they would not be seen.
function alone(plot, at) {
  const values = plot.data[at];
  return values.flatMap((value, here) => (value != null && values[here - 1] == null && values[here + 1] == null ? [here] : []));
}

// Each series on top of those before it.
function stacked(series) {
  const sums = [];
  return series.map(one => one.values.map((value, at) => {
    sums[at] = (sums[at] ?? 0) + (value ?? 0);
    return value === null ? null : sums[at];
  }));
}

function limits({ min, max }) {
  return (_, least, most) => {
    if (least === null) return [min ?? 0, max ?? (min ?? 0) + 1];
    const top = least === 0 && most === 0 ? 1 : most; // uPlot would show zeros in a range up to 100
    const [low, high] = uPlot.rangeNum(Math.min(least, min ?? least), top, 0.1, true);
    const bottom = min ?? low;
    return [bottom, Math.max(max ?? high, bottom + Number.EPSILON)];
  };
}

function thresholds({ ctx, bbox, valToPos }, { thresholds: given, custom }) {
  if ((custom?.thresholdsStyle?.mode ?? "off") === "off") return;
  for (const { value, color } of given?.steps ?? []) {
    if (value === null || value === undefined) continue;
    const y = Math.round(valToPos(value, "y", true));
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.save();
    ctx.strokeStyle = colour(color) || css("ink");
    ctx.setLineDash([6, 4]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }
}

// {element, show}: `show` puts the values at an index in place of the first calculation.
function legend(panel, series, colours, around) {
  const { showLegend = true, calcs = [] } = panel.options?.legend ?? {};
  const shown = calcs.length ? calcs : ["lastNotNull"], head = make("th", { className: "number", scope: "col" });
  const firsts = series.map(() => make("td", { className: "number" }));
  const rows = series.map((one, at) => {
    const mark = make("i");
    mark.style.background = colours[at];
    const others = shown.slice(1).map(name => make("td", { className: "number", textContent: text(one, CALCULATIONS[name]?.(one.values)) }));
    return make("tr", {}, make("td", {}, mark, linked(one, around)), firsts[at], ...others);
  });
  const heads = shown.slice(1).map(name => make("th", { className: "number", scope: "col", textContent: TITLES[name] ?? name }));
  const element = make("div", { className: "legend", hidden: !showLegend, tabIndex: 0 },
    make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col", textContent: "series" }), head, ...heads)), make("tbody", {}, ...rows)));
  element.ariaLabel = `${panel.title}: values`;
  const show = (index, all) => {
    const isAt = index !== null && index !== undefined;
    head.textContent = isAt ? clock(all[index], { withSeconds: true }) : TITLES[shown[0]] ?? shown[0];
    series.forEach((one, at) => { firsts[at].textContent = text(one, isAt ? one.values[index] : CALCULATIONS[shown[0]]?.(one.values)); });
  };
  show(null);
  return { element, show };
}

function text({ settings }, value) {
  return inUnit(value, settings.unit, settings.decimals);
}
