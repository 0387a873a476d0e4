// A grid of cells on a canvas, coloured by value. One cell is selected: by the pointer, or by the arrow keys.

/** How high a cell is at most, and the grid on a wide page, in pixels. */
const CELL_PX = 40;
const WIDE = { width: 700, height: 360 };
/** From this size on, in pixels of the screen, there is a gap between cells. */
const GAP_FROM = 6;

/** Columns, a power of two of them, so that a row is a stretch of equal prefixes; and the height that comes of it. */
function arrange(cells, width) {
  const high = width >= WIDE.width ? WIDE.height : width;
  let columns = 1;
  const height = () => Math.ceil(cells / columns) * Math.min(width / columns, CELL_PX);
  while (columns < cells && (height() > high || width / columns > 2.5 * CELL_PX)) columns *= 2;
  return { columns, rows: Math.ceil(cells / columns), height: height() };
}

/** See the module. */
export class HeatMap {
  #canvas;
  #cells = [];
  #selected = 0;
  #grid;
  #heard;

  /** `heard` has `selected(index)` and `opened(index)`. */
  constructor(canvas, heard) {
    this.#canvas = canvas;
    this.#heard = heard;
    canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.select(this.#at(event)));
    canvas.addEventListener("pointerdown", (event) => this.select(this.#at(event)));
    canvas.addEventListener("click", (event) => event.detail > 0 && this.#clicked(event));
    canvas.addEventListener("keydown", (event) => this.#pressed(event));
    canvas.addEventListener("focus", () => this.select(this.#selected));
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get selected() {
    return this.#selected;
  }

  /** The cells: of each `share`, from 0 to 1, and `isNew`. */
  show(cells) {
    this.#cells = cells;
    this.#canvas.dataset.cells = cells.length;
    this.#selected = Math.min(this.#selected, Math.max(0, cells.length - 1));
    this.draw();
  }

  select(index) {
    if (index < 0 || index >= this.#cells.length) return;
    this.#selected = index;
    this.draw();
    this.#heard.selected(index);
  }

  draw() {
    const width = this.#canvas.parentElement.clientWidth;
    if (width === 0 || this.#cells.length === 0) return;
    const { columns, rows, height } = arrange(this.#cells.length, width);
    const scale = devicePixelRatio;
    const canvas = this.#canvas;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.blockSize = `${height}px`;
    this.#grid = { columns, rows, width, height };
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    const ramp = [1, 2, 3, 4, 5].map((step) => colour(`--heat-${step}`));
    const context = canvas.getContext("2d");
    this.#cells.forEach(({ share }, i) => {
      const [x, y, w, h] = this.#box(i, scale);
      const gap = Math.min(w, h) >= GAP_FROM ? 1 : 0;
      context.fillStyle = ramp[Math.min(ramp.length - 1, Math.floor(share * ramp.length))];
      context.fillRect(x, y, w - gap, h - gap);
    });
    this.#outline(context, scale, colour("--text"), colour("--surface"));
  }

  /** A ring around the selected cell, of two colours, so that it is seen on every third. */
  #outline(context, scale, ink, paper) {
    const [x, y, w, h] = this.#box(this.#selected, scale);
    const unit = Math.max(1, Math.round(scale));
    const { width, height } = this.#canvas;
    const [left, top] = [x, y].map((edge) => Math.max(2 * unit, edge - unit));
    const [right, bottom] = [Math.min(width - 2 * unit, x + w + unit), Math.min(height - 2 * unit, y + h + unit)];
    for (const [colour, lines] of [[paper, 4], [ink, 2]]) {
      context.lineWidth = lines * unit;
      context.strokeStyle = colour;
      context.strokeRect(left, top, right - left, bottom - top);
    }
  }

  /** Where a cell stands, in whole pixels of the screen. */
  #box(i, scale) {
    const { columns, rows, width, height } = this.#grid;
    const across = (column) => Math.round((column * width * scale) / columns);
    const down = (row) => Math.round((row * height * scale) / rows);
    const [column, row] = [i % columns, Math.floor(i / columns)];
    return [across(column), down(row), across(column + 1) - across(column), down(row + 1) - down(row)];
  }

  #at({ offsetX, offsetY }) {
    const { columns, rows, width, height } = this.#grid;
    const column = Math.max(0, Math.min(columns - 1, Math.floor((offsetX / width) * columns)));
    const row = Math.max(0, Math.min(rows - 1, Math.floor((offsetY / height) * rows)));
    return row * columns + column;
  }

  /** A mouse says which cell it is over before it clicks; a finger selects first and opens with the button. */
  #clicked(event) {
    if (event.pointerType === "mouse") this.#heard.opened(this.#at(event));
  }

  #pressed(event) {
    const { columns, rows } = this.#grid ?? { columns: 1, rows: 1 };
    const last = this.#cells.length - 1;
    const page = columns * Math.ceil(rows / 8);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page };
    const ends = { Home: 0, End: last };
    if (event.key === "Enter") this.#heard.opened(this.#selected);
    else if (event.key in ends) this.select(ends[event.key]);
    else if (event.key in steps) this.select(Math.max(0, Math.min(last, this.#selected + steps[event.key])));
    else return;
    event.preventDefault();
  }
}
