// Elements, built by hand. What comes from the API goes in as text; nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null));
  return node;
}

/** An element; an attribute `onclick` is a listener, a child that is a string is text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** The element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Says a text, and leaves an element alone that says it already: what is read aloud is read once. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Makes the children of an element like `fresh`; what is alike stays, and with it the focus of who is there by keyboard. */
export function renew(node, ...fresh) {
  const own = [...node.childNodes];
  own.slice(fresh.length).forEach((child) => child.remove());
  fresh.forEach((child, i) => (i < own.length ? become(own[i], child) : node.append(child)));
}

function become(node, other) {
  if (node.isEqualNode(other)) return;
  if (node.nodeName !== other.nodeName || !(node instanceof Element)) return node.replaceWith(other);
  for (const { name } of [...node.attributes]) if (!other.hasAttribute(name)) node.removeAttribute(name);
  for (const { name, value } of other.attributes) {
    // The policy of the page forbids styles in attributes, not those that a script sets.
    if (name === "style") node.style.cssText = other.style.cssText;
    else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  renew(node, ...other.childNodes);
}

/** A list of names and values; those without a value are left out. */
export function facts(rows) {
  const known = rows.filter(([, value]) => value !== undefined && value !== null);
  const pairs = known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  return el("dl", { class: "facts" }, pairs);
}

/** A table. A column is `[heading, class]`, a row a list of cells, each a text, a node, or a list of those. */
export function table(caption, columns, rows) {
  const head = columns.map(([heading, kind]) => el("th", { scope: "col", class: kind ?? "" }, heading));
  const body = rows.map((cells) => row(columns, cells));
  return el(
    "table",
    {},
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, body),
  );
}

/** A row of such a table. */
export function row(columns, cells) {
  return el("tr", {}, cells.map((cell, i) => el("td", { class: columns[i][1] ?? "" }, cell)));
}

/** A bar that is filled to a share of its width; what it says stands beside it. */
export function bar(share, kind = "") {
  const filled = el("span", { class: "fill" });
  filled.style.inlineSize = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el("span", { class: `bar ${kind}`, "aria-hidden": "true" }, filled);
}
