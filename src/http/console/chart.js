// Curves over the last minutes, second by second, in SVG. The charts of a group have one time axis and one cursor, which
// the pointer or the arrow keys move.

import { el, say, svg } from "./dom.js";
import { clock } from "./format.js";

const HEIGHT = 132;
const MARGIN = { top: 8, right: 8, bottom: 20, left: 46 };
/** What the time axis may span, in seconds. */
const SPANS = [120, 300, 900];
/** Across how many pixels stands one time at least. */
const TICK_PX = 76;

/** The least of 1, 2 and 5 times a power of ten that is not below n. */
function roundUp(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= n * 0.999);
}

/** From 0, with lines at equal distances. */
function linear(values, least) {
  const step = roundUp(Math.max(least, ...values) / 4);
  const top = step * Math.max(1, Math.ceil(Math.max(least, ...values) / step - 1e-9));
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => i * step);
  return { ticks, share: (value) => value / top };
}

/** With lines at powers of ten. */
function logarithmic(values, least) {
  const low = Math.floor(Math.log10(Math.max(1e-3, Math.min(least, ...values))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(least, ...values)) - 1e-9));
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  return { ticks, share: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low) };
}

/** A chart in a figure. */
class Chart {
  /** `series` are `{name, of}`: what is drawn, and how it is taken from a second; `format` writes a value. */
  constructor(figure, { title, series, format, least, isLogarithmic, nothing }, group) {
    Object.assign(this, { title, series, format, least, nothing, group, seconds: [] });
    this.scale = isLogarithmic ? logarithmic : linear;
    this.values = series.map(() => el("output", { class: "value" }));
    this.when = el("span", { class: "when" });
    this.plot = el("div", { class: "plot", tabindex: "0", role: "slider", "aria-label": title });
    const legend = series.map(({ name }, i) =>
      el("li", {}, el("span", { class: `key series-${i}`, "aria-hidden": "true" }), `${name} `, this.values[i]),
    );
    figure.append(el("figcaption", {}, el("h3", {}, title), el("ul", { class: "legend" }, legend), this.when), this.plot);
    this.#listen();
  }

  #listen() {
    const { plot, group } = this;
    const at = (event) => {
      const share = (event.offsetX - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right);
      group.moveTo(group.end - group.span * (1 - share));
    };
    plot.addEventListener("pointermove", at);
    plot.addEventListener("pointerdown", at);
    plot.addEventListener("pointerleave", () => group.moveTo(undefined));
    plot.addEventListener("blur", () => group.moveTo(undefined));
    plot.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: 60, PageDown: -60, Home: -Infinity, End: Infinity };
      if (!(event.key in steps)) return;
      event.preventDefault();
      group.moveBy(steps[event.key]);
    });
    new ResizeObserver(() => this.draw()).observe(plot);
  }

  draw() {
    this.width = this.plot.clientWidth;
    if (this.width === 0) return;
    const values = this.series.flatMap(({ of }) => this.seconds.map(of)).filter((value) => value !== undefined);
    const { ticks, share } = this.scale(values, this.least);
    const { start, end } = this.group;
    this.x = (t) => MARGIN.left + ((t - start) / (end - start)) * (this.width - MARGIN.left - MARGIN.right);
    this.y = (value) => MARGIN.top + (1 - share(value)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    this.cursor = svg("g", { class: "cursor" });
    const size = { width: this.width, height: HEIGHT, "aria-hidden": "true" };
    const curves = this.series.map(({ of }, i) => this.#curve(of, i));
    this.plot.replaceChildren(svg("svg", size, this.#grid(ticks), this.#times(), curves, this.cursor));
    if (values.length === 0) this.plot.append(el("p", { class: "nothing" }, this.nothing));
    this.read();
  }

  #grid(ticks) {
    const right = this.width - MARGIN.right;
    return ticks.flatMap((tick) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: this.y(tick), y2: this.y(tick) }),
      svg("text", { class: "tick", x: MARGIN.left - 6, y: this.y(tick) + 4, "text-anchor": "end" }, this.format(tick)),
    ]);
  }

  #times() {
    const { start, end, span } = this.group;
    const minutes = [1, 2, 3, 5].find((m) => (this.width - MARGIN.left) / ((span / 60 / m) * TICK_PX) >= 1) ?? 5;
    const marks = [];
    for (let t = end; t >= start; t -= minutes * 60) {
      const text = t === end ? "now" : `−${(end - t) / 60} min`;
      const anchor = t === end ? "end" : t === start ? "start" : "middle";
      marks.push(svg("text", { class: "tick", x: this.x(t), y: HEIGHT - 5, "text-anchor": anchor }, text));
    }
    return marks;
  }

  /** A line over the seconds that follow each other and have a value. */
  #curve(of, i) {
    let [path, last] = ["", undefined];
    for (const second of this.seconds) {
      const value = of(second);
      if (value === undefined) continue;
      const point = `${this.x(second.time).toFixed(1)} ${this.y(value).toFixed(1)}`;
      path += last !== undefined && second.time - last <= 2 ? `L${point}` : `M${point}h0`;
      last = second.time;
    }
    return svg("path", { class: `curve series-${i}`, d: path });
  }

  /** Says the values at the cursor, or else the newest. */
  read() {
    if (!this.cursor) return;
    const at = this.group.cursor;
    const second = at === undefined ? this.seconds.at(-1) : this.seconds.find(({ time }) => time === at);
    const texts = this.series.map(({ of }) => {
      const value = second && of(second);
      return value === undefined ? "–" : this.format(value);
    });
    texts.forEach((text, i) => say(this.values[i], text));
    say(this.when, at === undefined ? "" : `${clock(at)} UTC`);
    const line = { x1: this.x(at), x2: this.x(at), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom };
    this.cursor.replaceChildren(...(at === undefined ? [] : [svg("line", line)]));
    this.#speak(second, texts);
  }

  #speak(second, texts) {
    const { plot, group } = this;
    const said = this.series.map(({ name }, i) => `${name} ${texts[i]}`).join(", ");
    plot.setAttribute("aria-valuemin", Math.round(group.start - group.end));
    plot.setAttribute("aria-valuemax", 0);
    plot.setAttribute("aria-valuenow", Math.round((second?.time ?? group.end) - group.end));
    plot.setAttribute("aria-valuetext", second ? `${clock(second.time)} UTC: ${said}` : "nothing known");
  }
}

/** Charts with one time axis and one cursor. */
export class Charts {
  #charts = [];
  #seconds = [];
  #chosen = SPANS.at(-1);
  end = 0;
  span = SPANS[0];
  cursor = undefined;

  add(figure, options) {
    this.#charts.push(new Chart(figure, options, this));
  }

  get start() {
    return this.end - this.span;
  }

  /** The last second that is known, for the question after what came later. */
  get newest() {
    return this.#seconds.at(-1)?.time ?? 0;
  }

  /** Takes seconds that are new. */
  push(seconds) {
    const longest = SPANS.at(-1);
    this.#seconds.push(...seconds.filter(({ time }) => time > this.newest));
    this.#seconds = this.#seconds.filter(({ time }) => time >= this.newest - longest);
    this.#draw();
  }

  /** Spans so many seconds, or less if that holds all that is known. */
  choose(span) {
    this.#chosen = span;
    this.#draw();
  }

  #draw() {
    this.end = this.newest;
    const known = this.end - (this.#seconds[0]?.time ?? this.end);
    this.span = Math.min(this.#chosen, SPANS.find((span) => span >= known) ?? SPANS.at(-1));
    if (this.cursor < this.start) this.cursor = undefined;
    for (const chart of this.#charts) {
      chart.seconds = this.#seconds.filter(({ time }) => time >= this.start);
      chart.draw();
    }
  }

  /** Puts the cursor on the second that is next to a time; takes it away where there is none. */
  moveTo(time) {
    const distance = (second) => Math.abs(second.time - time);
    const nearest = (best, second) => (distance(second) < distance(best) ? second : best);
    this.cursor = time === undefined ? undefined : this.#seconds.length && this.#seconds.reduce(nearest).time;
    this.#charts.forEach((chart) => chart.read());
  }

  /** Moves the cursor by so many seconds that are known. */
  moveBy(steps) {
    const last = this.#seconds.length - 1;
    const from = this.#seconds.findIndex(({ time }) => time === this.cursor);
    const to = Math.max(0, Math.min(last, (from < 0 ? last : from) + steps));
    this.moveTo(this.#seconds[to]?.time);
  }
}
