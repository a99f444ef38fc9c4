// Plays one stream in Chromium with hls.js or dash.js, both as the server itself offers them, and
// judges what it sees.
//
//   node play.mjs BASE_URL --stream demo --engine hls|dash [--seconds 10] [--start 15] …
//
// Checks: playback starts in time; media time keeps up with the clock; frames decode, are not black
// and change; sound decodes; the player reports no fatal error; the distance to live is bounded; a
// forced switch to the highest, the lowest and again the highest rendition shows on the screen.
// Prints one line of JSON; exits 0 when all held, 1 when not, 2 on a wrong command line.

import http from 'node:http';
import { parseArgs } from 'node:util';

import { conclude, watchPage, withBrowser } from './browser.mjs';

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
if (positionals.length !== 1 || !['hls', 'dash'].includes(args.engine)) {
  process.stderr.write('usage: node play.mjs BASE_URL [--stream NAME] [--engine hls|dash] [--seconds N]\n');
  process.exit(2);
}
const base = new URL(positionals[0]).href;
const manifest = args.engine === 'hls' ? 'index.m3u8' : 'manifest.mpd';
const url = new URL(`live/${args.stream}/${manifest}`, base).href;
const verdict = { check: 'play', url, engine: args.engine, failures: [] };
const fail = (text) => verdict.failures.push(text);
const limit = (name) => Number(args[name]);

/**
 * The test's own page, from a server of its own: as with most players on the web, the page comes
 * from another origin than the stream, so that playing at all also shows that CORS is right.
 */
async function serveTestPage() {
  const script = new URL(`/assets/${args.engine === 'hls' ? 'hls.min.js' : 'dash.all.min.js'}`, base);
  const html = `<!doctype html><link rel="icon" href="data:,">
<video id="v" muted playsinline width="640" height="360"></video><script src="${script.href}"></script>`;
  const server = http.createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    response.end(html);
  });
  await new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  server.unref();
  return `http://127.0.0.1:${server.address().port}/`;
}

async function openTestPage(context) {
  const page = context.pages()[0] ?? (await context.newPage());
  const home = await serveTestPage();
  const seen = watchPage(page, base);
  await page.goto(home, { waitUntil: 'load', timeout: 20_000 });
  seen.foreign_requests = seen.foreign_requests.filter((u) => u !== home);
  return { page, seen };
}

/** Runs in the browser: starts the engine and keeps a record of every quarter second. */
function install({ engine, url }) {
  const video = document.getElementById('v');
  const canvas = document.createElement('canvas');
  canvas.width = 64;
  canvas.height = 36;
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const record = { samples: [], fatal: [], minor: {}, waiting: 0, sizes: [] };
  const minor = (what) => {
    record.minor[what] = (record.minor[what] ?? 0) + 1;
  };
  let adapter;
  if (engine === 'hls') {
    const hls = new window.Hls({ lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.05 });
    hls.on(window.Hls.Events.ERROR, (_, d) => {
      const what = `${d.details}${d.error ? `: ${d.error.message}` : ''}${d.response ? ` (${d.response.code})` : ''}`;
      if (d.fatal) record.fatal.push(what);
      else minor(what);
    });
    hls.on(window.Hls.Events.MANIFEST_PARSED, () => video.play().catch((e) => record.fatal.push(String(e))));
    hls.loadSource(url);
    hls.attachMedia(video);
    adapter = {
      renditions: () => hls.levels.map((l, i) => ({ key: String(i), width: l.width, height: l.height, bps: l.bitrate, codec: l.videoCodec, name: l.url[0] })),
      force: (key) => { hls.nextLevel = Number(key); },
      latency: () => hls.latency,
      behind: () => (hls.playingDate ? (Date.now() - hls.playingDate.getTime()) / 1000 : null),
      audio: () => hls.audioTracks.length,
    };
  } else {
    const player = window.dashjs.MediaPlayer().create();
    player.updateSettings({
      debug: { logLevel: window.dashjs.Debug.LOG_LEVEL_NONE },
      streaming: { utcSynchronization: { defaultTimingSource: { scheme: '', value: '' } }, liveCatchup: { enabled: true } },
    });
    player.on(window.dashjs.MediaPlayer.events.ERROR, (e) => {
      const code = e.error?.code;
      const what = `${code}: ${e.error?.message ?? e.error}`;
      // A fragment or a time source that failed once is tried again; the rest ends playback.
      if ([15, 16, 17, 26, 27, 28].includes(code)) minor(what);
      else record.fatal.push(what);
    });
    player.on(window.dashjs.MediaPlayer.events.PLAYBACK_ERROR, (e) => record.fatal.push(`playback: ${e.error?.message ?? e.error}`));
    player.initialize(video, null, true);
    player.clearDefaultUTCTimingSources();
    player.attachSource(url);
    const ready = () => player.isReady() && player.getActiveStream();
    adapter = {
      renditions: () => (ready() ? player.getRepresentationsByType('video').map((r) => ({ key: r.id, width: r.width, height: r.height, bps: r.bandwidth, codec: r.codecs, name: r.id })) : []),
      force: (key) => {
        player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: false } } } });
        player.setRepresentationForTypeById('video', key, true);
      },
      latency: () => (ready() ? player.getCurrentLiveLatency() : null),
      behind: () => (ready() ? player.getCurrentLiveLatency() : null),
      audio: () => (ready() ? player.getTracksFor('audio').length : 0),
    };
  }
  video.addEventListener('waiting', () => { record.waiting += 1; });
  video.addEventListener('error', () => record.fatal.push(`video: ${video.error?.code} ${video.error?.message}`));
  video.addEventListener('resize', () => record.sizes.push(`${video.videoWidth}x${video.videoHeight}`));
  const finite = (n) => (Number.isFinite(n) ? n : null);
  const look = () => {
    if (video.readyState < 2) return { light: null, print: null };
    pen.drawImage(video, 0, 0, canvas.width, canvas.height);
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    let sum = 0;
    let print = 0;
    for (let i = 0; i < data.length; i += 4) {
      sum += data[i] + data[i + 1] + data[i + 2];
      print = (Math.imul(print, 31) + data[i] + (data[i + 1] << 8) + (data[i + 2] << 16)) | 0;
    }
    return { light: sum / (3 * canvas.width * canvas.height), print };
  };
  const sample = () => {
    const quality = video.getVideoPlaybackQuality();
    const { buffered, currentTime } = video;
    let ahead = 0;
    for (let i = 0; i < buffered.length; i += 1) {
      if (buffered.start(i) <= currentTime + 0.1 && buffered.end(i) > currentTime) ahead = buffered.end(i) - currentTime;
    }
    record.samples.push({
      wall: performance.now() / 1000,
      media: currentTime,
      frames: quality.totalVideoFrames,
      dropped: quality.droppedVideoFrames,
      audio: video.webkitAudioDecodedByteCount,
      height: video.videoHeight,
      buffer: ahead,
      latency: finite(adapter.latency()),
      behind: finite(adapter.behind()),
      state: video.readyState,
      ...look(),
    });
  };
  setInterval(sample, 250);
  window.test = { record, adapter, video };
}

const evaluate = (page, f, arg) => page.evaluate(f, arg);
const samples = (page, from = 0) => evaluate(page, (n) => window.test.record.samples.slice(n), from);
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const round = (n, digits = 2) => (n === null || n === undefined ? null : Number(n.toFixed(digits)));

async function start(page, seen) {
  const before = Date.now();
  const loaded = await evaluate(page, () => 'Hls' in window || 'dashjs' in window);
  if (!loaded) fail(`the player was not loaded: ${[...seen.failed_requests, ...seen.console_errors][0]}`);
  if (verdict.failures.length) return;
  await evaluate(page, install, { engine: args.engine, url });
  await page.waitForFunction(
    () => {
      const { video, record } = window.test;
      return record.fatal.length > 0 || (!video.paused && video.readyState >= 3 && video.currentTime > 0 && record.samples.filter((s) => s.media !== record.samples[0].media).length > 2);
    },
    null,
    { timeout: limit('start') * 1000, polling: 100 },
  ).catch(() => fail(`playback did not start within ${args.start} s`));
  verdict.started_after_s = round((Date.now() - before) / 1000);
  verdict.renditions = await evaluate(page, () => window.test.adapter.renditions());
  verdict.audio_tracks = await evaluate(page, () => window.test.adapter.audio());
}

/** Moments of at least a second in which media time stood still. */
function freezes(list) {
  let count = 0;
  let since = list[0];
  let counted = false;
  for (const s of list) {
    if (s.media !== since.media) {
      since = s;
      counted = false;
    } else if (!counted && s.wall - since.wall >= 1) {
      count += 1;
      counted = true;
    }
  }
  return count;
}

async function watch(page) {
  // The first second after the start belongs to the start.
  await sleep(1);
  const from = (await samples(page)).length;
  const waitingBefore = await evaluate(page, () => window.test.record.waiting);
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
    waiting: (await evaluate(page, () => window.test.record.waiting)) - waitingBefore,
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
  await evaluate(page, (key) => window.test.adapter.force(key), rendition.key);
  const shown = await page.waitForFunction(
    (height) => window.test.video.videoHeight === height && window.test.video.readyState >= 3,
    rendition.height,
    { timeout: limit('switch') * 1000, polling: 100 },
  ).then(() => true, () => false);
  const after = round((Date.now() - before) / 1000);
  const from = await evaluate(page, () => window.test.video.currentTime);
  const moves = await page.waitForFunction((t) => window.test.video.currentTime > t + 2, from, { timeout: 10_000, polling: 100 }).then(() => true, () => false);
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
  const { page, seen } = await openTestPage(context);
  verdict.seen = seen;
  await start(page, seen);
  if (verdict.failures.length) {
    verdict.fatal = await evaluate(page, () => window.test?.record.fatal);
    verdict.minor = await evaluate(page, () => window.test?.record.minor);
    return;
  }
  await watch(page);
  if (verdict.failures.length === 0 && !args['no-switch']) await switchAround(page);
  const { fatal, minor, waiting, sizes } = await evaluate(page, () => window.test.record);
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
