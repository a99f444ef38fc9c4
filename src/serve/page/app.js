// The page: asks the server what is live, keeps one card per stream, and says what to type into OBS.

import { StreamCard } from './card.js';
import { copyButton, number, say, show, words } from './dom.js';

const POLL_MS = 2000;
// A tab that nobody looks at asks seldom.
const POLL_HIDDEN_MS = 20_000;
const POLL_TIMEOUT_MS = 6000;
const TICK_MS = 500;
const SERVER_MS = 60_000;
// How long an ended stream that the server no longer lists stays on the page.
const FAREWELL_MS = 30_000;
// A server that lists more than this is shown in part, and the page says so.
const MAX_CARDS = 100;
const KEY = /^(?!\.)[A-Za-z0-9._-]{1,64}$/;

const $ = (id) => document.getElementById(id);
const cards = new Map();
let offset = 0;
let chosen = false;
let timer = 0;
let rtmp = { port: 1935, app: 'live' };

const page = {
  origin: location.origin,
  /** The server's clock, in milliseconds: a viewer's own may be minutes off. */
  now: () => Date.now() + offset,
  watching: () => {
    chosen = true;
  },
  /** Two sounds at once is one too many. */
  loud: (card) => {
    for (const other of cards.values()) if (other !== card) other.mute();
  },
};

async function ask(path) {
  const answer = await fetch(path, {
    cache: 'no-store',
    credentials: 'omit',
    signal: AbortSignal.timeout(POLL_TIMEOUT_MS),
  });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.json();
}

async function askServer() {
  try {
    const before = Date.now();
    const server = await ask('/api/v1/server');
    const now = Date.parse(server.now);
    if (Number.isFinite(now)) offset = now - (before + Date.now()) / 2;
    const isReader = server.rtmp === null;
    document.body.classList.toggle('reader', isReader);
    show($('find'), isReader);
    show($('golive'), !isReader);
    rtmp = { port: number(server.rtmp?.port) ?? 1935, app: words(server.rtmp?.app, 64) ?? 'live' };
    say($('version'), words(server.version, 20) ? `Headwater ${server.version}` : 'Headwater');
    renderObs();
  } catch {
    // The poll of the streams says that the server is away.
  }
}

async function poll() {
  clearTimeout(timer);
  try {
    const answer = await ask('/api/v1/streams');
    merge(Array.isArray(answer?.streams) ? answer.streams : []);
    show($('offline'), false);
  } catch {
    show($('offline'), true);
  }
  document.body.classList.remove('loading');
  timer = setTimeout(poll, document.hidden ? POLL_HIDDEN_MS : POLL_MS);
}

function merge(list) {
  const known = list.filter((b) => b && words(b.name, 64)).slice(0, MAX_CARDS);
  known.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const broadcast of known) {
    const card = cards.get(broadcast.name);
    if (card) {
      card.goneAt = undefined;
      card.update(broadcast);
    } else {
      cards.set(broadcast.name, insert(new StreamCard(broadcast, page)));
    }
  }
  const names = new Set(known.map((b) => b.name));
  for (const card of cards.values()) {
    if (names.has(card.name)) continue;
    card.gone();
    card.goneAt ??= performance.now();
    if (performance.now() - card.goneAt > FAREWELL_MS) remove(card);
  }
  chooseOne();
  renderPage(list.length - known.length);
}

/** Puts a new card in its place by name; no card is ever moved, since that would stop its player. */
function insert(card) {
  const after = [...cards.values()]
    .filter((other) => other.name > card.name)
    .sort((a, b) => (a.name < b.name ? -1 : 1))[0];
  $('cards').insertBefore(card.element, after?.element ?? null);
  return card;
}

function remove(card) {
  card.close();
  card.element.remove();
  cards.delete(card.name);
}

/** One stream plays by itself: the one that the address names, else the first. */
function chooseOne() {
  if (chosen) return;
  const able = [...cards.values()].filter((c) => c.state === 'live' || c.state === 'starting');
  const sorted = able.sort((a, b) => (b.state === 'live') - (a.state === 'live') || (a.name < b.name ? -1 : 1));
  const wanted = sorted.find((c) => `#${c.name}` === location.hash) ?? sorted[0];
  if (!wanted) return;
  chosen = true;
  wanted.wanted = true;
  wanted.start();
  wanted.render();
}

function renderPage(left) {
  const live = [...cards.values()].filter((c) => c.state === 'live' || c.state === 'stalled').length;
  const text = live === 0 ? 'Nothing live' : `${live} live`;
  say($('count'), text);
  $('count').classList.toggle('on', live > 0);
  document.title = live === 0 ? 'Headwater' : `(${live}) Headwater`;
  show($('empty'), cards.size === 0);
  document.body.classList.toggle('nothing', cards.size === 0);
  $('cards').classList.toggle('several', cards.size > 1);
  show($('left'), left > 0);
  say($('left'), left > 0 ? `${left} more are live than this page shows.` : '');
}

// ---- OBS

function serverAddress() {
  const port = rtmp.port === 1935 ? '' : `:${rtmp.port}`;
  return `rtmp://${location.hostname}${port}/${rtmp.app}`;
}

function renderObs() {
  say($('obs-server'), serverAddress());
  const field = $('obs-key');
  const good = KEY.test(field.value);
  field.setAttribute('aria-invalid', String(!good));
  show($('obs-key-bad'), !good);
  show($('obs-watch'), good);
  say($('obs-watch-url'), `${location.origin}/live/${field.value}/index.m3u8`);
  const local = /^(localhost|127\.|\[::1\])/.test(location.hostname);
  show($('obs-local'), local);
}

function startObs() {
  $('obs-server').after(copyButton('Server', serverAddress));
  $('obs-key').after(copyButton('Stream Key', () => $('obs-key').value));
  $('obs-key').addEventListener('input', renderObs);
  renderObs();
}

// ---- a server that only reads: it lists what somebody has asked for

/** Asks for a playlist of `name`, so that the server knows of the stream and lists it. */
async function find(name) {
  const folder = `/live/${name}/`;
  const text = async (path) => {
    const answer = await fetch(path, { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
    if (!answer.ok) throw new Error(answer.status === 404 ? `There is no stream “${name}”.` : 'The store could not be read.');
    return answer.text();
  };
  const playlist = (await text(`${folder}index.m3u8`)).split('\n').find((line) => line && !line.startsWith('#'));
  if (playlist) await text(folder + playlist);
  await poll();
}

function startFind() {
  $('find').addEventListener('submit', async (event) => {
    event.preventDefault();
    const name = $('find-name').value.trim();
    const bad = (words) => {
      say($('find-bad'), words);
      show($('find-bad'), words !== '');
    };
    if (!KEY.test(name)) {
      bad('A name has 1 to 64 letters, digits, dots, dashes or underscores.');
      return;
    }
    bad('');
    await find(name).catch((error) => bad(error.message));
  });
}

startObs();
startFind();
askServer();
setInterval(askServer, SERVER_MS);
setInterval(() => {
  for (const card of cards.values()) if (card.wanted || card.engine) card.tick();
}, TICK_MS);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) poll();
});
poll();
