// Numbers in the units of Grafana that our dashboards have.

const DECIMAL = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"], [1, " "]];
const BINARY = [[2 ** 50, " Pi"], [2 ** 40, " Ti"], [2 ** 30, " Gi"], [2 ** 20, " Mi"], [2 ** 10, " Ki"], [1, " "]];
const TIME = [[604800, " weeks"], [86400, " days"], [3600, " h"], [60, " min"], [1, " s"], [1e-3, " ms"], [1e-6, " µs"], [0, " ns", 1e-9]];
const ROUND_TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 172800, 604800, 1209600, 2419200];
const ROUND_TENS = Array.from({ length: 36 }, (_, at) => [1, 2, 5].map(one => Number(`${one}e${at - 18}`))).flat();

const scaled = (scales, unit = "") => (value, decimals) => {
  const [least, name, divisor = least] = scales.find(([one]) => Math.abs(value) >= one) ?? [1, unit ? " " : ""];
  return (plain(value / divisor, decimals) + name + unit).trimEnd();
};
const times = factor => (value, decimals) => (value === 0 ? "0 s" : scaled(TIME)(value * factor, decimals));
const followed = unit => (value, decimals) => `${plain(value, decimals)}${unit}`;

const UNITS = {
  none: plain, short: scaled(DECIMAL), string: String, sci: value => value.toExponential(2),
  s: times(1), ms: times(1e-3), "µs": times(1e-6), ns: times(1e-9), m: times(60), h: times(3600), d: times(86400),
  bytes: scaled(BINARY, "B"), decbytes: scaled(DECIMAL, "B"), Bps: scaled(DECIMAL, "B/s"), binBps: scaled(BINARY, "B/s"),
  percent: followed(" %"), percentunit: (value, decimals) => `${plain(value * 100, decimals)} %`,
  reqps: scaled(DECIMAL, "req/s"), ops: scaled(DECIMAL, "ops/s"), cps: scaled(DECIMAL, "/s"), iops: scaled(DECIMAL, "io/s"),
  celsius: followed(" °C"), watt: scaled(DECIMAL, "W"), hertz: scaled(DECIMAL, "Hz"), bool: value => (value ? "true" : "false"),
  dateTimeAsIso: value => new Date(value).toLocaleString(),
};

export function knowsUnit(unit = "none") {
  return unit in UNITS || unit.startsWith("suffix:");
}

// A number in words, such as "1.2 k" or "350 ms"; an en dash where there is none.
export function inUnit(value, unit = "none", decimals = undefined) {
  if (value === null || value === undefined) return "–";
  if (unit.startsWith("suffix:")) return scaled(DECIMAL, unit.slice(7).trim())(value, decimals);
  return (UNITS[unit] ?? plain)(value, decimals);
}

// Three digits, or as many decimals as the dashboard says; more digits before the point stay.
function plain(value, decimals = undefined) {
  if (decimals !== undefined) return value.toFixed(decimals);
  return String(Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3)));
}

// Distances between the lines of an axis that are round in the unit.
export function increments(unit = "none", decimals = undefined) {
  if (unit === "bytes" || unit === "binBps") return Array.from({ length: 60 }, (_, at) => 2 ** at);
  if (unit === "s") return [...ROUND_TENS.filter(one => one < 1), ...ROUND_TIMES];
  return decimals === 0 ? ROUND_TENS.filter(one => one >= 1) : ROUND_TENS;
}
