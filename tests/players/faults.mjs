// Plays one stream with several players through a row of faults, and judges after each whether they are
// back at the live edge by themselves.
//
//   node faults.mjs BASE_URL --stream demo [--engines hls,dash] --faults stall,change,jump,worker,server
//
// Whoever publishes is asked for each fault by a line of JSON, {"phase":"stall"}, and answers with a line
// on standard input when it is over. The last line is the verdict; exits 0 when all held, 1 when not, 2 on
// a wrong command line.
//
// Checks, after each fault: no player gave up, none was loaded again, and each plays on, at most
// --max-latency behind live. How long it stood still is told and not judged: the picture may stand, and
// a machine may be busy. Of the faults in --smooth it is judged: no player may stand still for --still seconds
// from before the fault until it is over, if it did not while nothing befell the stream. If what is played is
// the film of flashes and beeps (--lips), the two are at most 40 ms apart before the first fault and after each: see
// `lips.js`, which says how well that can be told.

import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { conclude, withBrowser } from './browser.mjs';
import { ENGINES, freezes, lips, listen, openTestPage, round, samples } from './testpage.mjs';

const OPTIONS = {
  stream: { type: 'string', default: 'demo' },
  engines: { type: 'string', default: 'hls,dash' },
  faults: { type: 'string', default: '' },
  // Those of them through which players play on, and for how long they may stand still nevertheless, in seconds:
  // less than what is withheld would last them.
  smooth: { type: 'string', default: '' },
  still: { type: 'string', default: '3' },
  // Within how many seconds a player must start, and be back after a fault.
  start: { type: 'string', default: '60' },
  'max-latency': { type: 'string', default: '13' },
  limit: { type: 'string', default: '400' },
  // What is played flashes and beeps.
  lips: { type: 'boolean', default: false },
};
// So many flashes are looked at each time, and how late their sound may be in the middle.
const FLASHES = 3;
const HITCH_S = 0.5;
const MAX_LIPS_MS = 40;
const { values: args, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
const engines = args.engines.split(',');
const [faults, smooth] = [args.faults, args.smooth].map((names) => names.split(',').filter((name) => name !== ''));
if (positionals.length !== 1 || !engines.every((name) => Object.hasOwn(ENGINES, name))) {
  process.stderr.write('usage: node faults.mjs BASE_URL [--stream NAME] [--engines hls,dash] --faults NAME,…\n');
  process.exit(2);
}
const base = new URL(positionals[0]).href;
const verdict = { check: 'faults', base, stream: args.stream, failures: [], players: {} };
const fail = (text) => verdict.failures.push(text);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has `fault` done to the stream. */
async function befall(fault) {
  process.stdout.write(`${JSON.stringify({ phase: fault })}\n`);
  if ((await answers.next()).done) throw new Error(`nobody answers for ${fault}`);
}

/** Waits until two seconds have played without a jump, near enough to live. */
async function isBack({ page, engine, found }, after) {
  const before = Date.now();
  await page.evaluate(() => { window.testPlayer.record.moved = 0; });
  const there = (latency) => {
    const { record, video } = window.testPlayer;
    const { behind } = record.samples[record.samples.length - 1] ?? {};
    const near = behind !== null && behind > -1 && behind < latency;
    return record.fatal.length > 0 || (!video.paused && video.readyState >= 3 && record.moved > 2 && near);
  };
  const options = { timeout: Number(args.start) * 1000, polling: 100 };
  await page.waitForFunction(there, Number(args['max-latency']), options)
    .catch(() => fail(`${engine}: not back after ${after} within ${args.start} s`));
  const { fatal, minor } = await page.evaluate(() => {
    const { record } = window.testPlayer;
    return { fatal: record.fatal.splice(0), minor: record.minor };
  });
  if (fatal.length) fail(`${engine}: gave up after ${after}: ${fatal[0]}`);
  const last = (await samples(page)).at(-1);
  found[after] = { after_s: round((Date.now() - before) / 1000), behind_s: round(last?.behind), height: last?.height, minor };
}

/** Judges whether the player played on through `fault`, of which its samples since number `from` tell. */
async function playedOn({ page, engine, found }, fault, from) {
  const list = await samples(page, from);
  const stood = freezes(list, Number(args.still));
  Object.assign(found[fault], { stood_still: stood, hitches: freezes(list, HITCH_S) });
  // A machine on which it cannot play in peace says nothing of the fault.
  if (stood > 0 && found.hitches_in_peace === 0) fail(`${engine}: stood still for ${args.still} s while ${fault} befell the stream`);
}

/** Judges how much later beeps are heard than flashes are seen, of what is received from now on. */
async function inStep({ page, engine, found }, when) {
  const measured = await lips(page, FLASHES, Date.now(), Number(args.start))
    .catch((error) => fail(`${engine}: ${when}: ${error.message}`));
  if (!measured) return;
  found.lips_ms = { ...found.lips_ms, [when]: measured.each };
  if (!(Math.abs(measured.median) <= MAX_LIPS_MS)) fail(`${engine}: sound is ${measured.median} ms after its picture after ${when}: ${measured.each}`);
}

async function check(context) {
  const tabs = [];
  for (const engine of engines) {
    const page = await context.newPage();
    const { seen } = await openTestPage(page, { base, stream: args.stream, engine, patient: true });
    const found = {};
    verdict.players[engine] = found;
    tabs.push({ page, engine, found, seen });
    await isBack(tabs.at(-1), 'start');
    if (args.lips) await listen(page);
  }
  const measure = (when) => args.lips && Promise.all(tabs.map((tab) => inStep(tab, when)));
  const count = ({ page }) => samples(page).then((list) => list.length);
  const before = await Promise.all(tabs.map(count));
  await measure('start');
  for (const [n, { page, found }] of tabs.entries()) found.hitches_in_peace = freezes(await samples(page, before[n]), HITCH_S);
  for (const fault of faults) {
    if (verdict.failures.length) return;
    const begun = await Promise.all(tabs.map(count));
    await befall(fault);
    await Promise.all([...tabs.map((tab) => isBack(tab, fault)), measure(fault)]);
    if (smooth.includes(fault)) await Promise.all(tabs.map((tab, n) => playedOn(tab, fault, begun[n])));
  }
  for (const { engine, seen } of tabs) if (seen.page_errors.length) fail(`${engine}: ${seen.page_errors[0]}`);
}

try {
  await withBrowser({ viewport: { width: 800, height: 600 } }, Number(args.limit), check);
} catch (error) {
  fail(String(error.message ?? error).split('\n')[0]);
}
conclude(verdict);
