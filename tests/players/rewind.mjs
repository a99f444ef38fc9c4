// Goes back in a live stream and to live again, starts over and plays a clip, with several players.
//
//   node rewind.mjs BASE_URL --stream demo [--engines hls,dash] --back 16 --start SECONDS --end SECONDS
//
// `start` and `end` are Unix times of what is kept: the stretch between them is played to its end, and what there
// is since `start` from its beginning. The last line is the verdict; exits 0 when all held, 1 when not, 2 on a
// wrong command line.
//
// Checks, for each player, on the manifests that reach further back: it plays near live; after a seek of --back
// seconds it shows what was received so long ago, and plays on there; after a seek to live it is as near as before.
// Then, on the manifests of a stretch: a clip plays to its end; what grows begins at its beginning.

import { parseArgs } from 'node:util';

import { conclude, withBrowser } from './browser.mjs';
import { openTestPage, round, samples } from './testpage.mjs';

const OPTIONS = {
  stream: { type: 'string', default: 'demo' },
  engines: { type: 'string', default: 'hls,dash' },
  back: { type: 'string', default: '16' },
  start: { type: 'string' },
  end: { type: 'string' },
  // Within how many seconds a player must do what it is asked to.
  patience: { type: 'string', default: '60' },
  limit: { type: 'string', default: '300' },
};
const MANIFESTS = { hls: { live: 'dvr.m3u8', clip: 'index.m3u8' }, dash: { live: 'dvr.mpd', clip: 'manifest.mpd' } };
// How far from where it should be a player may be: it begins with a segment.
const SLACK = 6;
const { values: args, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
const engines = args.engines.split(',');
if (positionals.length !== 1 || !args.start || !args.end || !engines.every((name) => Object.hasOwn(MANIFESTS, name))) {
  process.stderr.write('usage: node rewind.mjs BASE_URL [--stream NAME] [--engines hls,dash] --start S --end S\n');
  process.exit(2);
}
const base = new URL(positionals[0]).href;
const verdict = { check: 'rewind', base, stream: args.stream, failures: [], players: {} };
const fail = (text) => verdict.failures.push(text);
const back = Number(args.back);
const patience = { timeout: Number(args.patience) * 1000, polling: 100 };

/** Waits until it has played for two seconds between `least` and `most` seconds behind live; how far it is. */
async function plays(page, what, least, most) {
  await page.evaluate(() => { window.testPlayer.record.moved = 0; });
  const there = ([least, most]) => {
    const { record, video } = window.testPlayer;
    const { behind } = record.samples[record.samples.length - 1] ?? {};
    const near = typeof behind === 'number' && behind >= least && behind <= most;
    return record.fatal.length > 0 || (!video.paused && video.readyState >= 3 && record.moved > 2 && near);
  };
  await page.waitForFunction(there, [least, most], patience).catch(() => fail(`${what}: not within ${args.patience} s`));
  const fatal = await page.evaluate(() => window.testPlayer.record.fatal);
  if (fatal.length) fail(`${what}: gave up: ${fatal[0]}`);
  const behind = (await samples(page)).at(-1)?.behind;
  if (verdict.failures.length) verdict.at = { what, wanted: [least, most], behind: round(behind) };
  return behind;
}

async function goesBack(context, engine) {
  const page = await context.newPage();
  const { seen } = await openTestPage(page, { base, stream: args.stream, engine, manifest: MANIFESTS[engine].live });
  const found = { near: round(await plays(page, `${engine}: at live`, -1, 14)) };
  verdict.players[engine] = found;
  await page.evaluate((by) => window.testPlayer.player.seek(by), -back);
  found.back = round(await plays(page, `${engine}: gone back`, found.near + back - SLACK, found.near + back + 2 * SLACK));
  await page.evaluate(() => window.testPlayer.player.toLive());
  found.again = round(await plays(page, `${engine}: at live again`, -1, found.near + SLACK));
  if (seen.page_errors.length) fail(`${engine}: ${seen.page_errors[0]}`);
  await page.close();
}

async function playsAStretch(context, engine) {
  const page = await context.newPage();
  const manifest = `${MANIFESTS[engine].clip}?start=${args.start}&end=${args.end}`;
  await openTestPage(page, { base, stream: args.stream, engine, manifest });
  const over = () => window.testPlayer.record.ended > 0 || window.testPlayer.record.fatal.length > 0;
  await page.waitForFunction(over, null, patience).catch(() => fail(`${engine}: the clip does not end`));
  const { fatal, length } = await page.evaluate(() => {
    const { record, video } = window.testPlayer;
    return { fatal: record.fatal, length: video.currentTime };
  });
  if (fatal.length) fail(`${engine}: gave up in the clip: ${fatal[0]}`);
  verdict.players[engine].clip_s = round(length);
  await page.close();
  const over_again = await context.newPage();
  const since = `${MANIFESTS[engine].clip}?start=${args.start}`;
  await openTestPage(over_again, { base, stream: args.stream, engine, manifest: since });
  const age = Date.now() / 1000 - Number(args.start);
  const behind = await plays(over_again, `${engine}: starting over`, age - 2 * SLACK, age + 3 * SLACK);
  verdict.players[engine].over = { age: round(age), behind: round(behind) };
  await over_again.close();
}

async function check(context) {
  for (const engine of engines) {
    await goesBack(context, engine);
    await playsAStretch(context, engine);
    if (verdict.failures.length) return;
  }
}

try {
  await withBrowser({ viewport: { width: 800, height: 600 } }, Number(args.limit), check);
} catch (error) {
  fail(String(error.message ?? error).split('\n')[0]);
}
conclude(verdict);
