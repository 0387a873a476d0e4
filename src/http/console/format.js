// Numbers, sizes and times as people read them.

import { now } from "./api.js";
import { el, say } from "./dom.js";

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** 12345 → 12,345 */
export function count(n) {
  return grouped.format(n);
}

/** A number and its noun: 1 batch, 2 batches. */
export function counted(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** With three digits: 0.25, 12.3, 12.3k, 4.56M. */
export function short(n) {
  if (n >= 999_500) return `${precise.format(n / 1e6)}M`;
  if (n >= 9_995) return `${precise.format(n / 1e3)}k`;
  return precise.format(n);
}

/** 1536 → 1.5 KiB */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit += 1) n /= 1024;
  return `${unit === 0 ? count(n) : precise.format(n)} ${units[unit]}`;
}

/** 12.345 → 12.3 ms, 2345 → 2.35 s */
export function milliseconds(ms) {
  return ms < 1000 ? `${precise.format(ms)} ms` : `${precise.format(ms / 1000)} s`;
}

/** 7300 → 2 h */
export function duration(s) {
  if (s < 2 * MINUTE) return `${count(Math.max(0, s))} s`;
  if (s < 2 * HOUR) return `${count(Math.floor(s / MINUTE))} min`;
  if (s < 2 * DAY) return `${count(Math.floor(s / HOUR))} h`;
  return `${count(Math.floor(s / DAY))} d`;
}

/** The exact time, in UTC. */
export function utc(unix) {
  return new Date(unix * 1000).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

/** The same without the day. */
export function clock(unix) {
  return utc(unix).slice(11, 19);
}

function relative(unix) {
  const s = Math.round(unix - now());
  if (s > 0) return `in ${duration(s)}`;
  return s > -2 ? "just now" : `${duration(-s)} ago`;
}

/** A time, said relative to now; the exact one is its title. */
export function time(unix) {
  const exact = utc(unix);
  const iso = exact.replace(" UTC", "Z").replace(" ", "T");
  return el("time", { datetime: iso, title: exact, "data-unix": unix }, relative(unix));
}

/** Brings the times on the page up to date. */
export function refreshTimes() {
  for (const node of document.querySelectorAll("time[data-unix]")) say(node, relative(Number(node.dataset.unix)));
}

/** The first digits of a digest; all of it is its title. */
export function digest(hex) {
  return el("code", { title: hex }, `${hex.slice(0, 12)}…`);
}
