//! What can be wrong with what a streamer sends, in words a streamer understands.
//!
//! Enters: a kind, what was found and what would be right
//! Leaves: sentences; the setting of OBS and the option of ffmpeg that mend it
//! Never:  measures
//! Time:   none
//! Spec:   docs/health.md

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works; could be better.
    Hint,
    /// Viewers notice, or will on a worse day.
    Warning,
    /// Viewers miss something now.
    Serious,
}

impl Severity {
    /// Its name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Warning => "warning",
            Self::Serious => "serious",
        }
    }
}

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// No sound comes.
    NoSound,
    /// No pictures come.
    NoPicture,
    /// Pictures came too late for the broadcast to have any.
    PicturesLeftOut,
    /// Key frames are too far apart.
    KeyframeInterval,
    /// Key frames come at intervals that differ much.
    KeyframesIrregular,
    /// GOPs are open: they begin with pictures that need earlier ones.
    OpenGop,
    /// Pictures are sent in another order than shown.
    BFrames,
    /// Pictures are missing.
    FramesMissing,
    /// Pictures come at uneven distances.
    FrameRateUneven,
    /// Sound arrives long after its pictures.
    SoundLate,
    /// Pictures arrive long after their sound.
    PictureLate,
    /// The source has less data than the best rendition is given.
    BitrateLow,
    /// Nothing arrives for a second or more, again and again.
    UplinkStalls,
    /// The source stays behind the wall clock.
    StaysBehind,
    /// The clock of the stamps jumps.
    ClockJumps,
    /// The clock of the source runs fast or slow.
    ClockDrift,
    /// More than one track of a kind is sent.
    OtherTracks,
}

impl Kind {
    /// All of them, the worst first.
    pub const ALL: [Self; 17] = [
        Self::NoSound,
        Self::NoPicture,
        Self::PicturesLeftOut,
        Self::UplinkStalls,
        Self::StaysBehind,
        Self::FramesMissing,
        Self::ClockJumps,
        Self::KeyframeInterval,
        Self::OpenGop,
        Self::SoundLate,
        Self::PictureLate,
        Self::FrameRateUneven,
        Self::BitrateLow,
        Self::KeyframesIrregular,
        Self::BFrames,
        Self::ClockDrift,
        Self::OtherTracks,
    ];

    /// Its name in the API and in `docs/health.md`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::NoSound => "no_sound",
            Self::NoPicture => "no_picture",
            Self::PicturesLeftOut => "pictures_left_out",
            Self::KeyframeInterval => "keyframe_interval",
            Self::KeyframesIrregular => "keyframes_irregular",
            Self::OpenGop => "open_gop",
            Self::BFrames => "b_frames",
            Self::FramesMissing => "frames_missing",
            Self::FrameRateUneven => "frame_rate_uneven",
            Self::SoundLate => "sound_late",
            Self::PictureLate => "picture_late",
            Self::BitrateLow => "bitrate_low",
            Self::UplinkStalls => "uplink_stalls",
            Self::StaysBehind => "stays_behind",
            Self::ClockJumps => "clock_jumps",
            Self::ClockDrift => "clock_drift",
            Self::OtherTracks => "other_tracks",
        }
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::NoSound | Self::NoPicture | Self::PicturesLeftOut => Severity::Serious,
            Self::KeyframeInterval
            | Self::OpenGop
            | Self::FramesMissing
            | Self::FrameRateUneven
            | Self::SoundLate
            | Self::PictureLate
            | Self::BitrateLow
            | Self::UplinkStalls
            | Self::StaysBehind
            | Self::ClockJumps => Severity::Warning,
            Self::KeyframesIrregular | Self::BFrames | Self::ClockDrift | Self::OtherTracks => {
                Severity::Hint
            }
        }
    }

    /// What it means to viewers, a sentence without its end.
    #[must_use]
    pub const fn problem(self) -> &'static str {
        match self {
            Self::NoSound => "No sound arrives: viewers hear silence",
            Self::NoPicture => "No picture arrives: viewers see none",
            Self::PicturesLeftOut => {
                "The broadcast began with sound alone: viewers do not see the pictures that came later"
            }
            Self::KeyframeInterval => {
                "Key frames are too far apart: after every hiccup viewers wait for the next one"
            }
            Self::KeyframesIrregular => {
                "Key frames come irregularly: how long viewers wait after a hiccup is a matter of luck"
            }
            Self::OpenGop => {
                "The encoder makes open GOPs: nothing can begin or recover at most of its key frames"
            }
            Self::BFrames => "B-frames delay the picture",
            Self::FramesMissing => "Frames are missing: the picture stutters",
            Self::FrameRateUneven => "The frame rate varies: motion is not smooth",
            Self::SoundLate => {
                "Sound is sent long after its picture: it may be too late to be heard"
            }
            Self::PictureLate => {
                "Pictures are sent long after their sound: they may be too late to be seen"
            }
            Self::BitrateLow => {
                "The picture arrives with less data than the best rendition has: it cannot look better than it came"
            }
            Self::UplinkStalls => "The connection stalls: viewers see the picture stand still",
            Self::StaysBehind => {
                "The stream falls behind: it is sent more slowly than it plays, or its computer was suspended"
            }
            Self::ClockJumps => {
                "The timestamps jump: they were repaired, but a moment may be missing"
            }
            Self::ClockDrift => {
                "The clock of the source runs at another speed: it is corrected all the time"
            }
            Self::OtherTracks => {
                "Several tracks of a kind are sent: only the first of each is used, the others cost upload for nothing"
            }
        }
    }

    /// What to do in OBS.
    #[must_use]
    pub const fn obs(self) -> &'static str {
        match self {
            Self::NoSound => {
                "Look at the Audio Mixer: is a source there, and not muted? Settings > Audio > Desktop Audio and Mic: choose a device"
            }
            Self::NoPicture => "Add a source to the scene, and restart the stream",
            Self::PicturesLeftOut => {
                "Stop Streaming, wait until the stream has ended, and start again with a source in the scene"
            }
            Self::KeyframeInterval | Self::KeyframesIrregular => {
                "Settings > Output > Streaming > Keyframe interval: set 2 s (not 0, which is automatic)"
            }
            Self::OpenGop => {
                "Settings > Output > Streaming > x264 Options: remove open-gop and intra-refresh; with another encoder choose another preset"
            }
            Self::BFrames => {
                "Settings > Output > Streaming > Tune: zerolatency, or Max B-frames: 0. Leave it if two frames more of delay do not matter"
            }
            Self::FramesMissing => {
                "View > Stats: if frames are missed due to rendering or encoding lag, choose a faster CPU Usage Preset or a smaller Output Resolution; if they are dropped by the network, lower Settings > Output > Streaming > Video Bitrate"
            }
            Self::FrameRateUneven => {
                "Settings > Video > Common FPS Values: choose 30 or 60; a phone or camera: switch its variable frame rate off"
            }
            Self::SoundLate => {
                "Audio Mixer > Advanced Audio Properties > Sync Offset: set 0 ms, and delay the video sources instead"
            }
            Self::PictureLate => {
                "Remove Render Delay and Video Delay (Async) from the filters of the sources"
            }
            Self::BitrateLow => {
                "Settings > Output > Streaming > Video Bitrate: raise it to the value expected, or choose a smaller Output Resolution"
            }
            Self::UplinkStalls => {
                "Use a cable instead of Wi-Fi; lower Settings > Output > Streaming > Video Bitrate by a third; Settings > Advanced > Network: dynamically change bitrate to manage congestion"
            }
            Self::StaysBehind => {
                "Lower Settings > Output > Streaming > Video Bitrate to below the uplink's rate; keep the computer from sleeping"
            }
            Self::ClockJumps => {
                "Settings > Audio > Sample Rate: 48 kHz for OBS and for every device; remove and add again the source whose clock jumps"
            }
            Self::ClockDrift => {
                "Settings > Audio > Sample Rate: the same as of every device. Nothing has to be done"
            }
            Self::OtherTracks => {
                "Settings > Stream: switch off multitrack video; Settings > Output > Streaming: one Audio Track, and no VOD Track"
            }
        }
    }

    /// What to tell ffmpeg.
    #[must_use]
    pub const fn ffmpeg(self) -> &'static str {
        match self {
            Self::NoSound => "give an input with sound, and -c:a aac",
            Self::NoPicture => "give an input with pictures, and -c:v libx264",
            Self::PicturesLeftOut => "end it, and start again with pictures from the beginning",
            Self::KeyframeInterval | Self::KeyframesIrregular => {
                "-g 60 -sc_threshold 0 at 30 frames per second"
            }
            Self::OpenGop => "-flags +cgop, or -x264-params open-gop=0:intra-refresh=0",
            Self::BFrames => "-bf 0, or -tune zerolatency",
            Self::FramesMissing => "-preset ultrafast, a smaller picture, or a lower -b:v",
            Self::FrameRateUneven => "-vsync cfr -r 30",
            Self::SoundLate => "-max_interleave_delta 500000, and no -itsoffset for the sound",
            Self::PictureLate => "-max_interleave_delta 500000, and no -itsoffset for the pictures",
            Self::BitrateLow => "-b:v at the value expected",
            Self::UplinkStalls => "a lower -b:v with -maxrate and -bufsize",
            Self::StaysBehind => "-re before -i for files, a lower -b:v, a faster -preset",
            Self::ClockJumps => {
                "-use_wallclock_as_timestamps 1 before -i, or -af aresample=async=1"
            }
            Self::ClockDrift => "-af aresample=async=1; nothing has to be done",
            Self::OtherTracks => "-map 0:v:0 -map 0:a:0",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// What was measured: `10.0 s`.
    pub found: String,
    /// What would be right: `2 s`.
    pub expected: String,
}

impl fmt::Display for Finding {
    /// One line: what it means, the two values, and what to do in OBS.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (problem, obs) = (self.kind.problem(), self.kind.obs());
        write!(
            f,
            "{problem} (found: {}; expected: {}). In OBS: {obs}.",
            self.found, self.expected
        )
    }
}
