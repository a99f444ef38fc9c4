// Watches one stream with several players at once, each in a tab of its own: at the live edge, through
// the end of its broadcast, and into the next broadcast at the same address.
//
//   node life.mjs BASE_URL --stream demo [--engines hls,dash,page] [--seconds 60] [--until held|ended|again] …
//
// `page` is the page at `/` as a viewer has it. Whoever publishes is told when to go on by a line of
// JSON for each phase that is over: {"phase":"held"} (now end the broadcast) and {"phase":"ended"} (now
// publish again). The last line is the verdict; exits 0 when all held, 1 when not, 2 on a wrong command
// line.
//
// Checks: while it is live, media time advances with the clock and without standing still, no farther
// behind live than --max-latency, without an error and without going back. After the end the player
// plays what is left to the last picture, does not go back, and says that it ended. Of a player that has
// shown the end, no more is asked than that it plays the new broadcast when its application loads the
// same address again: ENDLIST and the end of MPD updates are final, by the rules. The page at `/` is
// such an application, and goes back to live by itself. `--pause` stops the libraries for some seconds as
// the broadcast ends, as a hiccup of the network does: that much behind live they have to end as well.

import { parseArgs } from 'node:util';

import { conclude, watchPage, withBrowser } from './browser.mjs';
import { ENGINES, freezes, openTestPage, round, samples, sleep } from './testpage.mjs';

const OPTIONS = {
  stream: { type: 'string', default: 'demo' },
  engines: { type: 'string', default: [...Object.keys(ENGINES), 'page'].join() },
  // How long the live edge is held.
  seconds: { type: 'string', default: '60' },
  // What is judged last.
  until: { type: 'string', default: 'again' },
  // Within how many seconds a player must start, end or start again.
  start: { type: 'string', default: '30' },
  // How long a player may take to its distance from live.
  settle: { type: 'string', default: '10' },
  'max-latency': { type: 'string', default: '4' },
  'max-stalls': { type: 'string', default: '0' },
  pause: { type: 'string', default: '0' },
  limit: { type: 'string', default: '240' },
};
const ENDED_S = 5;
// A player may put itself right at the end, but not go on doing so.
const MAX_SEEKS = 3;
const PHASES = ['held', 'ended', 'again'];
const { values: args, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
const engines = args.engines.split(',');
const known = engines.every((name) => name === 'page' || Object.hasOwn(ENGINES, name));
if (positionals.length !== 1 || !known || !PHASES.includes(args.until)) {
  process.stderr.write(`usage: node life.mjs BASE_URL [--stream NAME] [--engines ${OPTIONS.engines.default}] [--until ${PHASES.join('|')}]\n`);
  process.exit(2);
}
const base = new URL(positionals[0]).href;
const verdict = { check: 'life', base, stream: args.stream, failures: [], players: {} };
const limit = (name) => Number(args[name]);
const seconds = (list) => list[list.length - 1].wall - list[0].wall;

/** A player of the web, in the test's own page. */
class Library {
  constructor(page, engine) {
    Object.assign(this, { page, engine, found: { engine } });
  }

  fail(text) {
    verdict.failures.push(`${this.engine}: ${text}`);
  }

  get(f, arg) {
    return this.page.evaluate(f, arg);
  }

  /** Waits until `f(testPlayer, arg)` holds in the page. */
  async until(what, f, arg = null) {
    const options = { timeout: limit('start') * 1000, polling: 100 };
    const text = `testPlayer.record.fatal.length > 0 || (${f})(testPlayer, ${JSON.stringify(arg)})`;
    await this.page.waitForFunction(text, null, options)
      .catch(() => this.fail(`${what}: not within ${args.start} s`));
  }

  async fatal(during) {
    const fatal = await this.get(() => window.testPlayer.record.fatal.splice(0));
    if (fatal.length) this.fail(`gave up ${during}: ${fatal[0]}`);
  }

  /** Waits until two seconds more have played. */
  async moving(what) {
    const before = Date.now();
    await this.get(() => { window.testPlayer.record.moved = 0; });
    await this.until(what, ({ video, record }) => !video.paused && video.readyState >= 3 && record.moved > 2);
    return round((Date.now() - before) / 1000);
  }

  async start() {
    const { seen } = await openTestPage(this.page, { base, stream: args.stream, engine: this.engine, looks: false });
    this.seen = seen;
    this.found.started_after_s = await this.moving('playback');
    await this.fatal('at the start');
    this.found.version = await this.get(() => window.testPlayer.player.version);
  }

  async hold() {
    await sleep(limit('settle'));
    const mark = () => this.get(() => ({ samples: window.testPlayer.record.samples.length, waiting: window.testPlayer.record.waiting }));
    const before = await mark();
    await sleep(limit('seconds'));
    const list = await samples(this.page, before.samples);
    const all = list.map((s) => s.behind).filter((s) => s !== null).sort((a, b) => a - b);
    const at = (share) => round(all[Math.min(all.length - 1, Math.floor(all.length * share))]);
    const wall = seconds(list);
    const media = list[list.length - 1].media - list[0].media;
    const seeks = await this.get((n) => window.testPlayer.record.seeks.filter((s) => s.sample >= n), before.samples);
    const held = {
      wall_s: round(wall),
      media_s: round(media),
      behind_s: { least: at(0), median: at(0.5), most: at(1) },
      buffer_min_s: round(Math.min(...list.map((s) => s.buffer))),
      frames_per_s: round((list[list.length - 1].frames - list[0].frames) / wall, 1),
      freezes: freezes(list),
      waiting: (await mark()).waiting - before.waiting,
      seeks,
    };
    Object.assign(this.found, { held });
    await this.fatal('at the live edge');
    if (!(media / wall > 0.9 && media / wall < 1.1)) this.fail(`${held.media_s} s of media in ${held.wall_s} s`);
    if (all.length < list.length * 0.9) this.fail('does not know what it shows');
    if (!(at(0) > 0 && at(1) <= limit('max-latency'))) this.fail(`${at(0)} to ${at(1)} s behind live`);
    if (held.freezes > limit('max-stalls')) this.fail(`stood still ${held.freezes} times`);
    if (!(held.frames_per_s > 5)) this.fail(`${held.frames_per_s} frames per second decoded`);
    for (const { from, to } of seeks) if (to < from - 0.5) this.fail(`went back from ${from} to ${to}`);
    // Where the wall clock lies on the player's own line; it may know no dates once the stream is over.
    this.epoch = list.map((s) => s.shown / 1000 - s.media).sort((a, b) => a - b)[Math.floor(list.length / 2)];
  }

  pause(forSeconds) {
    return this.get((ms) => {
      const { video } = window.testPlayer;
      video.pause();
      setTimeout(() => video.play(), ms);
    }, forSeconds * 1000);
  }

  async end(endsAt) {
    const from = await this.get(() => window.testPlayer.record.samples.length);
    const before = Date.now();
    if (ENGINES[this.engine].saysEnd ?? true) await this.until('the end', ({ record }) => record.ended > 0);
    else await this.until('the last picture', ({ video }, last) => video.currentTime > last, endsAt - this.epoch - 0.4);
    const seeks = await this.get((n) => window.testPlayer.record.seeks.filter((s) => s.sample >= n), from);
    const last = await this.get(() => window.testPlayer.video.currentTime);
    const missing = round(endsAt - (this.epoch + last));
    this.found.ended = { after_s: round((Date.now() - before) / 1000), missing_s: missing, seeks };
    await this.fatal('at the end');
    if (!(Math.abs(missing) < 0.5)) this.fail(`ended ${missing} s before the end of the media`);
    for (const { from: here, to } of seeks) if (to < here - 0.5) this.fail(`went back at the end, from ${here} to ${to}`);
    if (seeks.length > MAX_SEEKS) this.fail(`sought its place ${seeks.length} times at the end`);
  }

  async again() {
    const before = Date.now();
    await this.get(() => {
      window.testPlayer.record.minor = {};
      window.testPlayer.player.reload();
    });
    await this.moving('the new broadcast');
    const behind = (await samples(this.page)).at(-1).behind;
    this.found.again = { after_s: round((Date.now() - before) / 1000), behind_s: round(behind) };
    await this.fatal('in the new broadcast');
    if (!(behind > 0 && behind < 20)) this.fail(`plays the new broadcast ${behind} s behind live`);
  }

  async conclude() {
    this.found.minor = await this.get(() => window.testPlayer?.record.minor).catch(() => null);
    for (const kind of ['page_errors', 'foreign_requests', 'csp']) if (this.seen?.[kind].length) this.fail(`${kind}: ${this.seen[kind][0]}`);
  }
}

/** The page at `/`, which nobody touches. */
class Viewer {
  constructor(page) {
    Object.assign(this, { page, engine: 'page', found: { engine: 'page' } });
    this.card = page.locator('article.card', { has: page.locator('h2', { hasText: args.stream }) });
  }

  fail(text) {
    verdict.failures.push(`page: ${text}`);
  }

  async moving(what) {
    const before = Date.now();
    const video = await this.card.locator('video').elementHandle({ timeout: 10_000 });
    const moves = (v) => {
      const step = v.currentTime - (window.last ?? v.currentTime);
      window.last = v.currentTime;
      window.moved = step >= 0 && step < 2 ? window.moved + step : 0;
      return !v.paused && v.readyState >= 3 && window.moved > 2;
    };
    await this.page.evaluate(() => { window.moved = 0; });
    await this.page.waitForFunction(moves, video, { timeout: limit('start') * 1000, polling: 100 })
      .catch(() => this.fail(`${what}: not within ${args.start} s`));
    return round((Date.now() - before) / 1000);
  }

  async stats() {
    const cells = this.card.locator('.stats > div');
    const rows = await cells.evaluateAll((list) => list.map((d) => [d.querySelector('dt').textContent, d.querySelector('dd').textContent]));
    return Object.fromEntries(rows);
  }

  async start() {
    this.seen = watchPage(this.page, base);
    await this.page.goto(`${base}#${args.stream}`, { waitUntil: 'load', timeout: 20_000 });
    this.found.started_after_s = await this.moving('playback');
  }

  async hold() {
    await sleep(limit('settle') + limit('seconds'));
    await this.moving('playback at the live edge');
    const stats = await this.stats();
    this.found.held = stats;
    const behind = parseFloat(stats['Behind live']);
    if (!(behind > 0 && behind <= limit('max-latency'))) this.fail(`shows ${stats['Behind live']} behind live`);
  }

  async end() {
    const message = this.card.locator('.message', { hasText: 'This stream has ended.' });
    const before = Date.now();
    await message.waitFor({ state: 'visible', timeout: limit('start') * 1000 })
      .catch(() => this.fail('does not say that the stream has ended'));
    this.found.ended = { after_s: round((Date.now() - before) / 1000) };
  }

  async again() {
    this.found.again = { after_s: await this.moving('the new broadcast') };
  }

  async conclude() {
    for (const kind of ['page_errors', 'foreign_requests', 'csp']) if (this.seen?.[kind].length) this.fail(`${kind}: ${this.seen[kind][0]}`);
  }
}

const all = (tabs, phase, ...rest) => Promise.all(tabs.map((tab) => tab[phase](...rest)));
const tell = (phase) => process.stdout.write(`${JSON.stringify({ phase })}\n`);

async function ask(path) {
  const answer = await fetch(new URL(path, base), { signal: AbortSignal.timeout(5_000) }).catch(() => null);
  return answer?.ok ? answer.text() : null;
}

/** Waits until the rendition playlists of the stream do or do not say that it has ended; gives those of pictures. */
async function playlists(ended) {
  const until = Date.now() + limit('start') * 1000;
  while (Date.now() < until) {
    const multivariant = await ask(`live/${args.stream}/index.m3u8`);
    const uris = multivariant?.split('\n').filter((line) => line !== '' && !line.startsWith('#')) ?? [];
    const texts = await Promise.all(uris.map((uri) => ask(`live/${args.stream}/${uri}`)));
    const mpd = await ask(`live/${args.stream}/manifest.mpd`);
    if (mpd && texts.length && texts.every((text) => text?.includes('#EXT-X-ENDLIST') === ended)) return texts;
    await sleep(0.2);
  }
  throw new Error(`the stream did not ${ended ? 'end' : 'come back'} within ${args.start} s`);
}

/** When the media that `text` lists end, in seconds since the epoch; what a rung that rests lacks is none. */
function endOf(text) {
  let [at, length, gap, end] = [0, 0, false, 0];
  for (const line of text.split('\n')) {
    if (line.startsWith('#EXT-X-PROGRAM-DATE-TIME:')) at = Date.parse(line.slice(25)) / 1000;
    else if (line.startsWith('#EXTINF:')) length = parseFloat(line.slice(8));
    else if (line === '#EXT-X-GAP') gap = true;
    else if (line !== '' && !line.startsWith('#')) {
      if (!gap) end = at + length;
      gap = false;
    }
  }
  return end;
}

/**
 * The page is in a browser of its own, as viewers are: within one, at most six requests to a server are under way.
 */
async function check(context, own) {
  const tabs = [];
  for (const engine of engines) {
    const page = await (engine === 'page' ? own : context).newPage();
    tabs.push(engine === 'page' ? new Viewer(page) : new Library(page, engine));
  }
  for (const tab of tabs) verdict.players[tab.engine] = tab.found;
  const good = () => verdict.failures.length === 0;
  const goes = (phase) => good() && PHASES.indexOf(args.until) >= PHASES.indexOf(phase);
  // One after the other: on a small machine the start is what costs.
  for (const tab of tabs) await tab.start();
  if (good()) await all(tabs, 'hold');
  if (goes('ended')) {
    tell('held');
    if (limit('pause') > 0) await Promise.all(tabs.filter((tab) => tab instanceof Library).map((tab) => tab.pause(limit('pause'))));
    await all(tabs, 'end', Math.max(...(await playlists(true)).map(endOf)));
  }
  if (goes('again')) {
    tell('ended');
    await playlists(false);
    // The browser, as any cache, may hold the end of the last broadcast for as long as it was told.
    await sleep(ENDED_S);
    await all(tabs, 'again');
  }
  await all(tabs, 'conclude');
}

try {
  const inBrowser = (body) => withBrowser({ viewport: { width: 800, height: 600 } }, limit('limit'), body);
  await inBrowser((context) => inBrowser((own) => check(context, own)));
} catch (error) {
  verdict.failures.push(String(error.message ?? error).split('\n')[0]);
}
conclude(verdict);
