// Opens the page at `/` as a viewer does and looks at it.
//
//   node page.mjs BASE_URL [--stream NAME] [--shots FOLDER] [--limit 90] [--expect playing|empty|card]
//
// Checks: the stream's card plays by itself, in HLS and then in DASH; its numbers are shown; nothing
// complains on the console; the Content-Security-Policy is not violated; no other host is asked.
// Takes pictures at desktop and phone size, light and dark. Prints one line of JSON.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { conclude, watchPage, withBrowser } from './browser.mjs';

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    stream: { type: 'string', default: 'demo' },
    shots: { type: 'string' },
    limit: { type: 'string', default: '90' },
    expect: { type: 'string', default: 'playing' },
    prefix: { type: 'string', default: '' },
    open: { type: 'boolean', default: false },
  },
});
const base = positionals[0];
if (!base || !['playing', 'empty', 'card'].includes(args.expect)) {
  process.stderr.write('usage: node page.mjs BASE_URL [--stream NAME] [--shots FOLDER] [--expect playing|empty|card]\n');
  process.exit(2);
}

const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };
const verdict = { check: 'page', base, stream: args.stream, failures: [], shots: [] };
let opened = null;
const fail = (text) => verdict.failures.push(text);

const card = (page) => page.locator('article.card', { has: page.locator('h2', { hasText: new RegExp(`^${args.stream.replace(/[.]/g, '\\.')}$`) }) });

/** Waits until the card's video has moved by two seconds and the numbers are there. */
async function playing(page, what) {
  const video = card(page).locator('video');
  await card(page).waitFor({ timeout: 15_000 });
  const handle = await video.elementHandle();
  await page.waitForFunction((v) => !v.paused && v.readyState >= 3 && v.videoWidth > 0, handle, { timeout: 30_000 });
  const from = await video.evaluate((v) => v.currentTime);
  await page.waitForFunction(([v, t]) => v.currentTime > t + 2, [handle, from], { timeout: 15_000 });
  const behind = card(page).locator('.stats > div', { hasText: 'Behind live' });
  await behind.filter({ hasText: /\d s$/ }).waitFor({ timeout: 10_000 });
  const stats = await card(page).locator('.stats > div').evaluateAll((list) => Object.fromEntries(list.map((d) => [d.querySelector('dt').textContent, d.querySelector('dd').textContent])));
  verdict[what] = stats;
  if (!/^\d+×\d+ · /.test(stats.Picture)) fail(`${what}: the picture's size is not shown: ${stats.Picture}`);
  if (!/bit\/s/.test(stats.Encoding)) fail(`${what}: the rate is not shown: ${stats.Encoding}`);
  if (!(parseFloat(stats['Behind live']) > 0 && parseFloat(stats['Behind live']) < 30)) fail(`${what}: latency ${stats['Behind live']}`);
}

async function shoot(page) {
  if (!args.shots) return;
  await mkdir(args.shots, { recursive: true });
  for (const [name, viewport] of Object.entries(SIZES)) {
    for (const scheme of ['light', 'dark']) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme: scheme });
      await page.waitForTimeout(700);
      const file = path.join(args.shots, `${args.prefix}${name}-${scheme}.png`);
      await page.screenshot({ path: file, fullPage: true });
      verdict.shots.push(file);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (over > 0) fail(`${name}: the page is ${over} px wider than the screen`);
    }
  }
}

/** What a keyboard user and a screen reader need. */
async function accessible(page) {
  const unnamed = await page.evaluate(() =>
    [...document.querySelectorAll('button, input, video, summary')]
      .filter((e) => e.checkVisibility())
      .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))
      .map((e) => e.outerHTML.slice(0, 120)));
  if (unnamed.length) fail(`without a name: ${unnamed.join(' ')}`);
  await page.keyboard.press('Tab');
  const first = await page.evaluate(() => document.activeElement?.className);
  if (first !== 'skip') fail(`the first Tab goes to ${first}`);
  await page.evaluate(() => document.activeElement.blur());
}

async function check(context) {
  const page = context.pages()[0] ?? (await context.newPage());
  const seen = watchPage(page, base);
  Object.assign(verdict, seen);
  opened = page;
  const answer = await page.goto(`${base}#${args.stream}`, { waitUntil: 'load', timeout: 20_000 });
  if (answer.status() !== 200) fail(`/ answered ${answer.status()}`);
  await accessible(page);
  if (args.expect === 'empty') {
    await page.locator('#empty').waitFor({ state: 'visible', timeout: 10_000 });
  } else if (args.expect === 'card') {
    await page.locator('article.card').first().waitFor({ timeout: 10_000 });
    await page.waitForTimeout(2500);
  } else {
    await playing(page, 'hls');
  }
  if (args.open) await page.evaluate(() => document.querySelectorAll('details').forEach((d) => { d.open = true; }));
  await shoot(page);
  if (args.expect === 'playing') {
    await card(page).getByRole('radio', { name: 'DASH' }).check({ force: true });
    await playing(page, 'dash');
  }
  for (const [kind, list] of Object.entries(seen)) if (list.length) fail(`${kind}: ${list.slice(0, 3).join(' | ')}`);
}

/** What the page showed when a check gave up. */
async function lastLook(error) {
  fail(String(error.message ?? error).split('\n')[0]);
  verdict.text = await opened?.locator('main').innerText({ timeout: 2000 }).catch(() => null);
  if (args.shots) await opened?.screenshot({ path: path.join(args.shots, `${args.prefix}failed.png`) }).catch(() => {});
}

try {
  await withBrowser({ viewport: SIZES.desktop }, Number(args.limit), (context) => check(context).catch(lastLook));
} catch (error) {
  fail(String(error.message ?? error).split('\n')[0]);
}
conclude(verdict);
