// Colours by the names that Grafana has for them, from the style sheet, so that they fit a light and a dark ground.

const PALETTE = ["blue", "orange", "green", "purple", "red", "yellow", "teal", "pink", "brown", "grey"];

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// "red", "semi-dark-red", "#c00" -> what a canvas takes.
export function colour(name) {
  if (name.startsWith("#") || name.startsWith("rgb")) return name;
  return css(name.split("-").at(-1)) || css("ink");
}

export function paletteColour(at) {
  return css(PALETTE[at % PALETTE.length]);
}

// The colour of a value: that of the last step which it reaches.
export function ofThreshold(value, steps = []) {
  const reached = steps.filter(step => step.value === null || step.value === undefined || (value !== null && value >= step.value));
  return colour(reached.at(-1)?.color ?? "ink");
}

// The colour of a series.
export function seriesColour(at, value, { color, thresholds } = {}) {
  if (color?.mode === "thresholds") return ofThreshold(value, thresholds?.steps);
  return color?.mode === "fixed" ? colour(color.fixedColor) : paletteColour(at);
}

export function faint(solid, share) {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = solid;
  const [red, green, blue] = context.fillStyle.match(/[0-9a-f]{2}/g).map(one => parseInt(one, 16));
  return `rgba(${red}, ${green}, ${blue}, ${share})`;
}
