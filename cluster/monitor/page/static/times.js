// Time ranges, steps, and Grafana's own variables of time.

const SECONDS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
const MOST_POINTS = 500;
export const RANGES = {
  "now-15m": "15 minutes", "now-1h": "1 hour", "now-3h": "3 hours", "now-12h": "12 hours",
  "now-24h": "1 day", "now-2d": "2 days", "now-7d": "7 days",
};
export const REFRESHES = { "": "off", "5s": "5 s", "10s": "10 s", "30s": "30 s", "1m": "1 min", "5m": "5 min" };

// Seconds of "15m"; NaN of what is none.
export function seconds(text) {
  const [, number, unit] = /^(\d+)([smhdw])$/.exec(text) || [];
  return number * SECONDS[unit];
}

// "now-1h", "now", or milliseconds since 1970, as in addresses of Grafana -> seconds since 1970.
export function moment(text, now) {
  if (text === "now") return now;
  if (text.startsWith("now-")) return now - seconds(text.slice(4));
  return Number(text) / 1000;
}

export function isRange(from, to) {
  const now = Date.now() / 1000, length = moment(to, now) - moment(from, now);
  return length > 0 && length <= 31 * 86400;
}

// The range as Prometheus is asked for it: both ends are whole steps, so that a refresh moves no point.
export function makeWindow(from, to, scrape) {
  const now = Date.now() / 1000, first = moment(from, now), last = moment(to, now);
  const least = Math.max((last - first) / MOST_POINTS, scrape);
  const step = STEPS.find(one => one >= least) ?? Math.ceil(least / 86400) * 86400;
  return { start: Math.floor(first / step) * step, end: Math.floor(last / step) * step, step, scrape, length: Math.round(last - first) };
}

export function times({ start, end, step }) {
  return Array.from({ length: Math.round((end - start) / step) + 1 }, (_, at) => start + at * step);
}

// What Grafana puts in place of its own variables in a query.
export function ofGrafana({ step, scrape, length }) {
  const rate = Math.ceil(Math.max(step + scrape, 4 * scrape));
  return {
    __rate_interval: `${rate}s`, __interval: `${step}s`, __interval_ms: `${step * 1000}`,
    __range: `${length}s`, __range_s: `${length}`, __range_ms: `${length * 1000}`,
  };
}

// A range in words: "1h" up to now, else both ends.
export function inWords(from, to) {
  if (to === "now" && from.startsWith("now-")) return from.slice(4);
  const now = Date.now() / 1000;
  return [from, to].map(one => (one === "now" ? one : clock(moment(one, now), { withDay: true }))).join(" to ");
}

const two = number => String(number).padStart(2, "0");

// The time of day in this browser's zone; the day too where the axis spans days.
export function clock(at, { withDay = false, withSeconds = false } = {}) {
  const date = new Date(at * 1000);
  const day = withDay ? `${two(date.getMonth() + 1)}-${two(date.getDate())} ` : "";
  return `${day}${two(date.getHours())}:${two(date.getMinutes())}${withSeconds ? `:${two(date.getSeconds())}` : ""}`;
}
