// Places on the page, as they stand in its address: `#/target/PATH`, `#/checkpoint/7`, `#/bin/bins-0a`, `#/search/GLOB`.

import { el } from "./dom.js";
import { count } from "./format.js";

/** The place with this kind and name. A path keeps its slashes, so that it can be read. */
export function placeOf(kind, name) {
  return `#/${kind}/${encodeURIComponent(name).replaceAll("%2F", "/")}`;
}

/** The kind and name that an address leads to; nothing if it leads to the page itself. */
export function placeIn(hash) {
  const [, kind, name] = hash.match(/^#\/(target|checkpoint|bin|search)\/(.+)$/s) ?? [];
  if (kind === undefined) return undefined;
  try {
    return { kind, name: decodeURIComponent(name) };
  } catch {
    return { kind, name };
  }
}

export function targetLink(path) {
  return el("a", { class: "path", href: placeOf("target", path) }, path);
}

export function binLink(bin) {
  return el("a", { href: placeOf("bin", bin) }, bin);
}

export function checkpointLink(n) {
  return el("a", { href: placeOf("checkpoint", n) }, `#${count(n)}`);
}
