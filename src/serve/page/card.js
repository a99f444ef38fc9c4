// One stream's card: its player, what the player is doing, and what the server says about it.

import { canPlay, open } from './engine.js';
import {
  bitrate, bytes, codec, copyRow, frameRate, h, icon, join, number, say, show, since, size, words,
} from './dom.js';

const STATES = { starting: 'Starting', live: 'Live', stalled: 'Stalled', ended: 'Ended' };
// Live, though the source is not: the picture is held, or the slate is shown.
const ABSENT = { holding: 'Live, picture held', slate: 'Live, on its slate', reconnecting: 'Live, encoder gone' };
// Why an input is live.
const REASONS = {
  gone: 'the other encoder has gone',
  silent: 'the other encoder sends nothing',
  no_pictures: 'the other encoder sends no pictures',
  steady: 'it is steady again',
};
const INPUTS = { primary: 'Primary', backup: 'Backup' };
const DOINGS = { live: 'on air', standby: 'standing by', absent: 'gone' };
const ENGINES = { hls: 'HLS', dash: 'DASH' };
// A live picture that has not moved for this long is started afresh.
const FROZEN_MS = 12_000;
// An ended stream gets this long to show what is still in the buffer.
const LAST_WORDS_MS = 15_000;
// A player that showed the end of a stream which is live, though it was asked about since: the encoder
// went and came back too fast to be seen gone.
const NEXT_BROADCAST_MS = 3_000;
const RETRY_MS = [1000, 2000, 4000, 8000];
// Farther behind the live edge than this, the way back is offered.
const FAR_BEHIND_S = 20;
const MAX_WARNINGS = 8;

const SEVERITIES = ['serious', 'warning', 'hint'];

/** What the server found wrong with what arrives, each part checked. */
function findings(ingest) {
  const list = Array.isArray(ingest?.health?.findings) ? ingest.health.findings : [];
  const known = list.filter((f) => words(f?.problem, 300)).slice(0, MAX_WARNINGS);
  return known.map((f) => ({
    severity: SEVERITIES.includes(f.severity) ? f.severity : 'warning',
    problem: words(f.problem, 300),
    found: words(f.found, 120),
    expected: words(f.expected, 120),
    obs: words(f.obs, 400),
  }));
}

/** What is not encoded in time, as a finding. */
function overload(broadcast) {
  const problem = words(broadcast.encoding?.warning, 600);
  return problem ? [{ severity: 'serious', problem }] : [];
}

function findingItem({ severity, problem, found, expected, obs }) {
  const values = [found ? `Found: ${found}` : null, expected ? `expected: ${expected}` : null].filter(Boolean).join('; ');
  return h(
    'li',
    { class: severity },
    icon('warning'),
    h(
      'div',
      {},
      h('p', { class: 'problem' }, `${problem}.`),
      values ? h('p', {}, `${values}.`) : null,
      obs ? h('p', {}, h('b', {}, 'In OBS: '), `${obs}.`) : null,
    ),
  );
}

/** What the server says of the inputs of a stream, if there is more than one, or only the backup. */
function inputFacts({ inputs, live }) {
  const list = Array.isArray(inputs) ? inputs.filter((i) => Object.hasOwn(INPUTS, i?.name ?? '')) : [];
  if (list.length < 2 && live?.input !== 'backup') return [];
  return list.map((input) => {
    const isLive = input.state === 'live';
    const why = isLive && Object.hasOwn(REASONS, live?.why ?? '') ? `because ${REASONS[live.why]}` : null;
    const doing = Object.hasOwn(DOINGS, input.state ?? '') ? DOINGS[input.state] : null;
    const health = input.state === 'standby' && ['fair', 'poor'].includes(input.health) ? 'needs attention' : null;
    return [`${INPUTS[input.name]} encoder`, join(doing, why, health)];
  });
}

export class StreamCard {
  /** `page`: { now(), origin, watching(card), loud(card) }. */
  constructor(broadcast, page) {
    this.page = page;
    this.name = broadcast.name;
    this.broadcast = broadcast;
    this.kind = canPlay('hls') ? 'hls' : 'dash';
    this.wanted = false;
    this.engine = null;
    this.opening = 0;
    this.failures = 0;
    this.retryTimer = 0;
    this.trouble = null;
    this.pillsKey = '';
    this.build();
    this.update(broadcast);
  }

  // ---- elements

  build() {
    const id = `s-${Array.from(this.name, (c) => c.codePointAt(0).toString(36)).join('')}`;
    this.video = h('video', { muted: true, playsInline: true, controls: true, 'aria-label': `${this.name}, live video` });
    this.video.addEventListener('volumechange', () => this.onVolume());
    this.video.addEventListener('playing', () => this.onPlaying());
    this.video.addEventListener('waiting', () => this.render());
    this.video.addEventListener('ended', () => this.onEnded());
    this.watchButton = h('button', { type: 'button', class: 'watch', 'aria-label': `Watch ${this.name}`, on: { click: () => this.play() } }, icon('play'));
    this.spinner = h('span', { class: 'spinner', 'aria-hidden': 'true' });
    this.message = h('p', { class: 'message', role: 'status' });
    this.overlay = h('div', { class: 'overlay' }, this.watchButton, this.spinner, this.message);
    this.soundButton = h('button', { type: 'button', class: 'chip sound', on: { click: () => this.unmute() } }, icon('sound'), 'Turn on sound');
    this.liveButton = h('button', { type: 'button', class: 'chip tolive', on: { click: () => this.engine?.toLive() } }, icon('live'), 'Back to live');
    this.badge = h('span', { class: 'badge' });
    this.screen = h('div', { class: 'screen' }, this.video, this.overlay, h('div', { class: 'chips' }, this.soundButton, this.liveButton));
    this.summary = h('p', { class: 'summary' });
    this.stopButton = h('button', { type: 'button', class: 'quiet', on: { click: () => this.stop() } }, icon('stop'), 'Stop');
    this.engineChoice = this.buildEngineChoice(id);
    this.pills = h('div', { class: 'pills' });
    this.quality = h('fieldset', { class: 'quality' }, h('legend', {}, 'Quality'), this.pills);
    this.stats = this.buildStats();
    this.controls = h('div', { class: 'controls' }, this.engineChoice, this.quality);
    this.warnings = h('ul', { class: 'warnings', 'aria-label': 'What to change in the encoder' });
    this.hints = h('ul', { class: 'warnings', 'aria-label': 'What could be better' });
    this.facts = h('dl', { class: 'facts' });
    this.ladder = h('tbody');
    this.element = h(
      'article',
      { class: 'card', 'aria-labelledby': id },
      this.screen,
      h(
        'div',
        { class: 'body' },
        h('header', {}, h('h2', { id }, this.name), this.badge, this.stopButton),
        this.summary,
        this.warnings,
        this.controls,
        this.stats.element,
        this.buildAddresses(),
        this.buildDetails(),
      ),
    );
  }

  buildEngineChoice(id) {
    const field = h('fieldset', { class: 'engine' }, h('legend', {}, 'Played over'));
    const row = h('div', { class: 'pills' });
    for (const [kind, label] of Object.entries(ENGINES)) {
      const input = h('input', { type: 'radio', name: `engine-${id}`, value: kind, checked: kind === this.kind, disabled: !canPlay(kind), on: { change: () => this.useEngine(kind) } });
      row.append(h('label', { class: 'pill', title: canPlay(kind) ? '' : `This browser cannot play ${label}` }, input, h('span', {}, label)));
    }
    field.append(row);
    return field;
  }

  buildStats() {
    const cell = (label, hint) => {
      const value = h('dd', {}, '–');
      return { element: h('div', { title: hint }, h('dt', {}, label), value), value };
    };
    const cells = {
      picture: cell('Picture', 'What is on the screen now'),
      encoding: cell('Encoding', 'The rate and the codec of what is on the screen now'),
      latency: cell('Behind live', 'From the picture reaching the server to your screen'),
      buffer: cell('Buffer', 'Seconds fetched ahead'),
      dropped: cell('Dropped', 'Frames this browser could not show in time'),
    };
    cells.picture.element.className = 'wide';
    cells.encoding.element.className = 'wide';
    return { ...cells, element: h('dl', { class: 'stats' }, ...Object.values(cells).map((c) => c.element)) };
  }

  buildAddresses() {
    const at = (path) => (words(path, 300) ? new URL(path, this.page.origin).href : null);
    const hls = at(this.broadcast.hls);
    const dash = at(this.broadcast.dash);
    const rows = [];
    if (hls) rows.push(copyRow('HLS', hls));
    if (dash) rows.push(copyRow('DASH', dash));
    if (hls) rows.push(copyRow('VLC', `vlc ${hls}`), copyRow('ffplay', `ffplay ${hls}`));
    return h('details', { class: 'more', hidden: rows.length === 0 }, h('summary', {}, 'Watch elsewhere'), h('p', { class: 'hint' }, 'Open the address in VLC (Media → Open Network Stream), in a phone’s browser or in any other player.'), ...rows);
  }

  buildDetails() {
    const table = h(
      'table',
      {},
      h('thead', {}, h('tr', {}, ...['Rendition', 'Format', 'Target', 'Average', 'Peak'].map((t) => h('th', { scope: 'col' }, t)))),
      this.ladder,
    );
    this.ladderTable = h('div', { class: 'scroll', tabIndex: 0, role: 'region', 'aria-label': 'Renditions' }, table);
    return h('details', { class: 'more' }, h('summary', {}, 'Encoder and renditions'), this.hints, this.facts, this.ladderTable);
  }

  // ---- what the server says

  update(broadcast) {
    const before = this.broadcast;
    this.broadcast = broadcast;
    const again = before.state === 'ended' && broadcast.state !== 'ended';
    if (again && this.wanted) this.restart();
    if (broadcast.state === 'ended' && before.state !== 'ended') this.endedAt = performance.now();
    if (this.wanted && !this.engine && !this.opening && !this.retryTimer) this.start();
    this.renderServer();
    this.render();
  }

  /** The server no longer lists the stream. */
  gone() {
    if (this.broadcast.state !== 'ended') this.update({ ...this.broadcast, state: 'ended', publisher: null });
  }

  get state() {
    if (Object.hasOwn(ABSENT, this.broadcast.state)) return 'live';
    return Object.hasOwn(STATES, this.broadcast.state) ? this.broadcast.state : 'starting';
  }

  renderServer() {
    const { source, publisher, ingest, started_at: startedAt } = this.broadcast;
    const video = source?.video;
    const audio = source?.audio;
    const picture = video ? join(size(video.width, video.height), frameRate(video.frame_rate), codec(video.codec)) : null;
    const channels = { 1: 'mono', 2: 'stereo', 6: '5.1' }[audio?.channels] ?? (number(audio?.channels) ? `${audio.channels} channels` : null);
    const rate = number(audio?.sample_rate) ? `${audio.sample_rate / 1000} kHz` : null;
    const sound = audio ? join(codec(audio.codec), rate, channels) : null;
    const age = since(startedAt, this.page.now());
    const on = this.state === 'live' || this.state === 'stalled';
    const backup = this.broadcast.live?.input === 'backup' ? 'on its backup encoder' : null;
    const summary = on ? join(age ? `On air for ${age}` : null, backup, words(publisher?.encoder, 60)) : '';
    say(this.summary, summary);
    show(this.summary, summary !== '');
    this.renderFacts([
      ['Picture sent', picture ?? (source ? 'none' : null)],
      ['Sound sent', sound ?? (source ? 'none' : null)],
      ...inputFacts(this.broadcast),
      ['Encoder', words(publisher?.encoder)],
      ['From', words(publisher?.address)],
      ['Connected', since(publisher?.connected_at, this.page.now())],
      ['Arriving at', bitrate(ingest?.received_bps)],
      ['Received', bytes(ingest?.received_bytes)],
      ['Timestamps repaired', number(ingest?.repairs) ? String(ingest.repairs) : null],
    ]);
    this.renderFindings(on ? [...overload(this.broadcast), ...findings(ingest)] : []);
    this.renderLadder();
  }

  renderFacts(rows) {
    const known = rows.filter(([, value]) => value);
    const key = JSON.stringify(known);
    if (key === this.factsKey) return;
    this.factsKey = key;
    this.facts.replaceChildren(...known.map(([label, value]) => h('div', {}, h('dt', {}, label), h('dd', {}, value))));
  }

  /** Hints stand among the details: what could be better must not look like what is wrong. */
  renderFindings(list) {
    const key = JSON.stringify(list);
    if (key === this.findingsKey) return;
    this.findingsKey = key;
    for (const [place, of] of [[this.warnings, (f) => f.severity !== 'hint'], [this.hints, (f) => f.severity === 'hint']]) {
      const some = list.filter(of);
      show(place, some.length > 0);
      place.replaceChildren(...some.map(findingItem));
    }
  }

  get renditions() {
    return Array.isArray(this.broadcast.renditions) ? this.broadcast.renditions.filter((r) => r && typeof r === 'object') : [];
  }

  renderLadder() {
    const list = this.renditions;
    const shown = this.shownRendition()?.name;
    const key = JSON.stringify([list, shown]);
    show(this.ladderTable, list.length > 0);
    if (key === this.ladderKey) return;
    this.ladderKey = key;
    this.ladder.replaceChildren(...list.map((r) => {
      const format = r.kind === 'audio'
        ? join(codec(r.codec), number(r.sample_rate) ? `${r.sample_rate / 1000} kHz` : null)
        : join(size(r.width, r.height), frameRate(r.frame_rate), codec(r.codec));
      const cells = [format, bitrate(r.target_bps), bitrate(r.average_bps), bitrate(r.peak_bps)];
      return h('tr', { class: shown && r.name === shown ? 'shown' : '' }, h('th', { scope: 'row' }, words(r.name, 40) ?? '–'), ...cells.map((c) => h('td', {}, c || '–')));
    }));
  }

  // ---- the player

  play() {
    this.wanted = true;
    this.failures = 0;
    this.page.watching(this);
    this.start();
    this.render();
    this.video.focus({ preventScroll: true });
  }

  stop() {
    this.wanted = false;
    this.close();
    this.render();
    this.watchButton.focus({ preventScroll: true });
  }

  useEngine(kind) {
    this.kind = kind;
    if (this.wanted) this.restart();
  }

  restart() {
    this.close();
    this.failures = 0;
    this.start();
    this.render();
  }

  close() {
    clearTimeout(this.retryTimer);
    this.retryTimer = 0;
    this.opening = 0;
    this.trouble = null;
    this.engine?.stop();
    this.engine = null;
    this.pillsKey = '';
  }

  async start() {
    const { state } = this;
    if (this.engine || this.opening || state === 'starting' || state === 'ended') return;
    const path = this.broadcast[this.kind];
    if (!words(path, 300)) return;
    // Only the newest attempt may leave a player behind.
    const attempt = Symbol('attempt');
    this.opening = attempt;
    this.movedAt = performance.now();
    this.lastTime = 0;
    const current = () => this.opening === attempt || this.engine?.attempt === attempt;
    const events = {
      fatal: (text) => current() && this.retry(text),
      blocked: () => current() && this.stop(),
    };
    try {
      const engine = await open(this.kind, this.video, new URL(path, this.page.origin).href, events);
      if (this.opening !== attempt) {
        engine.stop();
        return;
      }
      engine.attempt = attempt;
      this.engine = engine;
      this.opening = 0;
    } catch (error) {
      if (this.opening === attempt) this.retry(`${error.message}.`);
    }
  }

  retry(text) {
    this.close();
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    this.trouble = text;
    this.retryTimer = setTimeout(() => {
      this.retryTimer = 0;
      this.start();
      this.render();
    }, wait);
    this.render();
  }

  onPlaying() {
    this.trouble = null;
    this.render();
  }

  onEnded() {
    this.overAt = performance.now();
    if (this.state === 'ended') this.close();
    this.render();
  }

  onVolume() {
    if (!this.video.muted) this.page.loud(this);
    this.render();
  }

  unmute() {
    this.video.muted = false;
    if (this.video.volume === 0) this.video.volume = 1;
  }

  mute() {
    this.video.muted = true;
  }

  // ---- twice a second

  tick() {
    const now = performance.now();
    const { video } = this;
    if (this.engine && this.state === 'ended' && now - (this.endedAt ?? now) > LAST_WORDS_MS) this.close();
    if (this.engine && this.state === 'live' && video.ended && now - this.overAt > NEXT_BROADCAST_MS) this.restart();
    if (this.engine) {
      if (video.paused || video.currentTime !== this.lastTime || this.state !== 'live') {
        if (video.currentTime > this.lastTime) this.failures = 0;
        this.movedAt = now;
      }
      this.lastTime = video.currentTime;
      if (now - this.movedAt > FROZEN_MS) this.retry('The picture stopped moving.');
    }
    this.render();
  }

  /** The server's rendition that is on the screen, by the size of the picture. */
  shownRendition() {
    const { videoWidth, videoHeight } = this.video;
    if (!this.engine || !videoWidth) return null;
    const fits = this.renditions.filter((r) => r.width === videoWidth && r.height === videoHeight);
    if (fits.length < 2) return fits[0] ?? null;
    const now = this.engine.renditions().find((r) => r.key === this.engine.current());
    const off = (r) => Math.abs((r.target_bps ?? 0) - (now?.bps ?? 0));
    return fits.reduce((best, r) => (off(r) < off(best) ? r : best));
  }

  /** What lies over the picture: [words, spinner, watch button]. */
  covering() {
    const { state, video } = this;
    if (this.engine && state === 'ended' && !video.ended && video.readyState > 2) return null;
    if (state === 'ended') return ['This stream has ended.', false, false];
    if (state === 'starting') return ['Starting. The picture will be here in a few seconds.', true, false];
    if (!this.wanted) return state === 'stalled' ? ['The encoder has stopped sending.', false, true] : ['', false, true];
    const stuck = video.readyState < 3 && !video.paused;
    if (state === 'stalled') return !this.engine || stuck ? ['The encoder has stopped sending. Waiting for it to come back…', true, false] : null;
    if (this.trouble) return [`${this.trouble} Trying again…`, true, false];
    if (!this.engine || video.readyState < 2) return ['Loading…', true, false];
    return stuck ? ['Buffering…', true, false] : null;
  }

  render() {
    const { state, engine, video } = this;
    this.badge.dataset.state = state;
    say(this.badge, Object.hasOwn(ABSENT, this.broadcast.state) ? ABSENT[this.broadcast.state] : STATES[state]);
    const cover = this.covering();
    show(this.overlay, cover !== null);
    if (cover) {
      say(this.message, cover[0]);
      show(this.message, cover[0] !== '');
      show(this.spinner, cover[1]);
      show(this.watchButton, cover[2]);
    }
    const playing = engine !== null && video.readyState >= 2;
    this.element.classList.toggle('watching', this.wanted && state !== 'ended');
    this.element.classList.toggle('blank', !playing);
    this.element.classList.toggle('over', state === 'ended');
    show(this.stopButton, this.wanted && state !== 'ended');
    show(this.controls, this.wanted && state !== 'ended');
    show(this.stats.element, this.wanted && state !== 'ended');
    show(this.soundButton, playing && video.muted && cover === null);
    const behind = engine?.latency(this.page.now()) ?? null;
    show(this.liveButton, playing && state === 'live' && behind !== null && behind > FAR_BEHIND_S && behind < 86_400);
    if (this.wanted) this.renderStats(playing, behind);
  }

  renderStats(playing, behind) {
    const { video, stats, engine } = this;
    const shown = this.shownRendition();
    const now = engine?.renditions().find((r) => r.key === engine.current());
    const rate = frameRate(shown?.frame_rate ?? now?.frameRate);
    const bps = bitrate(shown?.average_bps ?? shown?.target_bps ?? now?.bps);
    say(stats.picture.value, (playing && join(size(video.videoWidth, video.videoHeight), rate)) || '–');
    say(stats.encoding.value, (playing && join(bps, codec(shown?.codec ?? now?.codec))) || '–');
    say(stats.latency.value, playing && behind !== null && behind < 86_400 ? `${behind.toFixed(1)} s` : '–');
    say(stats.buffer.value, playing ? `${ahead(video).toFixed(1)} s` : '–');
    const quality = video.getVideoPlaybackQuality?.();
    say(stats.dropped.value, playing && quality ? `${quality.droppedVideoFrames} of ${quality.totalVideoFrames}` : '–');
    stats.dropped.element.classList.toggle('bad', Boolean(quality && quality.droppedVideoFrames > 30 && quality.droppedVideoFrames * 20 > quality.totalVideoFrames));
    this.renderPills(engine);
    this.renderLadder();
  }

  renderPills(engine) {
    const list = engine?.renditions() ?? [];
    show(this.quality, list.length > 1);
    const key = JSON.stringify(list.map((r) => [r.key, r.width, r.height, r.bps]));
    if (key !== this.pillsKey) {
      this.pillsKey = key;
      this.pills.replaceChildren(this.pill('auto', 'Auto', ''), ...list.map((r) => this.pill(r.key, this.pillName(r, list), bitrate(r.bps) ?? '')));
    }
    const selected = engine?.selected();
    const { videoWidth, videoHeight } = this.video;
    for (const label of this.pills.children) {
      const input = label.firstChild;
      if (input.value === selected && !input.checked) input.checked = true;
      const r = list.find((one) => one.key === input.value);
      label.classList.toggle('shown', Boolean(r) && r.width === videoWidth && r.height === videoHeight);
    }
  }

  pill(value, text, hint) {
    const input = h('input', { type: 'radio', name: `quality-${this.name}`, value, on: { change: () => this.engine?.select(value) } });
    return h('label', { class: 'pill', title: hint }, input, h('span', {}, text));
  }

  pillName(r, list) {
    const fast = number(r.frameRate) && r.frameRate > 40 ? Math.round(r.frameRate) : '';
    const name = r.height ? `${r.height}p${fast}` : (bitrate(r.bps) ?? r.key);
    const twin = list.some((other) => other !== r && other.height === r.height && (other.frameRate ?? 0) === (r.frameRate ?? 0));
    return twin ? `${name} ${bitrate(r.bps)}` : name;
  }
}

/** Seconds that can be played from here without fetching more. */
function ahead(video) {
  for (let i = 0; i < video.buffered.length; i += 1) {
    if (video.buffered.start(i) <= video.currentTime + 0.1 && video.buffered.end(i) > video.currentTime) {
      return video.buffered.end(i) - video.currentTime;
    }
  }
  return 0;
}
