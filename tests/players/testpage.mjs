// The test's own page, with the player that a check wants in it.

import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';

import { watchPage } from './browser.mjs';

// `asset`: as the server itself offers it; `file`: from the npm package.
const SHAKA = { kind: 'shaka', file: 'node_modules/shaka-player/dist/shaka-player.compiled.js' };
export const ENGINES = {
  hls: { kind: 'hls', manifest: 'index.m3u8', asset: 'hls.min.js' },
  'hls-1.6': { kind: 'hls', manifest: 'index.m3u8', file: 'node_modules/hls.js/dist/hls.min.js' },
  dash: { kind: 'dash', manifest: 'manifest.mpd', asset: 'dash.all.min.js' },
  // After the last picture, 5.2.12 says only now and then that it was.
  'shaka-hls': { ...SHAKA, manifest: 'index.m3u8', saysEnd: false },
  // Shaka Player ends no MPD that is dynamic, even when that says how long it is and asks for no update.
  'shaka-dash': { ...SHAKA, manifest: 'manifest.mpd', saysEnd: false },
};

/**
 * Serves the page from a port of its own: as with most players on the web, the page comes from
 * another origin than the stream, so that playing at all also shows that CORS is right.
 */
async function serve(script, files, [width, height]) {
  const scripts = ['/testpage.js', '/lips.js', '/onsets.js'];
  const own = scripts.map((name) => [name, new URL(name.slice(1), import.meta.url)]);
  const all = { ...Object.fromEntries(own), ...files };
  const html = `<!doctype html><link rel="icon" href="data:,">
<video id="v" muted playsinline width="${width}" height="${height}"></video>
${[script, '/testpage.js', '/lips.js'].map((src) => (src ? `<script src="${src}"></script>` : '')).join('')}`;
  const server = http.createServer(async (request, response) => {
    const file = all[request.url];
    const types = { '.js': 'text/javascript; charset=utf-8', '.mp4': 'video/mp4' };
    const type = file ? types[path.extname(request.url)] : 'text/html; charset=utf-8';
    const body = file ? await readFile(file) : html;
    response.writeHead(200, { 'content-type': type }).end(body);
  });
  await new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  server.unref();
  return `http://127.0.0.1:${server.address().port}/`;
}

/**
 * Opens `page` on the test page and starts `engine` on `stream`; gives what the page complains about. A
 * `patient` player asks again for half a minute when nobody answers. `manifest`: another than the live one. With
 * `looks` false nobody looks at the picture, which then is small: for several players on one small machine.
 */
export async function openTestPage(page, { base, stream, engine, patient = false, manifest = ENGINES[engine].manifest, looks = true }) {
  const { kind, asset, file } = ENGINES[engine];
  const script = asset ? new URL(`/assets/${asset}`, base).href : '/library.js';
  const library = file ? { '/library.js': new URL(file, import.meta.url) } : {};
  const home = await serve(script, library, looks ? [640, 360] : [160, 90]);
  const seen = watchPage(page, base, home);
  await page.goto(home, { waitUntil: 'load', timeout: 20_000 });
  const loaded = await page.evaluate(() => 'Hls' in window || 'dashjs' in window || 'shaka' in window);
  if (!loaded) throw new Error(`the player was not loaded: ${[...seen.failed_requests, ...seen.console_errors][0]}`);
  const url = new URL(`live/${stream}/${manifest}`, base).href;
  await page.evaluate((options) => window.testPlayer.start(options), { kind, url, patient, looks });
  return { url, seen };
}

/** Opens `page` on the test page, which plays `film`, an MP4 file of this machine, without any library. */
export async function openFile(page, film) {
  const home = await serve(null, { '/film.mp4': film }, [160, 90]);
  await page.goto(home, { waitUntil: 'load', timeout: 20_000 });
  await page.evaluate(() => window.testPlayer.start({ kind: 'file', url: '/film.mp4' }));
}

/** From now on notes what flashes and beeps. */
export const listen = (page) =>
  page.evaluate(() => {
    const { player, video } = window.testPlayer;
    return window.testLips.listen(video, player.shownAt);
  });

/** Whether the player may play faster or slower to be as near to live as it should: else it plays at rate 1. */
const catchUp = (page, does) =>
  page.evaluate((does) => {
    const { player, video } = window.testPlayer;
    player.catchUp(does);
    video.playbackRate = 1;
  }, does);

/**
 * How much later beeps are heard than flashes are seen, in milliseconds: the median, and that of each of the first
 * `count` flashes that the server received since that time. Throws when there are fewer within so many seconds.
 */
export async function lips(page, count, since, seconds) {
  const apart = () => page.evaluate((since) => window.testLips.apart(since), since);
  const enough = ([since, count]) => window.testLips.apart(since).length >= count;
  // Sound at another rate is stretched in pieces of tens of milliseconds, which are neither here nor there.
  await catchUp(page, false);
  await page.waitForFunction(enough, [since, count], { timeout: seconds * 1000, polling: 100 })
    .catch(async () => { throw new Error(`${(await apart()).length} flashes with their beeps, not ${count}`); });
  await catchUp(page, true);
  const each = (await apart()).slice(0, count).map((s) => round(s * 1000, 1));
  return { median: [...each].sort((a, b) => a - b)[count >> 1], each };
}

/** The samples from number `from` on. */
export const samples = (page, from = 0) =>
  page.evaluate((n) => window.testPlayer.record.samples.slice(n), from);

/** Moments of at least `seconds` in which media time stood still though the page itself did not. */
export function freezes(list, seconds = 1) {
  let count = 0;
  let still = 0;
  let counted = false;
  for (let i = 1; i < list.length; i += 1) {
    if (list[i].media !== list[i - 1].media) {
      still = 0;
      counted = false;
      continue;
    }
    // A machine that did not even let the page take its sample has not let it play either.
    still += Math.min(list[i].wall - list[i - 1].wall, 0.5);
    if (!counted && still >= seconds) {
      count += 1;
      counted = true;
    }
  }
  return count;
}

export const sleep = (seconds) => new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });
export const round = (n, digits = 2) => (n === null || n === undefined ? null : Number(n.toFixed(digits)));
