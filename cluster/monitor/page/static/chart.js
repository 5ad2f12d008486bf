// A chart over time: axes, cursor and size, which all kinds of charts share.
/* global uPlot */
import { css } from "./colours.js";
import { clock } from "./times.js";

const FONT = "12px system-ui, sans-serif";

// Draws into `box`, whose size it keeps; returns what ends it.
export function chart(box, data, { series, y, axis, hooks = {}, bands = [], sync = "", bare = false, window }) {
  const size = () => ({ width: Math.max(box.clientWidth, 50), height: Math.max(box.clientHeight, 30) });
  const plot = new uPlot({
    ...size(), series: [{}, ...series], bands, hooks, padding: bare ? [2, 0, 0, 0] : [10, 28, 0, 0], legend: { show: false },
    scales: { x: { time: true, range: () => [window.start, window.end] }, y: { range: y } },
    axes: bare ? [{ show: false }, { show: false }] : [timeAxis(window), valueAxis(axis)],
    cursor: { show: !bare, y: false, points: { size: 6 }, drag: { x: false, y: false }, sync: sync ? { key: sync } : undefined },
  }, data, box);
  const watcher = new ResizeObserver(() => plot.setSize(size()));
  watcher.observe(box);
  return () => { watcher.disconnect(); plot.destroy(); };
}

function lines() {
  return { stroke: css("soft"), font: FONT, grid: { stroke: css("grid"), width: 1 }, ticks: { show: false } };
}

function timeAxis(window) {
  const withDay = window.end - window.start > 86400;
  const values = (_, splits, __, ___, distance) => splits.map(at => clock(at, { withDay, withSeconds: distance < 60 }));
  return { ...lines(), values, space: withDay ? 90 : 60, size: 28 };
}

function valueAxis({ text, incrs, splits }) {
  const size = (_, values) => 18 + 7 * Math.max(3, ...(values ?? []).map(value => value?.length ?? 0));
  return { ...lines(), values: (_, found) => found.map(text), size, gap: 6, space: 34, ...(incrs ? { incrs } : {}), ...(splits ? { splits } : {}) };
}
