// Runs beside the test page's sound: says when, on the clock of the sound, something is heard after silence.
'use strict';

/** As loud as a beep is within its first millisecond, and how long it is silent before one. */
const LOUD = 0.12;
const QUIET_S = 0.2;

class Onsets extends AudioWorkletProcessor {
  #quiet = 0;

  process([[channel]]) {
    // What plays nothing has no channel.
    for (let n = 0; n < (channel?.length ?? 0); n += 1) {
      if (Math.abs(channel[n]) >= LOUD) {
        if (this.#quiet > QUIET_S) this.port.postMessage(currentTime + n / sampleRate);
        this.#quiet = 0;
      }
      this.#quiet += 1 / sampleRate;
    }
    if (!channel) this.#quiet += 128 / sampleRate;
    return true;
  }
}

registerProcessor('onsets', Onsets);
