// Plays one stream in Chromium with one player and judges what it sees.
//
//   node play.mjs BASE_URL --stream demo --engine hls|hls-1.6|dash|shaka-hls|shaka-dash [--seconds 10] [--start 15] …
//
// Checks: playback starts in time; media time keeps up with the clock; frames decode, are not black
// and change; sound decodes; the player reports no fatal error; the distance to live is bounded; a
// forced switch to the highest, the lowest and again the highest rendition shows on the screen.
// Prints one line of JSON; exits 0 when all held, 1 when not, 2 on a wrong command line.

import { parseArgs } from 'node:util';

import { conclude, withBrowser } from './browser.mjs';
import { ENGINES, freezes, openTestPage, round, samples, sleep } from './testpage.mjs';

const OPTIONS = {
  stream: { type: 'string', default: 'demo' },
  engine: { type: 'string', default: 'hls' },
  // How long undisturbed playback is watched.
  seconds: { type: 'string', default: '10' },
  // Within how many seconds playback must start.
  start: { type: 'string', default: '15' },
  // Within how many seconds a forced rendition must be on the screen.
  switch: { type: 'string', default: '15' },
  'max-latency': { type: 'string', default: '20' },
  'max-stalls': { type: 'string', default: '1' },
  'max-dropped': { type: 'string', default: '0.5' },
  // Nothing may take longer than this altogether.
  limit: { type: 'string', default: '110' },
  'no-audio': { type: 'boolean', default: false },
  'no-switch': { type: 'boolean', default: false },
};
const { values: args, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
if (positionals.length !== 1 || !Object.hasOwn(ENGINES, args.engine)) {
  const engines = Object.keys(ENGINES).join('|');
  process.stderr.write(`usage: node play.mjs BASE_URL [--stream NAME] [--engine ${engines}] [--seconds N]\n`);
  process.exit(2);
}
const base = new URL(positionals[0]).href;
const verdict = { check: 'play', engine: args.engine, failures: [] };
const fail = (text) => verdict.failures.push(text);
const limit = (name) => Number(args[name]);

const evaluate = (page, f, arg) => page.evaluate(f, arg);

async function start(page) {
  const before = Date.now();
  const { url, seen } = await openTestPage(page, { base, stream: args.stream, engine: args.engine });
  Object.assign(verdict, { url, seen });
  await page.waitForFunction(
    () => {
      const { video, record } = window.testPlayer;
      return record.fatal.length > 0 || (!video.paused && video.readyState >= 3 && video.currentTime > 0 && record.samples.filter((s) => s.media !== record.samples[0].media).length > 2);
    },
    null,
    { timeout: limit('start') * 1000, polling: 100 },
  ).catch(() => fail(`playback did not start within ${args.start} s`));
  verdict.started_after_s = round((Date.now() - before) / 1000);
  verdict.version = await evaluate(page, () => window.testPlayer.player.version);
  verdict.renditions = await evaluate(page, () => window.testPlayer.player.renditions());
  verdict.audio_tracks = await evaluate(page, () => window.testPlayer.player.audio());
}

async function watch(page) {
  // The first second after the start belongs to the start.
  await sleep(1);
  const from = (await samples(page)).length;
  const waitingBefore = await evaluate(page, () => window.testPlayer.record.waiting);
  await sleep(limit('seconds'));
  const list = await samples(page, from);
  const [a, z] = [list[0], list[list.length - 1]];
  const wall = z.wall - a.wall;
  const frames = z.frames - a.frames;
  const lit = list.filter((s) => s.light !== null);
  const steady = {
    wall_s: round(wall),
    media_s: round(z.media - a.media),
    rate: round((z.media - a.media) / wall, 3),
    frames,
    frames_per_s: round(frames / wall, 1),
    dropped: z.dropped - a.dropped,
    audio_bytes: z.audio - a.audio,
    brightest: round(Math.max(0, ...lit.map((s) => s.light)), 1),
    pictures: new Set(lit.map((s) => s.print)).size,
    buffer_min_s: round(Math.min(...list.map((s) => s.buffer))),
    latency_s: round(z.behind ?? z.latency),
    player_latency_s: round(z.latency),
    freezes: freezes(list),
    waiting: (await evaluate(page, () => window.testPlayer.record.waiting)) - waitingBefore,
  };
  verdict.steady = steady;
  if (!(steady.rate >= 0.9 && steady.rate <= 1.1)) fail(`media time ran at ${steady.rate} of the clock's pace`);
  if (!(steady.frames_per_s >= 5)) fail(`only ${steady.frames_per_s} frames per second decoded`);
  if (steady.dropped > frames * limit('max-dropped')) fail(`${steady.dropped} of ${frames} frames dropped`);
  if (!(steady.brightest > 8)) fail(`the picture is black (${steady.brightest} of 255)`);
  if (steady.pictures < 3) fail(`the picture does not change (${steady.pictures} different)`);
  if (!args['no-audio'] && !(steady.audio_bytes > 0)) fail('no sound was decoded');
  if (steady.freezes > limit('max-stalls')) fail(`playback froze ${steady.freezes} times`);
  const behind = steady.latency_s;
  if (!(behind > 0 && behind <= limit('max-latency'))) fail(`${behind} s behind live`);
}

async function force(page, rendition, label) {
  const before = Date.now();
  const mark = (await samples(page)).length;
  await evaluate(page, (key) => window.testPlayer.player.force(key), rendition.key);
  const shown = await page.waitForFunction(
    (height) => window.testPlayer.video.videoHeight === height && window.testPlayer.video.readyState >= 3,
    rendition.height,
    { timeout: limit('switch') * 1000, polling: 100 },
  ).then(() => true, () => false);
  const after = round((Date.now() - before) / 1000);
  const from = await evaluate(page, () => window.testPlayer.video.currentTime);
  const moves = await page.waitForFunction((t) => window.testPlayer.video.currentTime > t + 2, from, { timeout: 10_000, polling: 100 }).then(() => true, () => false);
  const list = await samples(page, mark);
  verdict.switches.push({ to: label, height: rendition.height, shown, after_s: after, freezes: freezes(list), moves });
  if (!shown) fail(`${label} rendition (${rendition.height} lines) was not on the screen after ${args.switch} s`);
  if (!moves) fail(`playback stopped after the switch to the ${label} rendition`);
}

async function switchAround(page) {
  const byHeight = [...verdict.renditions].sort((a, b) => a.height - b.height);
  const [low, high] = [byHeight[0], byHeight[byHeight.length - 1]];
  verdict.switches = [];
  if (!low || low.height === high.height) {
    fail('there are no two renditions of different height to switch between');
    return;
  }
  await force(page, high, 'highest');
  await force(page, low, 'lowest');
  await force(page, high, 'highest');
}

async function check(context) {
  const page = context.pages()[0] ?? (await context.newPage());
  await start(page);
  const { seen } = verdict;
  if (verdict.failures.length) {
    verdict.fatal = await evaluate(page, () => window.testPlayer?.record.fatal);
    verdict.minor = await evaluate(page, () => window.testPlayer?.record.minor);
    return;
  }
  await watch(page);
  if (verdict.failures.length === 0 && !args['no-switch']) await switchAround(page);
  const { fatal, minor, waiting, sizes } = await evaluate(page, () => window.testPlayer.record);
  Object.assign(verdict, { fatal, minor, waiting, sizes });
  if (!args['no-audio'] && verdict.audio_tracks < 1) fail('the player found no sound');
  if (fatal.length) fail(`the player gave up: ${fatal[0]}`);
  for (const kind of ['page_errors', 'foreign_requests', 'csp']) if (seen[kind].length) fail(`${kind}: ${seen[kind][0]}`);
}

try {
  await withBrowser({ viewport: { width: 800, height: 600 } }, limit('limit'), check);
} catch (error) {
  fail(String(error.message ?? error).split('\n')[0]);
}
conclude(verdict);
