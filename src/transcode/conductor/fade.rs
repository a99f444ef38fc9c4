//! Eases sound into silence and out of it, so that neither is heard as a click.
//!
//! Enters: blocks of interleaved stereo samples; lengths of silence
//! Leaves: the same lengths; only the samples within a ramp of an edge differ
//! Never:  delays sound: what fades out is the last of it played backwards, which joins without a step
//! Time:   a ramp is a count of samples of the plan's rate
//! Spec:   none

use bytes::{Bytes, BytesMut};

/// Bytes of one sample of both channels: two 32-bit floats.
pub const PCM_FRAME_BYTES: usize = 8;
/// Bytes of one sample of one channel.
const CHANNEL_BYTES: usize = 4;
/// Samples of silence written at a time.
const SILENCE_FRAMES: usize = 1_024;

static SILENCE: [u8; SILENCE_FRAMES * PCM_FRAME_BYTES] = [0; SILENCE_FRAMES * PCM_FRAME_BYTES];

/// Writes sound and silence one after the other.
#[derive(Debug)]
pub(super) struct Fade {
    /// How long a ramp is, in samples.
    ramp: usize,
    /// The last of the sound, at most a ramp: what is reflected when it ends.
    tail: Bytes,
    /// How much of the reflection was given.
    reflected: usize,
    /// How much of the ramp up is left.
    rising: usize,
}

impl Fade {
    /// Begins in silence.
    pub(super) const fn new(ramp: usize) -> Self {
        Self {
            ramp,
            tail: Bytes::new(),
            reflected: 0,
            rising: ramp,
        }
    }

    /// Writes `frames` samples of silence, the last of the sound fading out in the first of them.
    pub(super) fn silence(&mut self, frames: usize, out: &mut BytesMut) {
        let fading = frames.min(self.reflection_left());
        for _ in 0..fading {
            let frame = self.reflect();
            out.extend_from_slice(&frame);
        }
        self.rising = self.ramp;
        let mut left = frames - fading;
        while left > 0 {
            let count = left.min(SILENCE_FRAMES);
            out.extend_from_slice(&SILENCE[..count * PCM_FRAME_BYTES]);
            left -= count;
        }
    }

    /// Writes `pcm`, fading in if silence came before it.
    pub(super) fn sound(&mut self, pcm: &Bytes, out: &mut BytesMut) {
        let frames = pcm.len() / PCM_FRAME_BYTES;
        let eased = frames.min(self.rising);
        for frame in pcm.chunks_exact(PCM_FRAME_BYTES).take(eased) {
            let gain = (self.ramp - self.rising + 1, self.ramp + 1);
            let mut frame = scaled(frame, gain);
            self.rising -= 1;
            // Sound that comes back while the last of it still fades out is laid over it.
            if self.reflection_left() > 0 {
                frame = sum(&frame, &self.reflect());
            }
            out.extend_from_slice(&frame);
        }
        out.extend_from_slice(&pcm[eased * PCM_FRAME_BYTES..frames * PCM_FRAME_BYTES]);
        // What is reflected is what was heard: sound that ends while it still rises has no tail.
        let heard = (frames - eased).min(self.ramp) * PCM_FRAME_BYTES;
        if self.rising == 0 && heard > 0 {
            let end = frames * PCM_FRAME_BYTES;
            (self.tail, self.reflected) = (pcm.slice(end - heard..end), 0);
        }
    }

    fn tail_frames(&self) -> usize {
        self.tail.len() / PCM_FRAME_BYTES
    }

    fn reflection_left(&self) -> usize {
        self.tail_frames() - self.reflected
    }

    /// The next sample of the reflection.
    fn reflect(&mut self) -> [u8; PCM_FRAME_BYTES] {
        let left = self.reflection_left();
        self.reflected += 1;
        let begin = left.saturating_sub(1) * PCM_FRAME_BYTES;
        let frame = self.tail.get(begin..begin + PCM_FRAME_BYTES);
        scaled(frame.unwrap_or_default(), (left, self.tail_frames() + 1))
    }
}

fn channels(frame: &[u8]) -> [f32; 2] {
    let mut channels = frame.chunks_exact(CHANNEL_BYTES).map(|bytes| {
        let bytes = <[u8; CHANNEL_BYTES]>::try_from(bytes);
        f32::from_le_bytes(bytes.unwrap_or_default())
    });
    [(); 2].map(|()| channels.next().unwrap_or_default())
}

fn frame_of([left, right]: [f32; 2]) -> [u8; PCM_FRAME_BYTES] {
    let ([a, b, c, d], [e, f, g, h]) = (left.to_le_bytes(), right.to_le_bytes());
    [a, b, c, d, e, f, g, h]
}

/// `frame` times the fraction `part / whole`.
#[expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "sound is floats from the decoder to the encoder; no time is computed with them"
)]
fn scaled(frame: &[u8], (part, whole): (usize, usize)) -> [u8; PCM_FRAME_BYTES] {
    let gain = part as f32 / whole as f32;
    frame_of(channels(frame).map(|value| value * gain))
}

#[expect(clippy::float_arithmetic, reason = "as `scaled`")]
fn sum(one: &[u8], other: &[u8]) -> [u8; PCM_FRAME_BYTES] {
    let ([a, b], [c, d]) = (channels(one), channels(other));
    frame_of([a + c, b + d])
}

#[cfg(test)]
#[expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "as `scaled`"
)]
mod tests {
    use super::*;

    const RAMP: usize = 960;

    /// A 440 Hz tone at full level, beginning at sample `from`.
    fn tone(from: usize, count: usize) -> Bytes {
        let value = |n: usize| (n as f32 * 440.0 * std::f32::consts::TAU / 48_000.0).cos();
        let frames = (from..from + count).flat_map(|n| frame_of([value(n); 2]));
        frames.collect()
    }

    fn steps(out: &[u8]) -> Vec<f32> {
        let values: Vec<f32> = out
            .chunks_exact(PCM_FRAME_BYTES)
            .map(|frame| channels(frame)[0])
            .collect();
        values
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).abs())
            .collect()
    }

    #[test]
    fn no_edge_is_steeper_than_the_tone_itself() {
        let steepest = 440.0 * std::f32::consts::TAU / 48_000.0;
        for gap in [10, 300, RAMP, 5_000] {
            let (mut fade, mut out) = (Fade::new(RAMP), BytesMut::new());
            fade.silence(100, &mut out);
            for n in 0..4 {
                fade.sound(&tone(n * 1_024, 1_024), &mut out);
            }
            fade.silence(gap, &mut out);
            for n in 0..4 {
                fade.sound(&tone(n * 1_024 + 77, 1_024), &mut out);
            }
            fade.silence(2 * RAMP, &mut out);
            assert_eq!(
                out.len() / PCM_FRAME_BYTES,
                100 + 8 * 1_024 + gap + 2 * RAMP
            );
            let worst = steps(&out).into_iter().fold(0.0, f32::max);
            assert!(worst < steepest * 1.5, "{gap}: {worst}");
            let end = &out[out.len() - PCM_FRAME_BYTES..];
            assert!(end.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn sound_away_from_its_edges_is_not_touched() {
        let (mut fade, mut out) = (Fade::new(RAMP), BytesMut::new());
        let sound = tone(0, 4_096);
        fade.sound(&sound, &mut out);
        fade.silence(4_096, &mut out);
        let edge = RAMP * PCM_FRAME_BYTES;
        assert_eq!(out[edge..sound.len()], sound[edge..]);
        assert!(out[sound.len() + edge..].iter().all(|byte| *byte == 0));
    }
}
