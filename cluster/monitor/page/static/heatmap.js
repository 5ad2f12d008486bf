// A heat map of a histogram's buckets over time: the darker a cell, the more was observed in its bucket.
import { chart } from "./chart.js";
import { css, faint } from "./colours.js";
import { make } from "./elements.js";
import { clock, times } from "./times.js";
import { inUnit } from "./units.js";

export function heatmap(box, panel, series, { window, dashboard }) {
  const { rows, bounds } = buckets(series), all = times(window), most = highest(rows);
  const { unit: given, decimals } = panel.options?.yAxis ?? {}, unit = given ?? panel.fieldConfig?.defaults?.unit;
  const place = make("div", { className: "plot" }), note = make("div", { className: "note" });
  const rest = `${rows.length} buckets; the darkest cell has ${inUnit(most, given ? panel.fieldConfig?.defaults?.unit : "none")}`;
  box.append(place, note);
  note.textContent = rest;
  const upTo = at => (bounds[at] === Infinity ? "more" : inUnit(bounds[at], unit, decimals));
  return chart(place, [all, ...rows.map(() => all.map(() => null))], {
    window, sync: dashboard, y: () => [0, rows.length], series: rows.map(() => ({ points: { show: false } })),
    axis: { text: at => (at > 0 && at <= rows.length ? upTo(at - 1) : ""), splits: () => labelled(rows.length) },
    hooks: {
      draw: [plot => cells(plot, rows, all, most)],
      setCursor: [({ cursor: { idx, top }, posToVal }) => {
        const isAt = idx !== null && idx !== undefined && top >= 0;
        note.textContent = (isAt && described(idx, Math.floor(posToVal(top, "y")), rows, all, upTo)) || rest;
      }],
    },
  });
}

// Each tenth or so of the rows has a name.
function labelled(count) {
  const each = Math.ceil(count / 10);
  return Array.from({ length: count }, (_, at) => at + 1).filter(at => (count - at) % each === 0);
}

function described(time, bucket, rows, all, upTo) {
  if (!rows[bucket]) return null;
  return `${clock(all[time], { withSeconds: true })}, up to ${upTo(bucket)}: ${inUnit(rows[bucket][time])}`;
}

// Prometheus's buckets are cumulative: each has what those below it have.
function buckets(series) {
  const bound = ({ le }) => Number(le.replace("+Inf", "Infinity"));
  const found = series.filter(one => "le" in one.labels).map(one => ({ bound: bound(one.labels), values: one.values }));
  found.sort((a, b) => a.bound - b.bound);
  const own = (value, at, time) => Math.max(value - (found[at - 1]?.values[time] ?? 0), 0);
  const rows = found.map(({ values }, at) => values.map((value, time) => (value === null ? null : own(value, at, time))));
  return { rows, bounds: found.map(one => one.bound) };
}

function highest(rows) {
  return rows.reduce((most, row) => row.reduce((a, b) => Math.max(a, b ?? 0), most), 0);
}

function cells({ ctx, valToPos }, rows, all, most) {
  const solid = css("blue");
  ctx.save();
  rows.forEach((row, bucket) => {
    const bottom = valToPos(bucket, "y", true), top = valToPos(bucket + 1, "y", true);
    row.forEach((value, at) => {
      if (!value || at === 0) return;
      const left = valToPos(all[at - 1], "x", true), right = valToPos(all[at], "x", true);
      ctx.fillStyle = faint(solid, 0.15 + (0.85 * value) / most);
      ctx.fillRect(left, top, Math.ceil(right - left), Math.ceil(bottom - top) - 1);
    });
  });
  ctx.restore();
}
