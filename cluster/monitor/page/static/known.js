// What of a panel this page cannot draw; it is named in the panel.
import { CALCULATIONS } from "./series.js";
import { knowsUnit } from "./units.js";

const STYLES = ["line"];
const COLOURS = ["palette-classic", "thresholds", "fixed"];
const PROPERTIES = ["unit", "decimals", "color", "displayName", "min", "max", "noValue", "links"];
const MATCHERS = ["byName", "byRegexp", "byFrameRefID"];
const TRANSFORMATIONS = ["merge"];

export function unknownIn(panel) {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {}, custom = defaults.custom ?? {}, options = panel.options ?? {};
  const calculations = [...(options.reduceOptions?.calcs ?? []), ...(options.legend?.calcs ?? [])];
  const set = overrides.flatMap(one => one.properties);
  return [
    ...others("unit", [defaults.unit, ...set.filter(one => one.id === "unit").map(one => one.value)], knowsUnit),
    ...others("calculation", calculations, one => one in CALCULATIONS),
    ...others("drawing style", [custom.drawStyle], one => STYLES.includes(one)),
    ...others("stacking", [custom.stacking?.mode], one => ["none", "normal"].includes(one)),
    ...others("colour mode", [defaults.color?.mode], one => COLOURS.includes(one)),
    ...others("thresholds", [defaults.thresholds?.mode], one => one === "absolute"),
    ...others("value mapping", (defaults.mappings ?? []).map(one => one.type), () => false),
    ...others("override by", overrides.map(one => one.matcher?.id), one => MATCHERS.includes(one)),
    ...others("override of", set.map(one => one.id), one => PROPERTIES.includes(one)),
    ...others("transformation", (panel.transformations ?? []).map(one => one.id), one => TRANSFORMATIONS.includes(one)),
    ...others("data source", (panel.targets ?? []).map(one => one.datasource?.type), one => one === "prometheus"),
    ...others("format", (panel.targets ?? []).map(one => one.format), one => ["time_series", "table", "heatmap"].includes(one)),
    ...(options.calculate ? ["heat map of single values"] : []),
    ...(options.reduceOptions?.values ? ["all values of a series"] : []),
    ...(panel.repeat ? [`repetition by ${panel.repeat}`] : []),
  ];
}

function others(kind, values, isKnown) {
  const given = values.filter(one => one !== undefined && one !== null);
  return [...new Set(given.filter(one => !isKnown(one)))].map(one => `${kind} ${one}`);
}
