// The console: asks the node where it stands for as long as somebody looks, and shows the place in the address.

import { get, now, Refusal, useToken } from "./api.js";
import { Bins } from "./bins.js";
import { Charts } from "./chart.js";
import { Checkpoints } from "./checkpoints.js";
import { Detail } from "./detail.js";
import { byId, say } from "./dom.js";
import { milliseconds, refreshTimes, short } from "./format.js";
import { placeIn, placeOf } from "./links.js";
import { showConnection, showPartitions, showStatus } from "./overview.js";

/** How long after an answer the node is asked again, in milliseconds. */
const POLL_MS = 2_000;

const charts = new Charts();
const bins = new Bins();
const checkpoints = new Checkpoints();
const detail = new Detail(leave);

let timer;
/** Since when nothing is heard of the node, in Unix seconds. */
let lostSince;
/** Whether no target is published, as far as is known, and of which checkpoint that was asked. */
let isEmpty;
let emptyAsOf = 0;

function addCharts() {
  const rate = (name) => ({
    series: [{ name, of: (second) => second[name] }],
    format: short,
    least: 1,
    nothing: "nothing known yet",
  });
  charts.add(byId("chart-changes"), { title: "Changes committed per second", ...rate("changes") });
  charts.add(byId("chart-batches"), { title: "Batches committed per second", ...rate("batches") });
  charts.add(byId("chart-visible"), {
    title: "From POST to visible",
    series: [
      { name: "p50", of: (second) => second.visible_p50_ms },
      { name: "p99", of: (second) => second.visible_p99_ms },
    ],
    format: milliseconds,
    least: 10,
    isLogarithmic: true,
    nothing: "no POST to this node became visible",
  });
  byId("span").addEventListener("change", (event) => charts.choose(Number(event.target.value)));
}

/** Asks the node once. */
async function look() {
  const status = await get("v1/status");
  heard();
  const checkpoint = status.published?.checkpoint ?? 0;
  showStatus(status, isEmpty);
  const [rates, lag] = await Promise.all([get(`v1/rates?after=${charts.newest}`), get("v1/lag")]);
  charts.push(rates.seconds);
  showPartitions(lag, status.partitions);
  if (!checkpoints.isFollowing && !document.hidden) await checkpoints.start();
  bins.follow(checkpoint).catch(trouble);
  await lookForTargets(checkpoint);
}

/** Asks for one target at each checkpoint until there is one. */
async function lookForTargets(checkpoint) {
  if (checkpoint < emptyAsOf) isEmpty = undefined; // another repository
  if (isEmpty === false || (isEmpty && checkpoint === emptyAsOf)) return;
  const { targets } = checkpoint > 0 ? await get("v1/search?glob=*&limit=1") : { targets: [] };
  isEmpty = targets.length === 0;
  emptyAsOf = checkpoint;
}

/** Asks again and again. */
async function watch() {
  let isRefused = false;
  try {
    await look();
    say(byId("refused"), "");
  } catch (e) {
    isRefused = trouble(e);
  } finally {
    clearTimeout(timer);
    if (!isRefused && !document.hidden) timer = setTimeout(watch, POLL_MS);
  }
}

function rest() {
  clearTimeout(timer);
  checkpoints.stop();
}

function heard() {
  lostSince = undefined;
  showConnection(undefined);
  askForToken(undefined);
}

/** Says what has gone wrong; true if it is of no use to ask on. */
function trouble(e) {
  if (!(e instanceof Refusal)) {
    if (!["TypeError", "TimeoutError", "AbortError", "NetworkError"].includes(e.name)) throw e;
    lostSince ??= now();
    checkpoints.stop(); // until the node has answered again: it is asked on
    showConnection(lostSince);
    return false;
  }
  if (!e.wantsToken) {
    say(byId("refused"), `The node cannot say everything now: ${e.message}`);
    return false;
  }
  rest();
  askForToken(e.message);
  return true;
}

function askForToken(why) {
  const form = byId("token-form");
  const wasHidden = form.hidden;
  form.hidden = why === undefined;
  byId("main").hidden = byId("facts").hidden = byId("search").hidden = why !== undefined;
  if (why === undefined) return;
  say(byId("token-why"), why);
  detail.close();
  const state = byId("state");
  state.className = "state warn";
  say(state, "token needed");
  if (wasHidden) byId("token").focus();
}

function takeToken(event) {
  event.preventDefault();
  const field = byId("token");
  useToken(field.value.trim());
  field.value = "";
  watch();
  follow();
}

/** Shows what the address leads to. */
function follow() {
  const place = placeIn(location.hash);
  document.title = place ? `${place.name} · tuflog` : "tuflog";
  if (!place) return detail.close();
  if (place.kind === "search") byId("query").value = place.name;
  return detail.show(place).catch(trouble);
}

/** Back to the overview. */
function leave() {
  if (placeIn(location.hash)) history.pushState(null, "", "#/");
  follow();
}

function search(event) {
  event.preventDefault();
  const glob = byId("query").value.trim();
  if (glob === "") return;
  const place = placeOf("search", glob);
  if (location.hash === place) follow();
  else location.hash = place;
}

function pressed(event) {
  const isTyping = event.target.matches("input, textarea");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  leave();
  byId("query").focus();
  byId("query").select();
}

addCharts();
byId("search").addEventListener("submit", search);
byId("token-form").addEventListener("submit", takeToken);
document.addEventListener("keydown", pressed);
document.addEventListener("visibilitychange", () => (document.hidden ? rest() : watch()));
window.addEventListener("hashchange", follow);
setInterval(() => document.hidden || refreshTimes(), 1_000);
watch();
follow();
