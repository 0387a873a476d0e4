// What one place in the address shows, in a dialog beside the overview: a search, a target, a checkpoint, a bin.

import { get, quoted, Refusal } from "./api.js";
import { bar, byId, el, facts, row, table } from "./dom.js";
import { bytes, count, counted, digest, milliseconds, time } from "./format.js";
import { binLink, checkpointLink, targetLink } from "./links.js";
import { STAGES, stageBar, took } from "./checkpoints.js";

/** How many bins of a checkpoint are named. */
const NAMED_BINS = 256;

const TARGETS = [["Path"], ["Length", "number"], ["SHA-256", "wide"]];
const FOUND = [["Path"], ["Bin"], ["Length", "number"]];
const CHANGES = [["When"], ["Change"], ["Length", "number"], ["SHA-256", "wide"], ["Batch"], ["Checkpoint", "number"]];
const PARTITIONS = [
  ["Partition"],
  ["Segments", "number wide"],
  ["Changes", "number"],
  ["Bins", "number"],
  ["Size", "number wide"],
  ["Reported", "took"],
];

/** A table that goes on: `read(after)` answers rows, and what comes `next` if there is more. */
async function paged(caption, columns, nothing, read) {
  const first = await read();
  if (first.rows.length === 0 && !first.next) return el("p", { class: "hint" }, nothing);
  const shown = table(caption, columns, first.rows);
  const more = el("button", { type: "button", class: "more" }, "Show more");
  let { next } = first;
  more.hidden = next === undefined;
  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      const page = await read(next);
      shown.tBodies[0].append(...page.rows.map((cells) => row(columns, cells)));
      next = page.next;
      more.hidden = next === undefined;
    } catch (e) {
      more.textContent = `Show more (${e.message})`;
    }
    more.disabled = false;
  });
  return el("div", { class: "scroll" }, shown, more);
}

function after(name, value) {
  return value === undefined ? "" : `&${name}=${quoted(value)}`;
}

function section(title, ...content) {
  return el("section", {}, el("h3", {}, title), ...content);
}

function sha256(hashes) {
  return typeof hashes.sha256 === "string" ? digest(hashes.sha256) : "–";
}

async function search(glob) {
  const read = async (path) => {
    const found = await get(`v1/search?glob=${quoted(glob)}${after("after", path)}`);
    const rows = found.targets.map((t) => [targetLink(t.path), binLink(t.bin), bytes(t.length)]);
    return { rows, next: found.after };
  };
  const hint = "No published target matches. * is any characters, / too; a text without wildcards is looked for anywhere.";
  return { title: `Targets that match “${glob}”`, content: [await paged("Targets found", FOUND, hint, read)] };
}

async function target(path) {
  const entry = await get(`v1/targets/${quoted(path)}`).catch((e) => {
    if (e.status === 404) return undefined;
    throw e;
  });
  const content = [entry ? targetFacts(entry) : el("p", { class: "hint" }, "Nothing is published under this path now.")];
  const hint = "This path has never been changed.";
  content.push(section("History, newest first", await paged("Changes of this path", CHANGES, hint, historyOf(path))));
  return { title: path, content };
}

function targetFacts({ length, hashes, custom, bin, version, checkpoint, origin }) {
  const by = origin && [`batch ${origin.batch}, seq ${count(origin.seq)}, `, time(origin.time)];
  const first = origin?.checkpoint && checkpointLink(origin.checkpoint);
  return facts([
    ["length", `${bytes(length)} (${count(length)} B)`],
    ...Object.entries(hashes).map(([name, hex]) => [name, el("code", {}, String(hex))]),
    ["bin", [binLink(bin), `, version ${count(version)}`]],
    ["brought by", by],
    ["first in", first],
    ["as of", checkpointLink(checkpoint)],
    ["custom", custom && el("pre", {}, JSON.stringify(custom, null, 2))],
  ]);
}

function historyOf(path) {
  return async (before) => {
    const page = await get(`v1/history/${quoted(path)}?limit=100${after("before", before)}`);
    return { rows: page.changes.map(changeCells), next: page.before };
  };
}

function changeCells({ op, target: entry, batch, seq, time: when, checkpoint }) {
  return [
    time(when),
    el("span", { class: `op ${op}` }, op),
    entry ? bytes(entry.length) : "–",
    entry ? sha256(entry.hashes) : "–",
    el("span", { title: `batch ${batch}, seq ${seq}` }, batch),
    checkpoint ? checkpointLink(checkpoint) : "not yet",
  ];
}

async function checkpoint(n) {
  const found = await get(`v1/checkpoints/${quoted(n)}`);
  const { detail, snapshot } = found;
  const rows = [
    ["cut", [time(found.time), `, seq ${count(found.seq)}`]],
    ["snapshot", [el("a", { href: snapshot.name }, snapshot.name), `, ${bytes(snapshot.length)}`]],
    ["sha256", el("code", {}, snapshot.sha256)],
  ];
  const title = `Checkpoint ${count(found.n)}`;
  if (!detail) {
    return { title, content: [facts(rows), el("p", { class: "hint" }, "What it came of is not known any more.")] };
  }
  const bins = counted(detail.bins.length, "bin");
  const brought = `${counted(detail.batches, "batch", "batches")} with ${counted(detail.changes, "change")}`;
  rows.unshift(["brought", `${brought}; ${bins} rendered${detail.all_bins ? ", which is all of them" : ""}`]);
  return {
    title,
    content: [
      neighbours(detail.previous, found.timestamp ? undefined : found.n + 1),
      facts(rows),
      section("How long it took", stagesOf(detail.stages)),
      section("Partitions", partitionsOf(detail)),
      section("Bins rendered", binsOf(detail.bins)),
    ],
  };
}

function neighbours(previous, next) {
  const links = [previous && ["← ", checkpointLink(previous)], next && [checkpointLink(next), " →"]];
  return el("nav", { class: "neighbours", "aria-label": "Other checkpoints" }, links.map((link) => el("span", {}, link)));
}

function stagesOf(stages) {
  const items = STAGES.map(([name, of, meaning]) =>
    el(
      "li",
      {},
      el("span", { class: `key stage ${name}`, "aria-hidden": "true" }),
      `${name} ${milliseconds(stages[of])}: ${meaning}`,
    ),
  );
  return [stageBar(stages), el("ul", { class: "legend tall" }, items), el("p", {}, `${milliseconds(took(stages))} in all.`)];
}

function partitionsOf({ partitions, waited_for: last }) {
  const slowest = Math.max(1, ...partitions.map((p) => p.reported_ms ?? 0));
  const rows = partitions.map((p) => {
    const isLast = p.partition === last;
    const reported = [bar(p.reported_ms / slowest, isLast ? "warn" : ""), milliseconds(p.reported_ms ?? 0)];
    return [
      [String(p.partition), isLast ? el("small", { class: "tag" }, "waited for") : ""],
      count(p.end - p.from),
      count(p.changes),
      count(p.bins),
      bytes(p.bytes),
      p.reported_ms === undefined ? "not asked" : reported,
    ];
  });
  return el("div", { class: "scroll" }, table("What each partition did", PARTITIONS, rows));
}

function binsOf(bins) {
  if (bins.length === 0) return el("p", { class: "hint" }, "None: nothing in them has changed.");
  const more = bins.length - NAMED_BINS;
  const items = bins.slice(0, NAMED_BINS).map((bin) => el("li", {}, binLink(bin)));
  return el("ul", { class: "names" }, items, more > 0 ? el("li", {}, `and ${count(more)} more`) : undefined);
}

async function bin(name) {
  let head;
  const read = async (path) => {
    const page = await get(`v1/bins/${quoted(name)}?limit=100${after("after", path)}`);
    head ??= page;
    return { rows: page.targets.map((t) => [targetLink(t.path), bytes(t.length), sha256(t.hashes)]), next: page.after };
  };
  const targets = await paged(`Targets of ${name}`, TARGETS, "This bin is empty.", read);
  const rows = [
    ["targets", count(head.count)],
    ["file", [el("a", { href: head.name }, head.name), `, ${bytes(head.length)}`]],
    ["sha256", el("code", {}, head.sha256)],
    ["version", [checkpointLink(head.version), ", made ", time(head.time)]],
    ["expires", time(head.expires)],
    ["partition", String(head.partition)],
  ];
  return { title: `Bin ${name}`, content: [facts(rows), section("Targets", targets)] };
}

const VIEWS = { search, target, checkpoint, bin };

/** The dialog: one place at a time. */
export class Detail {
  #dialog = byId("detail");
  #asked = 0;

  constructor(closed) {
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      closed();
    });
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && closed());
    byId("detail-close").addEventListener("click", closed);
  }

  close() {
    this.#asked += 1;
    this.#dialog.close();
  }

  /** Shows a place. A Refusal that another token would help with is thrown. */
  async show({ kind, name }) {
    this.#asked += 1;
    const asked = this.#asked;
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#fill(name, [el("p", { class: "hint" }, "Reading…")]);
    this.#dialog.setAttribute("aria-busy", "true");
    const view = await VIEWS[kind](name).catch((e) => {
      if (e instanceof Refusal && e.wantsToken) throw e;
      return { title: name, content: [el("p", { class: "hint bad", role: "alert" }, e.message)] };
    });
    if (asked !== this.#asked) return;
    this.#dialog.removeAttribute("aria-busy");
    this.#fill(view.title, view.content);
    this.#dialog.scrollTop = 0;
    byId("detail-title").focus();
  }

  #fill(title, content) {
    byId("detail-title").textContent = title;
    byId("detail-content").replaceChildren(...content.flat());
  }
}
