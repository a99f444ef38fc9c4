// Runs in the test page: every player behind one shape, and a record of what is on the screen.
//
//   testPlayer.start({ kind, url, patient, looks })   kind: hls, dash, shaka or file; the library is there already;
//                                     patient: asks for as long as a server takes to start again
//   testPlayer.record                 samples each quarter second, how far it played without a jump
//                                     (`moved`), and everything that went wrong
//   testPlayer.player                 renditions(), force(key), audio(), latency(), shownAt(), reload(),
//                                     and of hls.js and dash.js seek(seconds), toLive(), catchUp(whether it does)
//
// `shownAt` is the moment, in milliseconds since the epoch, at which the server received the picture
// that is on the screen: what PROGRAM-DATE-TIME or the MPD's own time line says. Less the machine's
// clock, which is the server's too, it is the distance to live.
'use strict';

window.testPlayer = (() => {
  const SAMPLE_MS = 250;
  const video = document.getElementById('v');
  const canvas = document.createElement('canvas');
  canvas.width = 64;
  canvas.height = 36;
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const record = { samples: [], moved: 0, fatal: [], minor: {}, waiting: 0, seeks: [], ended: 0, sizes: [] };
  const minor = (what) => {
    record.minor[what] = (record.minor[what] ?? 0) + 1;
  };
  const fatal = (what) => record.fatal.push(String(what));
  const play = () => video.play().catch((error) => error.name === 'AbortError' || fatal(error));

  /**
   * By itself hls.js gives up at once when nobody answers at an address, or 404 does. A stream whose server
   * comes back is worth asking for again; a segment that is not there is not.
   */
  function patience() {
    const policy = (shouldRetry) => {
      const retry = { maxNumRetry: 30, retryDelayMs: 1_000, maxRetryDelayMs: 1_000, shouldRetry };
      return { default: { maxTimeToFirstByteMs: 10_000, maxLoadTimeMs: 20_000, timeoutRetry: retry, errorRetry: retry } };
    };
    const always = ({ maxNumRetry }, count) => count < maxNumRetry;
    const unlessMissing = (config, count, _, answer) => always(config, count) && answer?.code !== 404;
    return { manifestLoadPolicy: policy(always), playlistLoadPolicy: policy(always), fragLoadPolicy: policy(unlessMissing) };
  }

  function hls(url, patient) {
    const { Events } = window.Hls;
    let hls;
    const open = () => {
      hls = new window.Hls({ lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.05, ...(patient ? patience() : {}) });
      // As the page at `/` has it: from farther behind it goes to the live edge.
      if (patient) hls.config.liveMaxLatencyDurationCount = 6;
      hls.on(Events.ERROR, (_, d) => {
        const what = `${d.details}${d.error ? `: ${d.error.message}` : ''}${d.response ? ` (${d.response.code})` : ''}`;
        (d.fatal ? fatal : minor)(what);
      });
      hls.on(Events.MANIFEST_PARSED, play);
      hls.loadSource(url);
      hls.attachMedia(video);
    };
    open();
    return {
      version: window.Hls.version,
      renditions: () => hls.levels.map((l, i) => ({ key: String(i), width: l.width, height: l.height, bps: l.bitrate, codec: l.videoCodec, name: l.url[0] })),
      force: (key) => { hls.nextLevel = Number(key); },
      audio: () => hls.audioTracks.length,
      latency: () => hls.latency,
      shownAt: () => hls.playingDate?.getTime() ?? null,
      catchUp: (does) => { hls.config.maxLiveSyncPlaybackRate = does ? 1.05 : 1; },
      seek: (by) => { video.currentTime += by; },
      toLive: () => { video.currentTime = hls.liveSyncPosition; },
      reload: () => {
        hls.destroy();
        open();
      },
    };
  }

  function dash(url, patient) {
    const { dashjs } = window;
    const player = dashjs.MediaPlayer().create();
    player.updateSettings({
      debug: { logLevel: dashjs.Debug.LOG_LEVEL_NONE },
      streaming: { utcSynchronization: { defaultTimingSource: { scheme: '', value: '' } }, liveCatchup: { enabled: true } },
    });
    if (patient) player.updateSettings({ streaming: { retryAttempts: { MPD: 30, InitializationSegment: 30 }, retryIntervals: { MPD: 1_000, InitializationSegment: 1_000 } } });
    player.on(dashjs.MediaPlayer.events.ERROR, (e) => {
      const code = e.error?.code;
      // A fragment or a time source that failed once is tried again; the rest ends playback.
      const again = [15, 16, 17, 26, 27, 28].includes(code);
      (again ? minor : fatal)(`${code}: ${e.error?.message ?? e.error}`);
    });
    player.on(dashjs.MediaPlayer.events.PLAYBACK_ERROR, (e) => fatal(`playback: ${e.error?.message ?? e.error}`));
    player.initialize(video, null, true);
    player.clearDefaultUTCTimingSources();
    player.attachSource(url);
    const ready = () => player.isReady() && player.getActiveStream();
    return {
      version: player.getVersion(),
      renditions: () => (ready() ? player.getRepresentationsByType('video').map((r) => ({ key: r.id, width: r.width, height: r.height, bps: r.bandwidth, codec: r.codecs, name: r.id })) : []),
      force: (key) => {
        player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: false } } } });
        player.setRepresentationForTypeById('video', key, true);
      },
      audio: () => (ready() ? player.getTracksFor('audio').length : 0),
      latency: () => (ready() ? player.getCurrentLiveLatency() : null),
      shownAt: () => {
        const seconds = ready() ? player.timeAsUTC() : NaN;
        return seconds > 0 ? seconds * 1000 : null;
      },
      catchUp: (does) => player.updateSettings({ streaming: { liveCatchup: { enabled: does } } }),
      // As its own controls do: to a seek that it was not told of it says that the player has drifted from live.
      seek: (by) => player.seekToPresentationTime(video.currentTime + by),
      toLive: () => player.seekToOriginalLive(),
      reload: () => player.attachSource(url),
    };
  }

  function shaka(url) {
    window.shaka.polyfill.installAll();
    const player = new window.shaka.Player();
    const failed = (error) => {
      const text = `${error?.code ?? error}: ${JSON.stringify(error?.data ?? '').slice(0, 200)}`;
      (error?.severity === 1 ? minor : fatal)(text);
    };
    // It says critical first, and takes that back where it is going to try again.
    player.addEventListener('error', (event) => setTimeout(failed, 0, event.detail));
    // Shaka takes @suggestedPresentationDelay, which is there for players without low latency, for the
    // end of what can be watched, and counts the ServiceDescription's latency from there.
    player.configure('manifest.dash.ignoreSuggestedPresentationDelay', true);
    // It asks for the next part a third of a second after it had the last: the second of PART-HOLD-BACK is not
    // enough for that.
    if (url.endsWith('.m3u8')) player.configure('manifest.defaultPresentationDelay', 2);
    const load = () => player.load(url).then(play).catch(failed);
    player.attach(video).then(load).catch(failed);
    const tracks = () => player.getVariantTracks();
    return {
      version: window.shaka.Player.version,
      renditions: () => tracks().map((t) => ({ key: String(t.id), width: t.width, height: t.height, bps: t.bandwidth, codec: t.videoCodec, name: t.originalVideoId })),
      force: (key) => {
        player.configure('abr.enabled', false);
        player.selectVariantTrack(tracks().find((t) => String(t.id) === key), true);
      },
      audio: () => player.getAudioTracks().length,
      latency: () => null,
      // Not getPlayheadTimeAsDate: with DASH, that forgets @presentationTimeOffset.
      shownAt: () => {
        const start = player.getPresentationStartTimeAsDate()?.getTime();
        return start ? start + video.currentTime * 1000 : null;
      },
      reload: load,
    };
  }

  /** A file, by the element itself. */
  function file(url) {
    video.src = url;
    play();
    return { latency: () => null, shownAt: () => video.currentTime * 1000, catchUp: () => {} };
  }

  const finite = (n) => (Number.isFinite(n) ? n : null);
  /** What the picture looks like: how light it is, and a print that differs when the picture does. */
  function look() {
    if (video.readyState < 2) return { light: null, print: null };
    pen.drawImage(video, 0, 0, canvas.width, canvas.height);
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    let sum = 0;
    let print = 0;
    for (let i = 0; i < data.length; i += 4) {
      sum += data[i] + data[i + 1] + data[i + 2];
      print = (Math.imul(print, 31) + data[i] + (data[i + 1] << 8) + (data[i + 2] << 16)) | 0;
    }
    return { light: sum / (3 * canvas.width * canvas.height), print };
  }

  function sample(player, looks) {
    const quality = video.getVideoPlaybackQuality();
    const { buffered, currentTime } = video;
    let ahead = 0;
    for (let i = 0; i < buffered.length; i += 1) {
      if (buffered.start(i) <= currentTime + 0.1 && buffered.end(i) > currentTime) ahead = buffered.end(i) - currentTime;
    }
    const shown = finite(player.shownAt());
    const step = currentTime - (record.samples[record.samples.length - 1]?.media ?? currentTime);
    // A jump is not playing.
    record.moved = step >= 0 && step < 2 ? record.moved + step : 0;
    record.samples.push({
      wall: performance.now() / 1000,
      media: currentTime,
      frames: quality.totalVideoFrames,
      dropped: quality.droppedVideoFrames,
      audio: video.webkitAudioDecodedByteCount,
      height: video.videoHeight,
      buffer: ahead,
      rate: video.playbackRate,
      latency: finite(player.latency()),
      shown,
      behind: shown === null ? null : (Date.now() - shown) / 1000,
      state: video.readyState,
      ...(looks ? look() : {}),
    });
  }

  function start({ kind, url, patient, looks }) {
    const player = { hls, dash, shaka, file }[kind](url, patient);
    const last = () => record.samples[record.samples.length - 1]?.media ?? null;
    video.addEventListener('waiting', () => { record.waiting += 1; });
    video.addEventListener('seeking', () => record.seeks.push({ from: last(), to: video.currentTime, sample: record.samples.length }));
    video.addEventListener('ended', () => { record.ended += 1; });
    video.addEventListener('error', () => fatal(`video: ${video.error?.code} ${video.error?.message}`));
    video.addEventListener('resize', () => record.sizes.push(`${video.videoWidth}x${video.videoHeight}`));
    setInterval(sample, SAMPLE_MS, player, looks);
    api.player = player;
  }

  const api = { start, record, video, player: null };
  return api;
})();
