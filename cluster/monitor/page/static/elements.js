// Elements of the page. Texts are always text: no HTML is made of a label.

export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// A link, or its text alone where the address is none of the web or of this page.
export function link(text, address, inNewTab = false) {
  const url = new URL(address, location.href);
  if (url.protocol !== "http:" && url.protocol !== "https:") return make("span", { textContent: text });
  const target = inNewTab ? { target: "_blank", rel: "noopener" } : {};
  return make("a", { textContent: text, href: url.href, ...target });
}

export function options(select, choices, chosen, text) {
  const known = chosen in choices ? choices : { ...choices, [chosen]: text };
  const made = Object.entries(known).map(([value, textContent]) => make("option", { value, textContent, selected: value === chosen }));
  select.replaceChildren(...made);
}
