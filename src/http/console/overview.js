// Where the node stands: its header, the numbers of the last seconds, its partitions, and when what it publishes expires.

import { now } from "./api.js";
import { bar, byId, el, facts, renew, say, table } from "./dom.js";
import { bytes, count, counted, duration, milliseconds, short, time, utc } from "./format.js";
import { checkpointLink } from "./links.js";

/** A role is renewed at half of its life; with less of it left than this something is in the way. */
const RENEWED_BY = 0.48;
/** People sign the root: they are told so long before it expires, in seconds. */
const ROOT_NOTICE_S = 60 * 86_400;
/** What a root's bar is full at, in seconds. */
const ROOT_LIFE_S = 365 * 86_400;

const PARTITIONS = [
  ["Partition"],
  ["Published", "number"],
  ["End", "number"],
  ["Lag", "number"],
  ["Fold at", "number wide"],
  ["Behind", "number"],
];
const INBOX = [["Inbox"], ["Decided", "number"], ["End", "number"], ["Lag", "number"]];

/** Shows an answer of `v1/status`, and whether there is no target yet. */
export function showStatus(status, isEmpty) {
  const { ready, reasons = [] } = status;
  const state = byId("state");
  state.className = `state ${ready ? "good" : "warn"}`;
  say(state, ready ? "ready" : "not ready");
  byId("not-ready").hidden = ready;
  say(byId("reasons"), reasons.join("; "));
  showFacts(status);
  byId("empty").hidden = !ready || !isEmpty;
  showTiles(status);
  showExpiries(status.expiries);
}

function showFacts({ published, layout, version, roles, uptime_s: uptime }) {
  const cut = published && [checkpointLink(published.checkpoint), ", ", time(published.time)];
  renew(
    byId("facts"),
    facts([
      ["checkpoint", cut ?? "none yet"],
      ["layout", `${counted(layout.bins, "bin")}, ${counted(layout.partitions, "partition")}`],
      ["roles", roles.join(", ")],
      ["tuflog", `${version}, up ${duration(uptime)}`],
    ]),
  );
}

function showTiles({ published, queue, rates }) {
  const known = (value, format) => (value === undefined ? "–" : format(value));
  say(byId("tile-changes"), known(rates?.changes_per_s, short));
  say(byId("tile-batches"), known(rates?.batches_per_s, short));
  say(byId("tile-checkpoints"), known(rates?.checkpoints_per_s, short));
  say(byId("tile-p50"), known(rates?.visible_p50_ms, milliseconds));
  say(byId("tile-p99"), known(rates?.visible_p99_ms, milliseconds));
  say(byId("tile-behind"), known(published?.behind, count));
  const full = queue.limit > 0 ? queue.bytes / queue.limit : 0;
  say(byId("tile-queue"), bytes(queue.bytes));
  byId("tile-queue").title = `of ${bytes(queue.limit)}; beyond that a POST is answered with 503`;
  byId("queue").classList.toggle("warn", full > 0.5);
}

/** Shows an answer of `v1/lag`, with the positions of the folds that run here. */
export function showPartitions({ partitions, inbox, lag }, folds) {
  const positions = new Map(folds.map((fold) => [fold.partition, fold]));
  const most = Math.max(...partitions.map((p) => p.lag));
  const slowest = partitions.find((p) => most > 0 && p.lag === most);
  const rows = partitions.map((p) => partitionCells(p, positions.get(p.partition), slowest));
  update(byId("partitions"), "Partitions: how far what is published is behind the log", PARTITIONS, rows);
  say(byId("partitions-summary"), `${counted(partitions.length, "partition")}, lag ${counted(lag, "segment")} in all`);
  byId("inbox").hidden = inbox.length === 0;
  const intake = inbox.map((p) => [String(p.partition), count(p.decided), count(p.end), count(p.lag)]);
  update(byId("inbox"), "Inbox: how far the intakes are with it", INBOX, intake);
}

function partitionCells(partition, fold, slowest) {
  const isSlowest = partition === slowest;
  const share = slowest ? partition.lag / slowest.lag : 0;
  return [
    [String(partition.partition), isSlowest ? el("small", { class: "tag" }, "slowest") : ""],
    count(partition.published),
    count(partition.end),
    [bar(share, isSlowest ? "warn" : ""), count(partition.lag)],
    fold ? count(fold.position) : "elsewhere",
    fold ? count(fold.behind) : "–",
  ];
}

/** Puts rows into the table of an element; what is there stays, so that a reader keeps the place in it. */
function update(element, caption, columns, rows) {
  renew(element, table(caption, columns, rows));
}

function showExpiries(expiries) {
  const list = expiries.map(({ role, version, expires, life_s: life }) => {
    const left = expires - now();
    const share = left / (life ?? ROOT_LIFE_S);
    const isLate = life ? share < RENEWED_BY : left < ROOT_NOTICE_S;
    const kind = left <= 0 ? "bad" : isLate ? "warn" : "";
    const word = left <= 0 ? "expired" : isLate ? (life ? "renewal is due" : "sign a new one") : "";
    return el(
      "li",
      { class: kind },
      el("span", { class: "role" }, role, el("small", {}, ` v${count(version)}`)),
      el("span", { class: "left" }, word && el("strong", {}, `${word} `), time(expires)),
      bar(share, `${kind} ${life ? "halved" : ""}`),
    );
  });
  renew(byId("expiries"), ...list);
  const next = expiries[0];
  say(byId("expiries-summary"), next ? `${next.role} is the next to expire` : "nothing is published yet");
}

/** Says that the connection is lost, since when, or that it is there. */
export function showConnection(lostSince) {
  byId("lost").hidden = lostSince === undefined;
  document.body.classList.toggle("stale", lostSince !== undefined);
  if (lostSince === undefined) return;
  const state = byId("state");
  state.className = "state bad";
  say(state, "no connection");
  say(byId("lost-since"), utc(lostSince));
}
