// Walks the page through what happens on a bad day, against dev/serve.mjs.
//
//   node dev/states.mjs http://127.0.0.1:8090/
//
// Checks: a stream that appears is played without a reload; a chosen rendition is shown; stop, watch
// and copy work, by keyboard too; a server that goes away is said and survived; a stalled, an ended
// and a returned stream are told apart. Prints one line of JSON.

import { conclude, watchPage, withBrowser } from '../browser.mjs';

const base = process.argv[2] ?? 'http://127.0.0.1:8090/';
const verdict = { check: 'states', base, failures: [], steps: [] };
const set = (path) => fetch(new URL(path, base)).then((r) => r.json());
const scenario = (name) => set(`/dev/scenario?name=${name}`);

async function walk(context) {
  const page = context.pages()[0];
  const seen = watchPage(page, base);
  const step = async (name, f) => {
    const before = Date.now();
    try {
      await f();
      verdict.steps.push(`${name} ${((Date.now() - before) / 1000).toFixed(1)} s`);
    } catch (error) {
      verdict.failures.push(`${name}: ${String(error.message).split('\n')[0]}`);
    }
  };
  const card = page.locator('article.card').first();
  const video = card.locator('video');
  const moving = async () => {
    await page.waitForFunction(() => {
      const v = document.querySelector('video');
      if (!v || v.paused || v.readyState < 3) return false;
      window.mark ??= v.currentTime;
      return v.currentTime > window.mark + 1;
    }, null, { timeout: 25_000 });
    await page.evaluate(() => { delete window.mark; });
  };
  const says = (text) => card.locator('.message', { hasText: text }).waitFor({ state: 'visible', timeout: 25_000 });
  const badge = (text) => card.locator('.badge', { hasText: text }).waitFor({ timeout: 8_000 });

  await scenario('empty');
  await page.goto(base);
  await step('empty state shows', () => page.locator('#empty').waitFor({ state: 'visible' }));
  await scenario('starting');
  await step('starting card shows', () => says('Starting'));
  await scenario('one');
  await step('stream plays by itself', moving);
  await step('empty state is gone', () => page.locator('#empty').waitFor({ state: 'hidden' }));

  for (const engine of ['HLS', 'DASH']) {
    await step(`${engine} plays`, async () => {
      await card.getByRole('radio', { name: engine }).check({ force: true });
      await moving();
    });
    for (const height of [360, 720]) {
      await step(`${engine} shows the chosen ${height}p`, async () => {
        await card.getByRole('radio', { name: `${height}p` }).focus();
        await page.keyboard.press('Space');
        await page.waitForFunction((h) => document.querySelector('video').videoHeight === h, height, { timeout: 15_000 });
        await card.locator('.stats', { hasText: `×${height} ` }).waitFor({ timeout: 5_000 });
        await moving();
      });
    }
    await step(`${engine} goes back to Auto`, async () => {
      await card.getByRole('radio', { name: 'Auto' }).check({ force: true });
      await moving();
    });
  }

  await step('sound can be turned on and stays on', async () => {
    await card.getByRole('button', { name: 'Turn on sound' }).click();
    if (await video.evaluate((v) => v.muted)) throw new Error('still muted');
    await card.locator('.sound').waitFor({ state: 'hidden' });
  });
  await step('stop, then watch, by keyboard', async () => {
    await card.getByRole('button', { name: 'Stop' }).focus();
    await page.keyboard.press('Enter');
    await card.getByRole('button', { name: 'Watch demo' }).waitFor();
    await page.keyboard.press('Enter');
    await moving();
  });
  await step('copy says so', async () => {
    await page.getByRole('button', { name: 'Copy Server' }).click();
    await page.locator('#announce', { hasText: 'Server copied' }).waitFor({ state: 'attached', timeout: 3_000 });
  });
  await step('a bad stream key is refused in words', async () => {
    await page.fill('#obs-key', '.hidden');
    await page.locator('#obs-key-bad').waitFor({ state: 'visible' });
    await page.fill('#obs-key', 'show-1');
    await page.locator('#obs-watch-url', { hasText: '/live/show-1/' }).waitFor();
  });

  for (const engine of ['HLS', 'DASH']) {
    await card.getByRole('radio', { name: engine }).check({ force: true });
    await step(`${engine}: a server that is away is said`, async () => {
      await moving();
      await set('/dev/fail?on=1');
      await page.locator('#offline').waitFor({ state: 'visible', timeout: 10_000 });
      await page.waitForTimeout(14_000);
    });
    await step(`${engine}: and survived`, async () => {
      await set('/dev/fail?on=0');
      await page.locator('#offline').waitFor({ state: 'hidden', timeout: 10_000 });
      await moving();
    });
  }
  await scenario('stalled');
  await step('stalled is said', () => badge('Stalled'));
  await scenario('ended');
  await step('ended is said', async () => {
    await badge('Ended');
    await says('This stream has ended.');
  });
  await scenario('one');
  await step('a returned stream plays again', moving);
  await scenario('empty');
  await step('a stream no longer listed has ended', () => badge('Ended'));
  await scenario('one');
  await step('and comes back', moving);
  // While the server was away the browser itself reports each refused request.
  seen.console_errors = seen.console_errors.filter((text) => !text.includes('503'));
  for (const [kind, list] of Object.entries(seen)) if (list.length) verdict.failures.push(`${kind}: ${list.slice(0, 3).join(' | ')}`);
}

try {
  await withBrowser({ viewport: { width: 1280, height: 800 } }, 300, walk);
} catch (error) {
  verdict.failures.push(String(error.message).split('\n')[0]);
}
await set('/dev/fail?on=0');
conclude(verdict);
