// Links of panels and of series, with the variables and labels that Grafana puts into them.
import { link, make } from "./elements.js";
import { inAddress } from "./variables.js";

// An address with $run, ${__field.labels.run}, ${__url_time_range} and ${__all_variables} put in.
export function address(url, { variables, window, parameters }, labels = {}) {
  const known = url
    .replace(/\$\{__(?:field\.)?labels?\.(\w+)\}/g, (_, label) => encodeURIComponent(labels[label] ?? ""))
    .replace(/\$\{__url_time_range\}/g, () => new URLSearchParams(parameters.filter(([name]) => !name.startsWith("var-"))))
    .replace(/\$\{__all_variables\}/g, () => new URLSearchParams(variables.parameters));
  return variables.filledIn(known, window, inAddress);
}

// The name of a series, as a link where the panel has one for it.
export function linked({ name, labels, settings }, around) {
  const [first] = settings.links ?? [];
  return first ? link(name, address(first.url, around, labels), first.targetBlank) : make("span", { textContent: name });
}
