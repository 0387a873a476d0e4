// The checkpoints as they come, newest first. Where they come faster than anybody reads, one a second is shown, with how
// many came between.

import { get } from "./api.js";
import { byId, el, row, say, table } from "./dom.js";
import { Feed } from "./feed.js";
import { count, counted, milliseconds, time } from "./format.js";
import { checkpointLink } from "./links.js";

/** How many are shown. */
const SHOWN = 40;
/** How many are asked for in the beginning. */
const FIRST = 10;
/** How long after one is shown the next may be, in milliseconds. */
const PAUSE_MS = 1_000;
/** Where one that has come is not published yet: how long after it is asked for again, in milliseconds, and how often. */
const MOMENT_MS = 100;
const TRIES = 5;
/** How often one is read aloud at most, in milliseconds. */
const SPOKEN_MS = 10_000;

const COLUMNS = [
  ["Checkpoint"],
  ["Cut"],
  ["Batches", "number wide"],
  ["Changes", "number"],
  ["Bins", "number"],
  ["Took", "took"],
];

export const STAGES = [
  ["gathered", "gathered_ms", "from its first Commit to its Cut"],
  ["folded", "folded_ms", "bins folded, rendered, signed and stored"],
  ["sealed", "sealed_ms", "the snapshot rendered, signed and stored"],
];

/** How long the stages of a checkpoint took together, in milliseconds. */
export function took(stages) {
  return STAGES.reduce((sum, [, of]) => sum + stages[of], 0);
}

/** The stages side by side, each as wide as it took long. */
export function stageBar(stages) {
  const parts = STAGES.filter(([, of]) => stages[of] > 0).map(([name, of]) => {
    const part = el("span", { class: `stage ${name}` });
    part.style.flexGrow = stages[of];
    return part;
  });
  return el("span", { class: "stages", "aria-hidden": "true" }, parts);
}

export class Checkpoints {
  #list = byId("checkpoints");
  #feed;
  /** Another one for each start; nothing when it is stopped. */
  #turn;
  /** The newest one that is known, and the newest one shown. */
  #newest;
  #shown = 0;
  #showing = false;
  #held = false;
  #spoken = -Infinity;

  constructor() {
    const hold = (held) => (event) => {
      if (event.pointerType === "mouse") this.#hold(held);
    };
    this.#list.addEventListener("pointerenter", hold(true));
    this.#list.addEventListener("pointerleave", hold(false));
  }

  /** Shows the newest ones and follows those that come, from the beginning. */
  async start() {
    this.stop();
    const turn = (this.#turn = {});
    try {
      await this.#begin(turn);
    } catch (e) {
      if (this.#turn === turn) this.stop();
      throw e;
    }
  }

  async #begin(turn) {
    const { checkpoints } = await get(`v1/checkpoints?limit=${FIRST}`);
    const full = await Promise.all(checkpoints.map((one) => this.#full(one)));
    if (this.#turn !== turn) return;
    this.#list.replaceChildren(table("The newest checkpoints", COLUMNS, full.map((one) => this.#cells(one))));
    this.#newest = checkpoints[0];
    this.#shown = this.#newest?.n ?? 0;
    this.#list.classList.toggle("waiting", checkpoints.length === 0);
    // In another repository nothing that is known holds: it is begun anew.
    const heard = { came: (line) => this.#came(line), isAnother: () => this.stop() };
    this.#feed = new Feed(this.#newest?.seq, heard);
  }

  /** Whether they are followed: not before the start, and not after the node turned out to have another repository. */
  get isFollowing() {
    return this.#turn !== undefined;
  }

  stop() {
    this.#feed?.stop();
    this.#feed = this.#turn = undefined;
  }

  #hold(held) {
    this.#held = held;
    if (!held) this.#showNext();
    this.#say();
  }

  #came({ n, time_ms: ms }) {
    if (n <= (this.#newest?.n ?? 0)) return;
    this.#newest = { n, time: ms / 1000 };
    this.#say();
    this.#showNext();
  }

  #say() {
    const waiting = (this.#newest?.n ?? 0) - this.#shown;
    const text = this.#held && waiting > 0 ? `held while you point at it: ${counted(waiting, "newer one")}` : "";
    say(byId("checkpoints-held"), text);
  }

  async #showNext() {
    if (this.#showing || this.#held || !this.#newest || this.#newest.n <= this.#shown) return;
    this.#showing = true;
    const one = await this.#published(this.#newest.n).catch(() => undefined);
    if (one?.n > this.#shown) {
      const between = one.n - this.#shown - 1;
      this.#shown = one.n;
      this.#insert(await this.#full(one), between);
    }
    setTimeout(() => {
      this.#showing = false;
      this.#showNext();
    }, PAUSE_MS);
  }

  /** The newest published one from n on; nothing where it takes longer than a moment until timestamp.json leads there. */
  async #published(n) {
    for (let tries = 0; this.#feed && tries < TRIES; tries += 1) {
      if (tries > 0) await new Promise((wake) => setTimeout(wake, MOMENT_MS));
      const { checkpoints } = await get("v1/checkpoints?limit=1");
      if (checkpoints[0]?.n >= n) return checkpoints[0];
    }
    return undefined;
  }

  /** With its detail, or as it is where that cannot be had. */
  async #full(one) {
    return get(`v1/checkpoints/${one.n}`).catch(() => one);
  }

  #insert(one, between) {
    const body = this.#list.querySelector("tbody");
    const line = row(COLUMNS, this.#cells(one, between));
    line.classList.add("new");
    body.prepend(line);
    while (body.rows.length > SHOWN) body.lastElementChild.remove();
    this.#list.classList.remove("waiting");
    this.#speak(one, between);
  }

  #cells({ n, time: cut, detail }, between = 0) {
    const name = [checkpointLink(n), between > 0 ? el("small", {}, ` +${count(between)}`) : undefined];
    if (between > 0) name[1].title = `${counted(between, "other")} since the one below`;
    if (!detail) return [name, time(cut), "–", "–", "–", "–"];
    const { batches, changes, bins, stages } = detail;
    const ms = took(stages);
    return [name, time(cut), count(batches), count(changes), count(bins.length), [stageBar(stages), milliseconds(ms)]];
  }

  #speak({ n, detail }, between) {
    if (performance.now() - this.#spoken < SPOKEN_MS) return;
    this.#spoken = performance.now();
    const brought = detail ? `, ${counted(detail.changes, "change")} in ${counted(detail.batches, "batch", "batches")}` : "";
    const others = between > 0 ? `, and ${count(between)} before it` : "";
    say(byId("spoken"), `Checkpoint ${n} has come${brought}${others}`);
  }
}
