// The page: which dashboard, which time range, which values of its variables; all of it is in the address, as in Grafana.
import { ask } from "./api.js";
import { Dashboard } from "./dashboard.js";
import { link, make, options } from "./elements.js";
import { inWords, isRange, makeWindow, RANGES, REFRESHES, seconds } from "./times.js";
import { Variables } from "./variables.js";

const at = id => document.getElementById(id);
const given = new URLSearchParams(location.search);
let timer = 0;

function range(dashboard) {
  const asked = [given.get("from"), given.get("to") ?? "now"];
  return asked[0] && isRange(...asked) ? asked : [dashboard.time?.from ?? "now-1h", dashboard.time?.to ?? "now"];
}

function navigation(dashboards, dashboard) {
  const wanted = (dashboard.links ?? []).filter(one => one.type === "dashboards").flatMap(one => one.tags ?? []);
  const others = dashboards.filter(one => one.uid === dashboard.uid || wanted.every(tag => one.tags?.includes(tag)));
  const links = others.map(one => {
    const made = link(one.title, `/d/${one.uid}`);
    made.dataset.keeps = "yes";
    if (one.uid === dashboard.uid) made.ariaCurrent = "page";
    return made;
  });
  const outside = (dashboard.links ?? []).filter(one => one.type === "link").map(one => link(one.title, one.url, one.targetBlank));
  at("dashboards").replaceChildren(...links, ...outside);
}

function unknown(dashboard, variables) {
  const kinds = (dashboard.links ?? []).filter(one => !["dashboards", "link"].includes(one.type)).map(one => `link of type ${one.type}`);
  const notes = (dashboard.annotations?.list ?? []).filter(one => one.enable && !one.builtIn).map(one => `annotation ${one.name}`);
  const found = [...variables.unknown, ...kinds, ...notes];
  at("unknown").textContent = found.length ? `This page does not know: ${found.join(", ")}` : "";
}

async function start() {
  const { dashboards, prometheus, scrape_seconds: scrape } = await ask("/dashboards.json");
  const uid = /^\/d\/([^/]+)/.exec(location.pathname)?.[1] ?? dashboards[0]?.uid;
  if (!dashboards.some(one => one.uid === uid)) throw new Error(`There is no dashboard ${uid}. There are: ${dashboards.map(one => one.uid).join(", ")}`);
  const dashboard = await ask(`/dashboards/${uid}.json`);
  const variables = new Variables(dashboard.templating?.list ?? [], given), drawn = new Dashboard(dashboard);
  let [from, to] = range(dashboard), every = given.get("refresh") ?? dashboard.refresh ?? "";

  const refresh = () => {
    const parameters = [["from", from], ["to", to], ["refresh", every], ...variables.parameters];
    history.replaceState(null, "", `/d/${uid}?${new URLSearchParams(parameters)}`);
    for (const one of document.querySelectorAll("nav [data-keeps]")) one.search = new URLSearchParams(parameters);
    drawn.refresh({ variables, parameters, window: makeWindow(from, to, scrape), dashboard: uid });
    clearTimeout(timer);
    if (seconds(every)) timer = setTimeout(() => (document.hidden ? (timer = 0) : refresh()), seconds(every) * 1000);
  };
  document.title = dashboard.title;
  at("title").textContent = dashboard.title;
  at("description").textContent = dashboard.description ?? "";
  at("source").textContent = `Prometheus at ${prometheus}. Drawn by uPlot.`;
  at("variables").replaceChildren(...variables.menus(() => makeWindow(from, to, scrape), refresh));
  options(at("range"), RANGES, from, inWords(from, to));
  options(at("every"), REFRESHES, every, every);
  at("range").addEventListener("change", event => { [from, to] = [event.target.value, "now"]; refresh(); });
  at("every").addEventListener("change", event => { every = event.target.value; refresh(); });
  at("refresh").addEventListener("click", refresh);
  at("rows").replaceChildren(...drawn.elements);
  navigation(dashboards, dashboard);
  unknown(dashboard, variables);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !timer) refresh(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.redraw());
  refresh();
}

start().catch(error => at("rows").replaceChildren(make("p", { className: "says", role: "alert", textContent: error.message })));
