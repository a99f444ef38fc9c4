// Plays films of flashes and beeps from this machine, and tells how late their sound is: whether the measure of
// `lips.js` is any good.
//
//   node lips.mjs FILM.mp4 …
//
// The last line is the verdict, with `lips_ms` of each film; exits 0, or 1 when a film did not flash and beep.

import { conclude, withBrowser } from './browser.mjs';
import { lips, listen, openFile } from './testpage.mjs';

const FLASHES = 5;
const PATIENCE_S = 60;
const films = process.argv.slice(2);
const verdict = { check: 'lips', failures: [], lips_ms: [] };

async function measure(context) {
  const pages = [];
  // One after the other: of pages that open at the same time, only one is drawn.
  for (const film of films) {
    const page = await context.newPage();
    await openFile(page, film);
    await listen(page);
    pages.push(page);
  }
  // What the start may have disturbed does not count.
  verdict.lips_ms = await Promise.all(pages.map((page) => lips(page, FLASHES, 500, PATIENCE_S)));
}

try {
  await withBrowser({}, 2 * PATIENCE_S, measure);
} catch (error) {
  verdict.failures.push(String(error.message ?? error).split('\n')[0]);
}
conclude(verdict);
