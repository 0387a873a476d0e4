// The bins of the newest checkpoint: a heat map by size, what the selected one is, and the same as a table.

import { get } from "./api.js";
import { byId, renew, say, table } from "./dom.js";
import { bytes, count, counted, time } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { binLink, checkpointLink, placeOf } from "./links.js";

/** How many of the largest bins the table has. */
const LISTED = 20;
/** How long after an answer it is asked again at the earliest, in milliseconds: longer where there are many. */
const PAUSE = (bins) => (bins > 2_000 ? 10_000 : 5_000);

function median(sorted) {
  return sorted[Math.floor(sorted.length / 2)];
}

export class Bins {
  #answer = { checkpoint: 0, bins: [] };
  #asked = -Infinity;
  #asking = false;
  #map = new HeatMap(byId("heat"), {
    selected: () => this.#describe(),
    opened: (i) => this.#open(i),
  });

  constructor() {
    byId("bin-open").addEventListener("click", () => this.#open(this.#map.selected));
    byId("bin-before").addEventListener("click", () => this.#map.select(this.#map.selected - 1));
    byId("bin-after").addEventListener("click", () => this.#map.select(this.#map.selected + 1));
  }

  /** Asks for the bins if there is a checkpoint that they are not of, and not too often. */
  async follow(checkpoint) {
    const pause = PAUSE(this.#answer.bins.length);
    if (checkpoint === this.#answer.checkpoint || this.#asking || performance.now() - this.#asked < pause) return;
    this.#asking = true;
    try {
      this.#answer = await get("v1/bins");
      this.#show();
    } finally {
      this.#asking = false;
      this.#asked = performance.now();
    }
  }

  #open(i) {
    const bin = this.#answer.bins[i];
    if (bin) location.hash = placeOf("bin", bin.bin);
  }

  #show() {
    const { bins, checkpoint } = this.#answer;
    const lengths = bins.map(({ length }) => length).sort((a, b) => a - b);
    const [least, most] = [lengths[0], lengths.at(-1)];
    const spread = Math.max(1, most - least);
    this.#map.show(bins.map(({ length }) => ({ share: (length - least) / spread })));
    byId("bins-panel").classList.toggle("waiting", bins.length === 0);
    if (bins.length === 0) return;
    say(byId("heat-least"), bytes(least));
    say(byId("heat-most"), bytes(most));
    const range = `${bytes(least)} to ${bytes(most)}, median ${bytes(median(lengths))}`;
    const sizes = least === most ? `each ${bytes(least)}` : range;
    const all = `${counted(bins.length, "bin")}, ${bytes(this.#answer.length)} together, ${sizes}`;
    say(byId("bins-summary"), `${all}; as of checkpoint #${count(checkpoint)}`);
    this.#list();
    this.#describe();
  }

  #list() {
    const largest = [...this.#answer.bins].sort((a, b) => b.length - a.length).slice(0, LISTED);
    const columns = [["Bin"], ["Size", "number"], ["Partition", "number"], ["Version", "number"], ["Made"]];
    const rows = largest.map((bin) => [
      binLink(bin.bin),
      bytes(bin.length),
      String(bin.partition),
      checkpointLink(bin.version),
      bin.time ? time(bin.time) : "",
    ]);
    renew(byId("bins-table"), table(`The ${rows.length} largest bins`, columns, rows));
  }

  /** Says what the selected bin is. */
  #describe() {
    const bin = this.#answer.bins[this.#map.selected];
    if (!bin) return;
    say(byId("bin-name"), bin.bin);
    say(byId("bin-says"), `${bytes(bin.length)}, partition ${bin.partition}, version ${count(bin.version)}`);
    byId("bin-made").replaceChildren(...(bin.time ? [", made ", time(bin.time)] : []));
  }
}
