// The feed of checkpoints. EventSource cannot send a token, so the stream is read with fetch; a lost one is taken up
// again behind the last event.

import { ask } from "./api.js";

/** The shortest and the longest pause before the next attempt, in milliseconds. */
const PAUSE = [500, 10_000];
/** The node says something every 15 s: a stream that is silent for so long, in milliseconds, is dead. */
const SILENCE = 40_000;

/** Splits a stream of text into events: `{id, data}`. */
class EventParser {
  #rest = "";
  #event = {};

  /** The events that these characters complete. */
  push(text) {
    const lines = (this.#rest + text).split(/\r?\n/);
    this.#rest = lines.pop();
    return lines.map((line) => this.#line(line)).filter((event) => event !== undefined);
  }

  #line(line) {
    if (line === "") {
      const event = this.#event;
      this.#event = {};
      return event.data === undefined && event.id === undefined ? undefined : event;
    }
    const [, name, value] = line.match(/^([^:]*):? ?(.*)$/);
    if (name === "id") this.#event.id = value;
    if (name === "data") this.#event.data = this.#event.data === undefined ? value : `${this.#event.data}\n${value}`;
    return undefined;
  }
}

/** Follows the checkpoints until it is stopped. */
export class Feed {
  #heard;
  #last;
  #stop = new AbortController();

  /**
   * Hands what comes behind the seq `last` to `heard.came`; from now on if there is no seq. Where the ledger ends before
   * that seq it ends, and says so to `heard.isAnother`.
   */
  constructor(last, heard) {
    this.#last = last;
    this.#heard = heard;
    this.#run();
  }

  stop() {
    this.#stop.abort();
  }

  async #run() {
    let pause = PAUSE[0];
    while (!this.#stop.signal.aborted) {
      const before = this.#last;
      try {
        await this.#read();
      } catch (e) {
        // The ledger ends before that seq: it is another repository now.
        if (e.status === 400) return this.#heard.isAnother();
      }
      pause = this.#last === before ? Math.min(pause * 2, PAUSE[1]) : PAUSE[0];
      await new Promise((wake) => setTimeout(wake, pause * (0.5 + Math.random() / 2)));
    }
  }

  async #read() {
    const silence = new AbortController();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE);
    };
    heard();
    try {
      const headers = this.#last === undefined ? {} : { "last-event-id": String(this.#last) };
      const signal = AbortSignal.any([this.#stop.signal, silence.signal]);
      const response = await ask("v1/feed?events=checkpoint", { headers, signal });
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        heard();
        parser.push(value).forEach((event) => this.#take(event));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take({ id, data }) {
    if (id !== undefined) this.#last = Number(id);
    if (data !== undefined) this.#heard.came(JSON.parse(data)); // an id alone says where to go on
  }
}
