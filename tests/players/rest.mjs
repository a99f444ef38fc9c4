// Plays a stream whose best rung comes and goes, as the server's own page does.
//
//   node rest.mjs BASE_URL --stream NAME --engine hls|dash --top RENDITION [--seconds 60]
//
// Begins with the best rung, as a player does that has measured a fast network. When the server leaves that
// out, the player has to go on with another one, and the playhead must not stand still for long.
//
// Prints one line of JSON with the renditions that were shown, in order, and how long playback stood still
// at the longest. Exits 0 when it played on, and showed another rung than the best, and with `--strict` that too.

import http from 'node:http';
import { parseArgs } from 'node:util';

import { conclude, watchPage, withBrowser } from './browser.mjs';

const OPTIONS = {
  stream: { type: 'string', default: 'show' },
  engine: { type: 'string', default: 'hls' },
  top: { type: 'string' },
  seconds: { type: 'string', default: '60' },
  // The longest that the playhead may stand, in seconds.
  stand: { type: 'string', default: '6' },
  // Whether it must have shown the best rung.
  strict: { type: 'boolean', default: false },
  limit: { type: 'string', default: '150' },
};
const { values: args, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
if (positionals.length !== 1 || !['hls', 'dash'].includes(args.engine) || !args.top) {
  process.stderr.write('usage: node rest.mjs BASE_URL --top RENDITION [--stream NAME] [--engine hls|dash]\n');
  process.exit(2);
}
const base = new URL(positionals[0]).href;
const manifest = args.engine === 'hls' ? 'index.m3u8' : 'manifest.mpd';
const url = new URL(`live/${args.stream}/${manifest}`, base).href;
const verdict = { check: 'rest', url, engine: args.engine, failures: [] };
const fail = (text) => verdict.failures.push(text);

async function servePage() {
  const script = new URL(`/assets/${args.engine === 'hls' ? 'hls.min.js' : 'dash.all.min.js'}`, base);
  const html = `<!doctype html><link rel="icon" href="data:,">
<video id="v" muted playsinline width="640" height="360"></video><script src="${script.href}"></script>`;
  const server = http.createServer((_, response) => {
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

/** Runs in the browser. */
function install({ engine, url, top }) {
  const video = document.getElementById('v');
  const record = { shown: [], steps: [], fatal: [], minor: {}, trace: [] };
  const minor = (what) => { record.minor[what] = (record.minor[what] ?? 0) + 1; };
  let name;
  if (engine === 'hls') {
    const hls = new window.Hls({ lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.05, abrEwmaDefaultEstimate: 2e7 });
    hls.on(window.Hls.Events.ERROR, (_, d) => (d.fatal ? record.fatal.push(d.details) : minor(d.details)));
    hls.on(window.Hls.Events.MANIFEST_PARSED, () => {
      hls.startLevel = hls.levels.findIndex((level) => level.url[0].includes(`/${top}/`));
      video.play();
    });
    let frag;
    hls.on(window.Hls.Events.FRAG_CHANGED, (_, d) => { if (d.frag.type === 'main') frag = d.frag; });
    name = () => frag && hls.levels[frag.level].url[0].split('/').at(-2);
    hls.loadSource(url);
    hls.attachMedia(video);
  } else {
    const dash = window.dashjs.MediaPlayer().create();
    dash.updateSettings({
      debug: { logLevel: window.dashjs.Debug.LOG_LEVEL_NONE },
      streaming: {
        utcSynchronization: { defaultTimingSource: { scheme: '', value: '' } },
        applyServiceDescription: true,
        liveCatchup: { enabled: true },
        buffer: { fastSwitchEnabled: true },
        abr: { initialBitrate: { video: 20_000 } },
      },
    });
    const { events } = window.dashjs.MediaPlayer;
    dash.on(events.ERROR, (e) => minor(String(e.error?.code ?? e.error)));
    dash.on(events.PLAYBACK_ERROR, (e) => record.fatal.push(String(e.error?.message ?? e.error)));
    let rendered;
    dash.on(events.QUALITY_CHANGE_RENDERED, (e) => { if (e.mediaType === 'video') rendered = e.newRepresentation?.id; });
    name = () => rendered ?? dash.getCurrentRepresentationForType('video')?.id;
    dash.initialize(video, null, true);
    dash.clearDefaultUTCTimingSources();
    dash.attachSource(url);
  }
  let last = { at: performance.now(), time: 0 };
  setInterval(() => {
    const now = performance.now();
    if (video.currentTime !== last.time) {
      if (last.time > 0) record.steps.push({ at: last.at, ms: now - last.at, by: video.currentTime - last.time });
      last = { at: now, time: video.currentTime };
    }
    record.standing = now - last.at;
    const shown = video.currentTime > 0 ? name() : undefined;
    if (shown && record.shown.at(-1)?.name !== shown) record.shown.push({ name: shown, at: Math.round(now) });
  }, 100);
  const round = (seconds) => Math.round(seconds * 100) / 100;
  setInterval(() => {
    const buffered = [];
    for (let n = 0; n < video.buffered.length; n += 1) buffered.push([video.buffered.start(n), video.buffered.end(n)].map(round));
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    record.trace.push({ at: Math.round(performance.now()), time: round(video.currentTime), ready: video.readyState, frames, buffered });
  }, 2000);
  window.test = { record, video };
}

async function play(context) {
  const page = context.pages()[0] ?? (await context.newPage());
  watchPage(page, base);
  const refused = [];
  const opened = Date.now();
  page.on('response', (response) => {
    const { pathname } = new URL(response.url());
    if (response.status() >= 400) refused.push(`${Date.now() - opened} ms: ${response.status()} ${pathname}`);
  });
  await page.goto(await servePage(), { waitUntil: 'load', timeout: 30_000 });
  await page.evaluate(install, { engine: args.engine, url, top: args.top });
  await page.waitForTimeout(Number(args.seconds) * 1000);
  const record = await page.evaluate(() => window.test.record);
  const longest = Math.max(record.standing, ...record.steps.map((step) => step.ms));
  const names = record.shown.map((shown) => shown.name);
  Object.assign(verdict, {
    shown: record.shown,
    longest_stand_ms: Math.round(longest),
    stands: record.steps.filter((step) => step.ms > 400).map((step) => ({ at: Math.round(step.at), ms: Math.round(step.ms), by: step.by })),
    jumps: record.steps.filter((step) => step.by > step.ms / 1000 + 0.3).length,
    minor: record.minor,
    fatal: record.fatal,
  });
  if (record.fatal.length) fail(`the player gave up: ${record.fatal[0]}`);
  if (longest > Number(args.stand) * 1000) fail(`playback stood still for ${Math.round(longest)} ms`);
  // A player that has measured a slow browser does not take the best rung.
  if (args.strict && !names.includes(args.top)) fail('the best rung was never shown');
  if (!names.some((name) => name !== args.top)) fail('no other rung was ever shown');
  // What tells why.
  if (verdict.failures.length) Object.assign(verdict, { trace: record.trace.map((point) => JSON.stringify(point)), refused: refused.slice(-50) });
}

try {
  await withBrowser({ viewport: { width: 800, height: 600 } }, Number(args.limit), play);
} catch (error) {
  fail(String(error.message ?? error).split('\n')[0]);
}
conclude(verdict);
