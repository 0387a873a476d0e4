// Drives the console of a running node in Chromium.
//
//   drive.js URL GUARDED_URL TOKEN
//
// GUARDED_URL is of a node that wants a token. The first node is stopped and started while it is looked at: this asks
// for it with a line `stop` or `start` on stdout, and goes on when a line comes on stdin. Exit code 0 if all is well;
// what is not is said on stderr. Both repositories have 64 bins and nothing published; the first is published to.
'use strict';
const assert = require('assert/strict');
const readline = require('readline');
const { launch, Page, faint, small } = require('./browser.js');

const PATH = 'pool/main/h/hello/hello_2.10+b~1_amd64.deb';
const HOSTILE = '<img src=x onerror="alert(1)">';

const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function askFor(what) {
  console.log(what);
  await answers.next();
}

function add(path, length = 5) {
  return { op: 'add', path, length, hashes: { sha256: 'ab'.repeat(32) }, custom: { note: HOSTILE } };
}

/** Publishes a batch; answers its checkpoint. */
async function publish(url, id, changes) {
  const headers = { 'content-type': 'application/json' };
  const request = { method: 'POST', headers, body: JSON.stringify({ id, changes }) };
  const response = await fetch(`${url}/v1/batches?wait=published`, request);
  const answer = await response.json();
  assert.equal(answer.state, 'published', JSON.stringify(answer));
  return answer.checkpoint;
}

async function anEmptyRepositoryIsSaidToBeOne(browser, { url }) {
  const page = await Page.open(browser, url);
  await page.ready();
  await page.shows('#empty', /tuflog import/);
  await page.shows('#bins-summary', /64 bins.*each/);
  await page.shows('#expiries', /timestamp[^]*in 2\d h/);
  await page.shoot('empty');
  await page.close();
}

async function aCheckpointArrivesWithoutReload(browser, { url }) {
  const page = await Page.open(browser, url);
  await page.ready();
  await page.page.evaluate(() => (window.isTheSame = true));
  await publish(url, 'one', [add(PATH), ...Array.from({ length: 300 }, (_, i) => add(`many/${i}`))]);
  await publish(url, 'take-back', [{ op: 'remove', path: PATH }]);
  const n = await publish(url, 'again', [add(PATH, 7)]);
  await page.shows('#checkpoints tbody tr', new RegExp(`^#${n}\\s`));
  await page.shows('#facts', new RegExp(`#${n}`));
  await page.shows('#bins-summary', new RegExp(`#${n}`));
  await page.until('it is read aloud', () => /^Checkpoint \d+ has come/.test(document.getElementById('spoken').textContent));
  await page.until('it is drawn', () => /L/.test(document.querySelector('#chart-changes .curve').getAttribute('d')));
  assert.ok(await page.page.evaluate(() => window.isTheSame), 'it was loaded again');
  await page.page.click('#checkpoints tbody a');
  await page.shows('#detail', /1 batch with 1 change; 1 bin rendered/);
  await page.shows('#detail', /waited for/);
  await page.shoot('checkpoint');
  await page.close();
}

async function aSearchEndsInAHistoryByKeyboardAlone(browser, { url }) {
  const page = await Page.open(browser, url);
  await page.ready();
  await page.press('/');
  await page.page.keyboard.type('hello_2.10+b');
  await page.press('Enter');
  await page.shows('#detail-content', new RegExp('hello_2'));
  await page.press('Tab', 'Enter');
  await page.shows('#detail h2', /^pool\/main/);
  await page.shows('#detail section', /History/);
  const changes = await page.page.$$eval('#detail .op', (ops) => ops.map((op) => op.textContent));
  assert.deepEqual(changes, ['add', 'remove', 'add']);
  assert.equal(await page.hash(), `#/target/${encodeURIComponent(PATH).replaceAll('%2F', '/')}`);
  await page.shoot('target');
  await page.press('Escape');
  await page.until('it is closed', () => !document.getElementById('detail').open);
  await page.press('/');
  assert.equal(await page.page.evaluate(() => document.activeElement.id), 'query');
  await page.close();
}

async function whatStrangersWriteIsText(browser, { url }) {
  const page = await Page.open(browser, url, { expected: /status of 400/ });
  await page.go(`#/target/${PATH}`);
  await page.shows('#detail pre', /<img src=x onerror=/);
  for (const kind of ['search', 'target', 'bin', 'checkpoint']) {
    await page.go(`#/${kind}/${encodeURIComponent(HOSTILE)}`);
    await page.until('it has answered', () => !document.getElementById('detail').hasAttribute('aria-busy'));
    await page.shows('#detail-title', /<img src=x/);
  }
  assert.equal(await page.page.$('img'), null);
  await page.close();
}

async function anAddressLeadsToAPlace(browser, { url }) {
  const page = await Page.open(browser, url, { hash: '#/checkpoint/1' });
  await page.shows('#detail', /64 bins rendered, which is all of them/);
  await page.page.click('#detail .names a');
  await page.shows('#detail h2', /^Bin bins-00$/);
  await page.page.goBack();
  await page.shows('#detail h2', /^Checkpoint 1$/);
  await page.page.goForward();
  await page.shows('#detail h2', /^Bin bins-00$/);
  await page.page.reload();
  await page.shows('#detail h2', /^Bin bins-00$/);
  await page.go('#/target/never/there');
  await page.shows('#detail', /Nothing is published under this path now[^]*never been changed/);
  page.complaints = page.complaints.filter((what) => !/status of 404/.test(what));
  await page.close();
}

async function theHeatMapHasACellForEachBin(browser, { url }) {
  const page = await Page.open(browser, url);
  await page.ready();
  assert.equal(await page.page.$eval('#heat', (canvas) => canvas.dataset.cells), '64');
  await page.page.focus('#heat');
  await page.press('End');
  await page.shows('#bin-name', /^bins-3f$/);
  await page.press('ArrowUp', 'ArrowRight');
  await page.shows('#bin-name', /^bins-(?!3f)[0-3][0-9a-f]$/);
  await page.press('Home', 'Enter');
  await page.shows('#detail h2', /^Bin bins-00$/);
  await page.close();
}

async function aChartIsReadByKeyboard(browser, { url }) {
  const page = await Page.open(browser, url);
  await page.ready();
  await page.page.focus('#chart-visible .plot');
  await page.press('Home', 'ArrowRight');
  await page.shows('#chart-changes .when', /^\d\d:\d\d:\d\d UTC$/);
  const said = await page.page.$eval('#chart-visible .plot', (plot) => plot.getAttribute('aria-valuetext'));
  assert.match(said, /^\d\d:\d\d:\d\d UTC: p50 .*, p99 /);
  await page.close();
}

/** What stands beside the overview, one after the other. */
const PLACES = ['', `#/target/${PATH}`, '#/checkpoint/2', '#/bin/bins-0a', '#/search/many'];

async function itFitsAPhone(browser, { url }) {
  const page = await Page.open(browser, url, { size: [360, 740] });
  await page.ready();
  for (const place of PLACES) {
    await page.go(place);
    if (place) await page.until('it has answered', () => document.querySelector('#detail h2 + * > :not(.hint)'));
    const [wide, dialog] = await page.page.evaluate(() => {
      const detail = document.getElementById('detail');
      return [document.documentElement.scrollWidth, detail.scrollWidth - detail.clientWidth];
    });
    assert.deepEqual([wide, dialog], [360, 0], `it is too wide at ${place}`);
    assert.deepEqual(await page.page.evaluate(small), []);
    await page.shoot(`phone-${PLACES.indexOf(place)}`);
  }
  await page.close();
}

async function itIsReadableInBothSchemes(browser, { url }) {
  const grounds = [];
  for (const scheme of ['light', 'dark']) {
    const page = await Page.open(browser, url, { scheme });
    await page.ready();
    for (const place of PLACES) {
      await page.go(place);
      if (place) await page.until('it has answered', () => document.querySelector('#detail h2 + * > :not(.hint)'));
      assert.deepEqual(await page.page.evaluate(faint), [], `${scheme} at ${place}`);
    }
    grounds.push(await page.page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    await page.shoot(scheme);
    await page.close();
  }
  assert.notEqual(grounds[0], grounds[1]);
}

async function aTokenIsAskedFor(browser, { guarded, token }) {
  const page = await Page.open(browser, guarded, { expected: /status of 401/, hash: '#/checkpoint/1' });
  await page.shows('#token-why', /send a token/);
  await page.shoot('token');
  await page.page.type('#token', 'not-the-token-0123456789');
  await page.press('Enter');
  await page.shows('#token-why', /not known here/);
  await page.page.type('#token', token);
  await page.press('Enter');
  await page.shows('#detail h2', /^Checkpoint 1$/);
  await page.press('Escape');
  await page.ready();
  assert.equal(await page.page.$eval('#token', (field) => field.value), '');
  await page.page.reload();
  await page.ready();
  await page.close();
}

async function aLostNodeIsFoundAgain(browser, { url }) {
  const page = await Page.open(browser, url, { expected: /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_CONNECTION_RESET/ });
  await page.ready();
  await askFor('stop');
  await page.shows('#lost', /No connection to this node since \d{4}/);
  await page.shows('#state', /no connection/);
  await page.shoot('lost');
  await askFor('start');
  await page.shows('#state', /^ready$/);
  await page.until('nothing is lost any more', () => document.getElementById('lost').hidden);
  const n = await publish(url, 'after', [add('after/all')]);
  await page.shows('#checkpoints tbody tr', new RegExp(`^#${n}\\s`));
  await page.close();
}

async function whatFailsOnceIsAskedAgain(browser, { url }) {
  const page = await Page.open(browser, url, { expected: /ERR_FAILED/ });
  await page.ready();
  const isBins = await page.meet('/v1/bins', (request) => request.abort());
  const n = await publish(url, 'bins-fail', [add('bins/fail')]);
  await isBins();
  await page.shows('#bins-summary', new RegExp(`#${n}`));
  await page.until('nothing is lost any more', () => document.getElementById('lost').hidden);
  await page.close();
}

async function anotherRepositoryIsBegunAnew(browser, { url }) {
  const page = await Page.open(browser, url, { expected: /status of 40[04]/ });
  await page.ready();
  const checkpoints = [{ n: 1_000_000, seq: 1_000_000_000, time: 1 }];
  const isAsked = await page.meet('/v1/checkpoints?limit=10', (request) => request.respond(json({ checkpoints })));
  await page.page.reload();
  await isAsked();
  const n = await publish(url, 'another', [add('another/one')]);
  await page.shows('#checkpoints tbody tr', new RegExp(`^#${n}\\s`));
  await page.close();
}

async function whatIsThereDecidesWhetherItIsEmpty(browser, { url }) {
  const page = await Page.open(browser, url);
  const status = await (await fetch(`${url}/v1/status`)).json();
  status.published.checkpoint = 1;
  const isAsked = await page.meet('/v1/search?glob=*&limit=1', (request) => request.continue());
  await page.meet('/v1/status', (request) => request.respond(json(status)), Infinity);
  await page.page.reload();
  await isAsked();
  await page.ready();
  for (let polls = 0; polls < 2; polls += 1) await page.page.waitForResponse((response) => response.url().endsWith('/v1/status'));
  assert.ok(await page.page.$eval('#empty', (note) => note.hidden), 'it is called empty');
  await page.close();
}

async function theKeyboardKeepsItsPlace(browser, { url }) {
  const page = await Page.open(browser, url);
  await page.ready();
  await page.page.$eval('#bins-panel details', (details) => (details.open = true));
  for (const [i, place] of ['#facts a', '#bins-table a'].entries()) {
    await page.page.focus(place);
    const n = await publish(url, `focus-${i}`, [add(`focus/${i}`)]);
    await page.shows('#facts', new RegExp(`#${n}`));
    await page.shows('#bins-summary', new RegExp(`#${n}`));
    const isThere = await page.page.evaluate((place) => document.activeElement === document.querySelector(place), place);
    assert.ok(isThere, `the focus is not on ${place} any more`);
  }
  await page.page.focus('#facts a');
  const n = await publish(url, 'focus-enter', [add('focus/enter')]);
  await page.shows('#facts', new RegExp(`#${n}`));
  await page.press('Enter');
  await page.shows('#detail h2', new RegExp(`^Checkpoint ${n}$`));
  await page.close();
}

function json(value) {
  return { status: 200, contentType: 'application/json', body: JSON.stringify(value) };
}

const ALL = [
  anEmptyRepositoryIsSaidToBeOne,
  aCheckpointArrivesWithoutReload,
  aSearchEndsInAHistoryByKeyboardAlone,
  whatStrangersWriteIsText,
  anAddressLeadsToAPlace,
  theHeatMapHasACellForEachBin,
  aChartIsReadByKeyboard,
  itFitsAPhone,
  itIsReadableInBothSchemes,
  aTokenIsAskedFor,
  whatFailsOnceIsAskedAgain,
  anotherRepositoryIsBegunAnew,
  whatIsThereDecidesWhetherItIsEmpty,
  theKeyboardKeepsItsPlace,
  aLostNodeIsFoundAgain,
];

async function main() {
  const [url, guarded, token] = process.argv.slice(2);
  const browser = await launch();
  try {
    for (const scenario of ALL) {
      const started = performance.now();
      try {
        await scenario(browser, { url, guarded, token });
      } catch (e) {
        e.message = `${scenario.name}: ${e.message}`;
        throw e;
      }
      console.error(`${scenario.name}: ${Math.round(performance.now() - started)} ms`);
    }
  } finally {
    await browser.close();
  }
}

main().then(
  () => process.exit(0),
  (e) => {
    console.error(e);
    process.exit(1);
  },
);
