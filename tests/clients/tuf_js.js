// Drives tuf-js: reads jobs as JSON lines from stdin, prints one JSON line for each.
// Arguments, jobs, answers and exit code are those of python_tuf.py, which explains them.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const readline = require('readline');

const clients = process.env.TUFLOG_CLIENTS_DIR || path.join(__dirname, '../../.cache/clients');
const { Updater } = require(path.join(clients, 'node_modules/tuf-js'));

async function main() {
  const args = process.argv.slice(2);
  const freshEach = args.includes('--fresh-each');
  const [metadata, targets, root, cache] = args.filter((a) => a !== '--fresh-each');
  if (!cache) {
    console.error('usage: tuf_js.js METADATA_URL TARGETS_URL ROOT_FILE CACHE_DIR [--fresh-each]');
    return 2;
  }
  fs.mkdirSync(cache, { recursive: true });
  const targetDir = fs.mkdtempSync(path.join(cache, 'targets-'));
  const own = { metadata, targets, root, cache };

  let allOk = true;
  let updater = null;
  let number = 0;
  try {
    for await (const line of readline.createInterface({ input: process.stdin })) {
      if (!line.trim()) continue;
      const job = JSON.parse(line);
      const started = process.hrtime.bigint();
      const answer = { path: job.path, ok: false, found: false };
      try {
        if (updater === null || freshEach || job.repository) updater = client(job.repository ?? own, targetDir);
        await run(updater, job, answer, path.join(targetDir, String(number++)));
      } catch (e) { // every failure of the client is a result
        answer.error = `${e.name}: ${e.message}`;
        updater = null; // after a failure its state is not defined
      }
      answer.ms = Number(process.hrtime.bigint() - started) / 1e6;
      allOk = allOk && answer.ok;
      console.log(JSON.stringify(answer));
    }
  } finally {
    fs.rmSync(targetDir, { recursive: true, force: true });
  }
  return allOk ? 0 : 1;
}

// A client of a repository, with the cache that it keeps.
function client({ metadata, targets, root, cache }, targetDir) {
  const metadataDir = path.join(cache, 'metadata');
  fs.mkdirSync(metadataDir, { recursive: true });
  // tuf-js trusts the root.json that lies in its directory; a newer one of an earlier run stays.
  if (!fs.existsSync(path.join(metadataDir, 'root.json'))) {
    fs.copyFileSync(root, path.join(metadataDir, 'root.json'));
  }
  return new Updater({ metadataDir, metadataBaseUrl: metadata, targetDir, targetBaseUrl: targets });
}

// Does one job and fills in its answer; throws whatever the client throws.
async function run(updater, job, answer, file) {
  const want = job.want ?? null;
  const info = await updater.getTargetInfo(job.path);
  if (info === undefined) {
    answer.ok = want === null;
    if (want !== null) answer.error = 'not found';
    return;
  }
  Object.assign(answer, { found: true, length: info.length, sha256: info.hashes.sha256 });
  if (want === null) {
    answer.error = 'found, but it should be absent';
    return;
  }
  let differing = differences(want, answer);
  if (!differing && job.download) {
    await updater.downloadTarget(info, file);
    const bytes = fs.readFileSync(file);
    const sha256 = crypto.createHash('sha256').update(bytes).digest('hex');
    differing = differences(want, { length: bytes.length, sha256 });
    fs.unlinkSync(file);
  }
  if (differing) answer.error = differing;
  answer.ok = !differing;
}

// What is not as wanted, in words; empty if nothing.
function differences(want, found) {
  return Object.keys(want)
    .filter((k) => found[k] !== want[k])
    .map((k) => `${k} is ${found[k]}, wanted ${want[k]}`)
    .join(', ');
}

main().then((code) => { process.exitCode = code; }, (e) => { console.error(e); process.exitCode = 2; });
