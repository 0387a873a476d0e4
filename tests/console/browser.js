// A page of the console in Chromium, and everything that goes wrong on it.
'use strict';
const path = require('path');

const dir = process.env.TUFLOG_CONSOLE_DIR || path.join(__dirname, '../../.cache/console');
const puppeteer = require(path.join(dir, 'node_modules/puppeteer-core'));

/** How long a condition is waited for, in milliseconds. */
const PATIENCE_MS = 15_000;

function launch() {
  // Without a sandbox, for tests run as root; it opens nothing but this node's pages.
  const args = ['--no-sandbox', '--disable-dev-shm-usage', '--no-first-run'];
  return puppeteer.launch({ executablePath: path.join(dir, 'bin/chromium'), args });
}

class Page {
  /** Opens the console at `url`, with all that is stored on it its own. `expected` matches what may be complained of. */
  static async open(browser, url, { hash = '', size = [1400, 900], scheme = 'light', expected = /^$/ } = {}) {
    const context = await browser.createBrowserContext();
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    const self = new Page(context, page, url);
    self.listen(expected);
    const [width, height] = size;
    const isPhone = width < 500;
    await page.setViewport({ width, height, deviceScaleFactor: isPhone ? 2 : 1, isMobile: isPhone, hasTouch: isPhone });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
    await page.goto(`${url}/${hash}`);
    return self;
  }

  constructor(context, page, url) {
    Object.assign(this, { context, page, url, complaints: [], met: [] });
  }

  /** A violated policy is an error of the browser's console, too. */
  listen(expected) {
    const complain = (what) => expected.test(what) || this.complaints.push(what);
    this.page.on('console', (m) => ['error', 'warn'].includes(m.type()) && complain(m.text()));
    this.page.on('pageerror', (e) => complain(String(e)));
    this.page.on('dialog', (d) => complain(`a dialog says ${d.message()}`));
    this.page.on('request', (r) => {
      if (!r.url().startsWith(`${this.url}/`) && !r.url().startsWith('data:')) complain(`a request to ${r.url()}`);
    });
  }

  /** Answers the next requests for an address in the place of the node; answers what waits for the first of them. */
  async meet(address, answer, times = 1) {
    let met;
    const first = new Promise((resolve) => (met = resolve));
    this.met.push((request) => {
      if (request.url() !== this.url + address || times === 0) return false;
      times -= 1;
      met();
      answer(request);
      return true;
    });
    if (this.met.length === 1) {
      await this.page.setRequestInterception(true);
      this.page.on('request', (request) => this.met.some((meets) => meets(request)) || request.continue());
    }
    return () => first;
  }

  /** Waits until a function in the page says something true, and answers that. */
  async until(what, condition, ...args) {
    try {
      const found = await this.page.waitForFunction(condition, { polling: 50 }, ...args);
      return await found.jsonValue();
    } catch (e) {
      const shown = await this.page.evaluate(() => document.body.innerText).catch(() => '');
      throw new Error(`${what}: ${e.message}; the page shows:\n${shown}`);
    }
  }

  /** Waits until the text of an element matches. */
  shows(selector, pattern) {
    const matches = (selector, source) => {
      const node = document.querySelector(selector);
      return node && node.checkVisibility() && new RegExp(source).test(node.innerText);
    };
    return this.until(`${selector} shows ${pattern}`, matches, selector, pattern.source);
  }

  /** Waits until the page is complete: what stands beside the numbers, too. */
  async ready() {
    await this.shows('#state', /^ready$/);
    await this.shows('#bin-says', /version/);
    await this.shows('#checkpoints', /#\d/);
    await this.shows('#partitions', /^Partition/i);
  }

  press(...keys) {
    return keys.reduce((before, key) => before.then(() => this.page.keyboard.press(key)), Promise.resolve());
  }

  go(hash) {
    return this.page.evaluate((hash) => (location.hash = hash), hash);
  }

  hash() {
    return this.page.evaluate(() => location.hash);
  }

  /** A picture, where the environment names a directory for them. */
  async shoot(name) {
    const shots = process.env.TUFLOG_CONSOLE_SHOTS;
    if (shots) await this.page.screenshot({ path: path.join(shots, `${name}.png`) });
  }

  /** Nothing went wrong on it. */
  async close() {
    await this.context.close();
    if (this.complaints.length > 0) throw new Error(`the page at ${this.url}: ${this.complaints.join('; ')}`);
  }
}

/** In the page: texts whose colour is too near to that of their background, by WCAG's measure. */
function faint() {
  const parse = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const light = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3) return colour;
    }
    return [255, 255, 255];
  };
  const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== '');
  const seen = [...document.querySelectorAll('body *')].filter((node) => hasText(node) && node.checkVisibility());
  return seen.flatMap((node) => {
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(node.closest('svg') ? style.fill : style.color)), light(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return contrast < 4.5 ? [`${contrast.toFixed(2)} of ${JSON.stringify(node.textContent.slice(0, 40))}`] : [];
  });
}

/** In the page: what a finger cannot hit. */
function small() {
  const touched = document.querySelectorAll('button, input[type=search], input[type=password], summary, label:has(input)');
  const box = (node) => node.getBoundingClientRect();
  const hidden = (node) => !node.checkVisibility() || box(node).width <= 1;
  return [...touched].filter((node) => !hidden(node) && box(node).height < 44).map((node) => node.outerHTML);
}

module.exports = { launch, Page, faint, small };
