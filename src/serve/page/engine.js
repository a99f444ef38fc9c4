// Plays one stream in one <video>, through hls.js, dash.js or the browser itself, behind one shape:
//
//   stop()            gives everything back
//   renditions()      [{ key, width, height, bps, frameRate, codec }], highest first
//   current()         key of the rendition being fetched or shown, or null
//   selected()        'auto' or a key
//   select(key)       plays that rendition; 'auto' lets the player choose
//   latency(now)      seconds behind the wall clock, or null; now: the server's, in milliseconds
//   toLive()          jumps to the live edge
//
// The libraries are 0.6 and 0.8 MB, so each is fetched when it is first wanted.

const scripts = new Map();

function library(src) {
  if (!scripts.has(src)) {
    scripts.set(src, new Promise((resolve, reject) => {
      const script = document.createElement('script');
      script.src = src;
      script.addEventListener('load', resolve);
      script.addEventListener('error', () => {
        scripts.delete(src);
        script.remove();
        reject(new Error('the player could not be loaded from this server'));
      });
      document.head.append(script);
    }));
  }
  return scripts.get(src);
}

const hasMse = () => 'MediaSource' in window || 'ManagedMediaSource' in window;
const hasNativeHls = () =>
  document.createElement('video').canPlayType('application/vnd.apple.mpegurl') !== '';

/** Whether this browser can play `kind` (`hls` or `dash`) at all. */
export function canPlay(kind) {
  return hasMse() || (kind === 'hls' && hasNativeHls());
}

/**
 * Starts playing. `events.fatal(words)` is called at most once, after which the engine is to be
 * stopped and, if wanted, a new one opened.
 */
export async function open(kind, video, url, events) {
  if (kind === 'dash') {
    await library('/assets/dash.all.min.js');
    return dashEngine(video, url, events);
  }
  if (hasMse()) {
    await library('/assets/hls.min.js');
    if (window.Hls.isSupported()) return hlsEngine(video, url, events);
  }
  return nativeEngine(video, url, events);
}

function once(f) {
  let called = false;
  return (...args) => {
    if (called) return;
    called = true;
    f(...args);
  };
}

function play(video, events) {
  video.play().catch((error) => {
    if (error.name === 'NotAllowedError') events.blocked();
  });
}

const tallestFirst = (a, b) => b.height - a.height || b.bps - a.bps;

// How long a player may take to begin and to find its place.
const SETTLE_MS = 32_000;
// How often its distance from live is looked at.
const FOLLOW_MS = 250;
// How fast it may catch up: nobody hears or sees so little.
const CATCH_UP_RATE = 1.05;
// The share of the wanted latency that has to be buffered for that.
const BUFFER_SHARE = 0.75;
// How long it must have played without a stall before it comes closer again by what hls.js added for the stalls;
// doubled each time that was too soon, up to the most.
const FORGIVE_MS = 20_000;
const MAX_FORGIVE_MS = 900_000;

function hlsEngine(video, url, events) {
  const Hls = window.Hls;
  const hls = new Hls({
    // How far behind live it plays is the playlist's to say (PART-HOLD-BACK, or else HOLD-BACK): any
    // liveSync setting here would take its place.
    lowLatencyMode: true,
    // It does not catch up by itself: `follow` does.
    maxLiveSyncPlaybackRate: 1,
    // No backBufferLength: when hls.js 1.7.4 first removes what was played, it loads nothing for four seconds
    // at the live edge. The browser itself makes room when it has to.
  });
  // A tab that slept comes back at the live edge, not where it fell asleep. Given to the constructor,
  // it would be refused without a liveSyncDurationCount beside it.
  hls.config.liveMaxLatencyDurationCount = 6;
  const fatal = once(events.fatal);
  let recovered = 0;
  hls.on(Hls.Events.MANIFEST_PARSED, () => play(video, events));
  hls.on(Hls.Events.ERROR, (_, data) => {
    if (!data.fatal) return;
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR && performance.now() - recovered > 10_000) {
      recovered = performance.now();
      hls.recoverMediaError();
      return;
    }
    fatal(data.type === Hls.ErrorTypes.NETWORK_ERROR ? network(data.response?.code) : decode());
  });
  const unfollow = follow(hls, video);
  hls.loadSource(url);
  hls.attachMedia(video);
  return {
    stop: () => {
      unfollow();
      hls.destroy();
      video.playbackRate = 1;
    },
    renditions: () =>
      hls.levels
        .map((level, index) => ({
          key: String(index),
          width: level.width,
          height: level.height,
          bps: level.averageBitrate || level.bitrate,
          frameRate: level.frameRate || null,
          codec: level.videoCodec ?? null,
        }))
        .sort(tallestFirst),
    current: () => (hls.currentLevel >= 0 ? String(hls.currentLevel) : null),
    selected: () => (hls.autoLevelEnabled ? 'auto' : String(hls.manualLevel)),
    select: (key) => {
      hls.nextLevel = key === 'auto' ? -1 : Number(key);
    },
    // PROGRAM-DATE-TIME is the moment the picture was received, hls.latency only the distance from
    // the end of the playlist.
    latency: (now) => {
      const shown = hls.playingDate?.getTime();
      return shown ? (now - shown) / 1000 : hls.latency || null;
    },
    toLive: () => {
      if (hls.liveSyncPosition) video.currentTime = hls.liveSyncPosition;
    },
  };
}

/**
 * Keeps `video` as far behind live as the playlist says. hls.js would do so too, but only while more than a
 * second is buffered, so it never comes closer than that, and only from within a target duration, where it
 * may not be after it began on a busy machine. While it settles, it is set to the live edge from farther
 * away; who goes back by hand later stays there.
 */
function follow(hls, video) {
  const begun = performance.now();
  const forgive = forgiveStalls(hls);
  const timer = setInterval(() => {
    const details = hls.latestLevelDetails;
    if (!details?.live || video.paused || video.readyState < 3) return;
    forgive(details);
    const excess = hls.latency - hls.targetLatency;
    if (excess > details.targetduration) {
      const isSettling = performance.now() - begun < SETTLE_MS;
      if (isSettling) video.currentTime = hls.liveSyncPosition;
      video.playbackRate = 1;
      return;
    }
    const end = video.buffered.length ? video.buffered.end(video.buffered.length - 1) : 0;
    const hasRoom = end - video.currentTime > Math.min(1, BUFFER_SHARE * hls.targetLatency);
    video.playbackRate = hasRoom && excess > 0.05 ? CATCH_UP_RATE : 1;
  }, FOLLOW_MS);
  return () => clearInterval(timer);
}

/**
 * Takes back what hls.js adds to its distance from live for each stall, a second, once it has played well for a
 * while: hls.js keeps that for as long as it plays, were it only for the moment at which the page was opened.
 */
function forgiveStalls(hls) {
  let stalled = null;
  let forgiven = null;
  let patience = FORGIVE_MS;
  let set = null;
  const setTo = (latency) => {
    hls.targetLatency = latency;
    set = latency;
  };
  hls.on(window.Hls.Events.ERROR, (_, data) => {
    if (data.details !== window.Hls.ErrorDetails.BUFFER_STALLED_ERROR) return;
    stalled = performance.now();
    if (forgiven !== null && stalled - forgiven < patience) {
      patience = Math.min(2 * patience, MAX_FORGIVE_MS);
    }
    forgiven = null;
  });
  return (details) => {
    const wanted = details.partHoldBack || details.holdBack;
    // Once it was set, hls.js goes by that alone, whatever a later playlist says.
    if (set !== null && wanted && set !== wanted) setTo(wanted);
    if (stalled === null || performance.now() - stalled < patience) return;
    if (wanted && hls.targetLatency > wanted) setTo(wanted);
    stalled = null;
    forgiven = performance.now();
  };
}

// dash.js's numbers for what it does not get over by itself: a manifest that cannot be had or read,
// and a decoder that gave up (MediaError's 3 and 4, a refused append, a codec it has not got).
const DASH_NO_MANIFEST = new Set([10, 11, 25, 31, 32]);
const DASH_NO_DECODER = new Set([3, 4, 20, 35]);

function dashEngine(video, url, events) {
  const dashjs = window.dashjs;
  const player = dashjs.MediaPlayer().create();
  const fatal = once(events.fatal);
  player.updateSettings({
    debug: { logLevel: dashjs.Debug.LOG_LEVEL_NONE },
    streaming: {
      utcSynchronization: { defaultTimingSource: { scheme: '', value: '' } },
      // The latency and the rates to reach it are the MPD's to say (ServiceDescription).
      applyServiceDescription: true,
      liveCatchup: { enabled: true },
      buffer: { fastSwitchEnabled: true },
      abr: { autoSwitchBitrate: { video: true } },
    },
  });
  player.on(dashjs.MediaPlayer.events.ERROR, (event) => {
    const code = event.error?.code;
    if (DASH_NO_MANIFEST.has(code)) fatal(network(event.error?.data?.response?.status));
    if (DASH_NO_DECODER.has(code)) fatal(decode());
  });
  player.on(dashjs.MediaPlayer.events.PLAYBACK_NOT_ALLOWED, () => events.blocked());
  player.initialize(video, null, true);
  // The server's MPD says where to ask for the time; no public time server is ever asked.
  player.clearDefaultUTCTimingSources();
  player.attachSource(url);
  let choice = 'auto';
  const ready = () => player.isReady() && player.getActiveStream() !== null;
  return {
    stop: () => {
      // dash.js 5.2.1 leaves listeners for `canplay` on the element, which fail when the next engine
      // plays in it; this lets them run out while it still has the element.
      video.dispatchEvent(new Event('canplay'));
      player.destroy();
      video.removeAttribute('src');
      video.load();
      video.playbackRate = 1;
    },
    renditions: () =>
      (ready() ? player.getRepresentationsByType('video') : [])
        .map((r) => ({
          key: r.id,
          width: r.width,
          height: r.height,
          bps: r.bandwidth,
          frameRate: r.frameRate || null,
          codec: r.codecs ?? null,
        }))
        .sort(tallestFirst),
    current: () => (ready() ? (player.getCurrentRepresentationForType('video')?.id ?? null) : null),
    selected: () => choice,
    select: (key) => {
      choice = key;
      player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: key === 'auto' } } } });
      if (key !== 'auto' && ready()) player.setRepresentationForTypeById('video', key, true);
    },
    latency: () => {
      const seconds = ready() ? player.getCurrentLiveLatency() : NaN;
      return Number.isFinite(seconds) && seconds > 0 ? seconds : null;
    },
    toLive: () => player.seekToOriginalLive(),
  };
}

function nativeEngine(video, url, events) {
  const fatal = once(events.fatal);
  const failed = () => fatal(video.error?.code === 2 ? network() : decode());
  video.addEventListener('error', failed);
  video.src = url;
  play(video, events);
  return {
    stop: () => {
      video.removeEventListener('error', failed);
      video.removeAttribute('src');
      video.load();
    },
    renditions: () => [],
    current: () => null,
    selected: () => 'auto',
    select: () => {},
    latency: (now) => {
      const start = video.getStartDate?.().getTime();
      return Number.isFinite(start) ? (now - start) / 1000 - video.currentTime : null;
    },
    toLive: () => {
      if (video.seekable.length) video.currentTime = video.seekable.end(video.seekable.length - 1) - 4;
    },
  };
}

function network(status) {
  if (status === 404) return 'The stream is not there (yet).';
  if (status === 503) return 'The stream has paused.';
  return 'The stream could not be fetched.';
}

function decode() {
  return 'The browser could not decode the stream.';
}
