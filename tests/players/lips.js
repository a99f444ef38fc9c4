// Runs in the test page: how much later the beeps of a film are heard than its flashes are seen.
//
//   testLips.listen(video, shownAt)   begins to note both
//   testLips.apart(since)             for each flash of a picture since then (milliseconds since the epoch), by
//                                     how many seconds its beep is later
//
// Both are told in media time of the playing element. That of a frame comes with it. That of a beep: a worklet says
// which sample of the sound is its first, in the time of the AudioContext, and the two clocks are compared fifty times
// a second; they step together, with each block of samples that is taken from the element.
//
// How good that is, was tried with local films whose sound was 0, 100 and -100 ms late by making, on two cores:
// single flashes within 3 ms at rate 1, the same with three busy loops and a compiler beside it; live, medians are within
// 3 ms of what is stored. At rate 1.05, where Chromium stretches the sound, single ones are up to 30 ms off. What is not certain is left out: a flash behind a frame that was not seen, and
// one whose callback came so late that the next frame may have been drawn. `lips.mjs` tries it again. When a picture is on a real screen, and
// sound in the air, no browser without either can tell: by `expectedDisplayTime` and `getOutputTimestamp` the sound
// of the same films is 41 ms late, of which 32 are the device that there is not.
'use strict';

window.testLips = (() => {
  const SAMPLE_MS = 20;
  /** Comparisons of the clocks that count for a beep lie this near to it. */
  const NEAR_S = 0.3;
  const KEPT = 200;
  const QUIET_S = 0.2;
  /** How far apart frames are if none is missing between them, at 25 per second and more. */
  const STEP_S = 0.045;
  /** A callback this much later may draw the next frame already. */
  const PROMPT_MS = 25;
  /** A flash and a beep further apart than this do not belong together. */
  const PAIR_S = 0.45;
  const flashes = [];
  const beeps = [];

  const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

  async function hear(video) {
    const audio = new AudioContext({ sampleRate: 48_000 });
    await audio.audioWorklet.addModule('/onsets.js');
    const clocks = [];
    setInterval(() => {
      clocks.push({ heard: audio.currentTime, media: video.currentTime, rate: video.playbackRate });
      if (clocks.length > KEPT) clocks.shift();
    }, SAMPLE_MS);
    const tap = new AudioWorkletNode(audio, 'onsets');
    tap.port.onmessage = ({ data: at }) => {
      const near = clocks.filter(({ heard }) => Math.abs(heard - at) < NEAR_S);
      if (near.length > 0) beeps.push(median(near.map(({ heard, media, rate }) => media + (at - heard) * rate)));
    };
    video.muted = false;
    audio.createMediaElementSource(video).connect(tap).connect(audio.destination);
    await audio.resume();
  }

  function see(video, shownAt) {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext('2d', { willReadFrequently: true });
    let last = Infinity;
    let bright = -Infinity;
    const frame = (_, { mediaTime, presentationTime }) => {
      pen.drawImage(video, 0, 0, 1, 1);
      const isPrompt = performance.now() - presentationTime < PROMPT_MS;
      if (pen.getImageData(0, 0, 1, 1).data[0] > 128) {
        const isFirst = Math.abs(mediaTime - bright) > QUIET_S;
        // Behind a frame that was not seen, it may have begun with that one.
        const isSure = isPrompt && mediaTime > last && mediaTime - last < STEP_S;
        if (isFirst && isSure) flashes.push({ at: mediaTime, shown: shownAt() });
        bright = mediaTime;
      }
      last = mediaTime;
      video.requestVideoFrameCallback(frame);
    };
    video.requestVideoFrameCallback(frame);
  }

  async function listen(video, shownAt) {
    await hear(video);
    see(video, shownAt);
  }

  function apart(since) {
    const all = flashes.filter(({ shown }) => shown !== null && shown >= since).map(({ at }) => {
      const each = beeps.map((beep) => beep - at).sort((a, b) => Math.abs(a) - Math.abs(b));
      return each[0];
    });
    return all.filter((s) => Math.abs(s) < PAIR_S);
  }

  return { listen, apart };
})();
