// Starts Debian's Chromium for a check, with what the checks have in common.

import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import { chromium } from 'playwright-core';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ARGS = [
  '--no-sandbox',
  '--disable-background-networking',
  '--disable-gpu',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-component-update',
  '--no-first-run',
  '--disable-sync',
  '--disable-dev-shm-usage',
  '--mute-audio',
];

/**
 * Runs `body(context)` in a browser with a profile of its own and gives everything back afterwards,
 * also when `body` throws or `seconds` are over.
 */
export async function withBrowser(options, seconds, body) {
  const profile = await mkdtemp(path.join(os.tmpdir(), 'headwater-chromium-'));
  let context;
  let timer;
  try {
    context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM,
      headless: true,
      args: ARGS,
      timeout: 60_000,
      ...options,
    });
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done within ${seconds} s`)), seconds * 1000);
    });
    return await Promise.race([body(context), late]);
  } finally {
    clearTimeout(timer);
    await context?.close().catch(() => {});
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

/** Collects what a page complains about and whom it asks beside the server at `base` and `home`. */
export function watchPage(page, base, home = base) {
  const seen = { console_errors: [], page_errors: [], foreign_requests: [], failed_requests: [], csp: [] };
  const origins = [base, home].map((url) => new URL(url).origin);
  page.on('console', (message) => {
    if (message.type() !== 'error') return;
    const text = message.text();
    (text.includes('Content Security Policy') ? seen.csp : seen.console_errors).push(
      `${text} ${message.location().url}`.trim(),
    );
  });
  page.on('pageerror', (error) => seen.page_errors.push(String(error)));
  page.on('request', (request) => {
    const url = request.url();
    if (/^(blob|data|about):/.test(url)) return;
    if (!origins.includes(new URL(url).origin)) seen.foreign_requests.push(url);
  });
  page.on('requestfailed', (request) => {
    // A player gives up requests that a switch has made useless.
    const why = request.failure()?.errorText ?? '';
    if (why !== 'net::ERR_ABORTED') seen.failed_requests.push(`${request.url()} ${why}`);
  });
  return seen;
}

/** Prints the verdict and ends with 0 when nothing failed, else 1. */
export function conclude(verdict) {
  verdict.ok = verdict.failures.length === 0;
  process.stdout.write(`${JSON.stringify(verdict)}\n`, () => process.exit(verdict.ok ? 0 : 1));
}
