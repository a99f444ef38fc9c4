// Measures glass to glass: how old a picture is when Chromium shows it.
//
//   node latency.mjs BASE_URL --stream clock --engine hls|dash [--seconds 180] [--settle 15]
//
// The publisher burns the time of day into each picture: a row of squares across the top, white for
// one and black for zero. From the left: one, zero, twenty bits of milliseconds since the epoch, the
// lowest first, then the parity of the even and of the odd ones among them. `benches/latency.rs` does
// so. The page reads them off the picture that is on the screen and compares them with its own clock,
// so publisher and browser have to be on one machine, or on machines that agree about the time.
//
// Says {"phase":"open"} when the browser is there, and waits for the stream: whoever publishes only then does
// not measure how two encoders and the start of a browser share two cores.
//
// Prints one line of JSON with the median, the 95th percentile and the longest, in milliseconds, and
// how often playback stalled. Exits 0 when the clock could be read and playback never stopped for good.

import { parseArgs } from 'node:util';

import { conclude, watchPage, withBrowser } from './browser.mjs';
import { sleep } from './testpage.mjs';

const OPTIONS = {
  stream: { type: 'string', default: 'clock' },
  engine: { type: 'string', default: 'hls' },
  // How long is measured, and what of the beginning does not count: players find their place in it.
  seconds: { type: 'string', default: '180' },
  settle: { type: 'string', default: '15' },
};
const { values: args, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
if (positionals.length !== 1 || !['hls', 'dash'].includes(args.engine)) {
  process.stderr.write('usage: node latency.mjs BASE_URL [--stream NAME] [--engine hls|dash] [--seconds N]\n');
  process.exit(2);
}
const WAIT_S = 60;
const base = new URL(positionals[0]).href;
const manifest = args.engine === 'hls' ? 'index.m3u8' : 'manifest.mpd';
const url = new URL(`live/${args.stream}/${manifest}`, base).href;
const verdict = { check: 'latency', url, engine: args.engine, failures: [] };
const fail = (text) => verdict.failures.push(text);

/** Runs in the browser: plays with the engine of the server's own page, and reads the clock off the pictures. */
async function install({ engine, url }) {
  document.body.innerHTML = '<video id="v" muted playsinline width="640" height="360"></video>';
  const engines = await import('/assets/engine.js');
  const SQUARES = 24;
  const TIME_BITS = 20;
  // A square in the picture is a 32nd of its width.
  const ACROSS = 32;
  // Pictures between two readings: reading each would cost more than playing it.
  const EVERY = 7;
  const video = document.getElementById('v');
  const canvas = document.createElement('canvas');
  canvas.width = SQUARES * 4;
  canvas.height = 4;
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const record = { readings: [], unread: 0, stalls: [], fatal: [], heights: {} };
  const events = { fatal: (words) => record.fatal.push(words), blocked: () => record.fatal.push('may not play') };
  const player = await engines.open(engine, video, url, events);
  /** The milliseconds that the picture shows, or null where there are none to read. */
  const clock = () => {
    const square = video.videoWidth / ACROSS;
    pen.drawImage(video, 0, 0, square * SQUARES, square, 0, 0, canvas.width, canvas.height);
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    const bits = Array.from({ length: SQUARES }, (_, i) => (data[4 * (2 * canvas.width + 4 * i + 2) + 1] > 127 ? 1 : 0));
    if (bits[0] !== 1 || bits[1] !== 0) return null;
    const parity = [0, 0];
    let time = 0;
    for (let i = 0; i < TIME_BITS; i += 1) {
      parity[i % 2] ^= bits[2 + i];
      time += bits[2 + i] * 2 ** i;
    }
    return parity[0] === bits[22] && parity[1] === bits[23] ? time : null;
  };
  let count = 0;
  const show = (_, frame) => {
    video.requestVideoFrameCallback(show);
    count += 1;
    if (count % EVERY) return;
    const shown = clock();
    record.heights[video.videoHeight] = (record.heights[video.videoHeight] ?? 0) + 1;
    if (shown === null) {
      record.unread += 1;
      return;
    }
    const range = 2 ** TIME_BITS;
    const now = performance.timeOrigin + frame.expectedDisplayTime;
    const age = (((now - shown) % range) + range) % range;
    record.readings.push({ at: performance.now(), age, behind: player.latency(Date.now()), rate: video.playbackRate });
  };
  video.requestVideoFrameCallback(show);
  let stalled = null;
  video.addEventListener('waiting', () => { stalled ??= performance.now(); });
  video.addEventListener('playing', () => {
    if (stalled !== null) record.stalls.push({ at: stalled, ms: performance.now() - stalled });
    stalled = null;
  });
  window.test = { record, video, stalled: () => stalled };
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
const round = (n) => Math.round(n);

/** Waits until the stream can be played. */
async function live() {
  for (let tries = 0; tries < WAIT_S * 4; tries += 1) {
    const answer = await fetch(url, { signal: AbortSignal.timeout(5_000) }).catch(() => null);
    if (answer?.ok) return;
    await sleep(0.25);
  }
  throw new Error(`nothing to play within ${WAIT_S} s`);
}

async function measure(context) {
  const page = context.pages()[0] ?? (await context.newPage());
  verdict.seen = watchPage(page, base);
  // Any page of the server's own will do: its engine is fetched from there.
  await page.goto(new URL('time', base).href, { waitUntil: 'load', timeout: 20_000 });
  process.stdout.write(`${JSON.stringify({ phase: 'open' })}\n`);
  await live();
  await page.evaluate(install, { engine: args.engine, url });
  await page.waitForFunction(() => window.test.record.readings.length > 0 || window.test.record.fatal.length > 0, null, { timeout: 30_000 });
  const begun = await page.evaluate(() => performance.now());
  await page.waitForTimeout((Number(args.settle) + Number(args.seconds)) * 1000);
  const { record, stalled } = await page.evaluate(() => ({ record: window.test.record, stalled: window.test.stalled() }));
  const from = begun + Number(args.settle) * 1000;
  const readings = record.readings.filter((r) => r.at >= from);
  const ages = readings.map((r) => r.age).sort((a, b) => a - b);
  const behind = readings.map((r) => r.behind * 1000).sort((a, b) => a - b);
  const stalls = record.stalls.filter((s) => s.at >= from);
  Object.assign(verdict, {
    readings: ages.length,
    unread: record.unread,
    median_ms: round(quantile(ages, 0.5)),
    p95_ms: round(quantile(ages, 0.95)),
    longest_ms: round(ages[ages.length - 1]),
    player_says_ms: round(quantile(behind, 0.5)),
    stalls: stalls.length,
    stalled_ms: round(stalls.reduce((sum, s) => sum + s.ms, 0)),
    stalls_while_settling: record.stalls.filter((s) => s.at < from).map((s) => [round(s.at - begun), round(s.ms)]),
    heights: record.heights,
  });
  delete verdict.seen;
  if (record.fatal.length) fail(`the player gave up: ${record.fatal[0]}`);
  if (ages.length < Number(args.seconds)) fail(`only ${ages.length} readings of the clock`);
  if (stalled !== null) fail('playback stands still');
}

try {
  const limit = WAIT_S + Number(args.settle) + Number(args.seconds) + 60;
  await withBrowser({ viewport: { width: 800, height: 600 } }, limit, measure);
} catch (error) {
  fail(String(error.message ?? error).split('\n')[0]);
}
conclude(verdict);
