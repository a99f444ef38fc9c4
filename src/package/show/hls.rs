//! Renders a stretch in HLS.
//!
//! Enters: a [`Stretch`], and what the addresses of its playlists end in
//! Leaves: playlists: EVENT while it grows, VOD once nothing is added
//! Never:  a segment that is not stored, but as a gap where other renditions have it
//! Time:   PROGRAM-DATE-TIME where a section begins
//! Spec:   [HLS] §4.4.3.5, §4.4.4, §4.4.6

use std::fmt::{self, Write};

use super::stretch::{Section, Stretch};
use super::{Picture, Track};
use crate::id::{PeriodId, RenditionName};
use crate::media::MediaKind;
use crate::time::MediaTime;

/// EXT-X-VERSION, as that of the live playlists.
const VERSION: u32 = 6;

impl Stretch<'_> {
    /// The media playlist of `rendition`; `None` if no section has it.
    #[must_use]
    pub fn media_playlist(&self, rendition: &RenditionName) -> Option<String> {
        let has = |section: &Section<'_>| section.track(rendition).is_some();
        if !self.sections.iter().any(has) {
            return None;
        }
        let count: u64 = self.sections.iter().map(Section::count).sum();
        let mut out = String::with_capacity(512 + 40 * usize::try_from(count).unwrap_or(0));
        self.write_media(&mut out, rendition).ok()?;
        Some(out)
    }

    fn write_media(&self, out: &mut String, rendition: &RenditionName) -> fmt::Result {
        let shows = self.sections.iter().map(|section| section.show);
        let target = shows.clone().map(|show| show.target_duration_s).max();
        let kind = if self.closed { "VOD" } else { "EVENT" };
        let first = self.sections.first();
        writeln!(
            out,
            "#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-TARGETDURATION:{}\n\
             #EXT-X-PLAYLIST-TYPE:{kind}\n#EXT-X-MEDIA-SEQUENCE:{}",
            target.unwrap_or(1),
            first.map_or(0, |section| section.numbers.start),
        )?;
        if self.sections.len() > 1 {
            out.write_str("#EXT-X-DISCONTINUITY-SEQUENCE:0\n")?;
        }
        if shows.clone().all(|show| show.independent) {
            out.write_str("#EXT-X-INDEPENDENT-SEGMENTS\n")?;
        }
        if !self.closed {
            // Players begin at the live edge of what grows, unless they are told otherwise.
            out.write_str("#EXT-X-START:TIME-OFFSET=0\n")?;
        }
        let mut period = None;
        for (index, section) in self.sections.iter().enumerate() {
            if index > 0 {
                out.write_str("#EXT-X-DISCONTINUITY\n")?;
            }
            write_section(out, section, rendition, &mut period)?;
        }
        if self.closed {
            out.write_str("#EXT-X-ENDLIST\n")?;
        }
        Ok(())
    }

    /// The multivariant playlist, whose media playlists are `<rendition>/<file>`; `None` if there is nothing to
    /// play.
    #[must_use]
    pub fn multivariant_playlist(&self, file: &str) -> Option<String> {
        let last = self.sections.last()?;
        let mut out = String::with_capacity(1_024);
        self.write_multivariant(&mut out, last, file).ok()?;
        Some(out)
    }

    fn write_multivariant(&self, out: &mut String, last: &Section<'_>, file: &str) -> fmt::Result {
        writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{VERSION}")?;
        if self.sections.iter().all(|section| section.show.independent) {
            out.write_str("#EXT-X-INDEPENDENT-SEGMENTS\n")?;
        }
        let of_kind = |kind| {
            let tracks = last.chapter.tracks.iter();
            tracks
                .filter(move |track| track.kind == kind)
                .collect::<Vec<_>>()
        };
        let (pictures, sounds) = (of_kind(MediaKind::Video), of_kind(MediaKind::Audio));
        if !pictures.is_empty() {
            for sound in &sounds {
                let channels = sound.sound.map_or(2, |(_, channels)| channels);
                writeln!(
                    out,
                    "#EXT-X-MEDIA:TYPE=AUDIO,URI=\"{0}/{file}\",GROUP-ID=\"{0}\",NAME=\"Main\",\
                     DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"{channels}\"",
                    sound.name
                )?;
            }
        }
        for (place, picture) in pictures.iter().enumerate() {
            let chosen = matching_sounds(place, pictures.len(), &sounds);
            for sound in &chosen {
                self.write_variant(out, picture, Some(sound), file)?;
            }
            if chosen.is_empty() {
                self.write_variant(out, picture, None, file)?;
            }
        }
        if pictures.is_empty() {
            for sound in sounds {
                self.write_variant(out, sound, None, file)?;
            }
        }
        Ok(())
    }

    fn write_variant(
        &self,
        out: &mut String,
        main: &Track,
        sound: Option<&&Track>,
        file: &str,
    ) -> fmt::Result {
        let both = [Some(main), sound.copied()];
        let (mut peak, mut average) = (0_u64, 0_u64);
        for track in both.iter().flatten() {
            let (of_peak, of_average) = self.rates(&track.name);
            peak = peak.saturating_add(of_peak);
            average = average.saturating_add(of_average);
        }
        let codecs: Vec<_> = both.iter().flatten().map(|t| t.codecs.as_str()).collect();
        write!(
            out,
            "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{}\"",
            codecs.join(",")
        )?;
        if let Some(Picture { width, height, .. }) = main.picture {
            write!(out, ",RESOLUTION={width}x{height}")?;
        }
        if let Some(rate) = main.frame_rate {
            write!(out, ",FRAME-RATE={rate}")?;
        }
        if let Some(sound) = sound {
            write!(out, ",AUDIO=\"{}\"", sound.name)?;
        }
        if main.kind == MediaKind::Video {
            out.write_str(",CLOSED-CAPTIONS=NONE")?;
        }
        writeln!(out, "\n{}/{file}", main.name)
    }

    /// Peak and average of a rendition in all sections.
    pub(super) fn rates(&self, name: &RenditionName) -> (u64, u64) {
        let tracks = self
            .sections
            .iter()
            .filter_map(|section| section.track(name));
        let peak = tracks.clone().map(|track| track.peak_bps).max();
        let average = tracks.map(|track| track.average_bps).max();
        let peak = peak.unwrap_or(1);
        (peak, average.unwrap_or(1).min(peak))
    }
}

fn write_section(
    out: &mut String,
    section: &Section<'_>,
    rendition: &RenditionName,
    period: &mut Option<PeriodId>,
) -> fmt::Result {
    let track = section.track(rendition);
    let grid = section.show.grid();
    if track.is_some() && *period != Some(section.chapter.period) {
        *period = Some(section.chapter.period);
        writeln!(
            out,
            "#EXT-X-MAP:URI=\"init-{}.mp4\"",
            section.chapter.period
        )?;
    }
    // Of a rendition that is not there, another one's lengths are as good as any.
    let Some(timed) = track.or_else(|| section.chapter.tracks.first()) else {
        return Ok(());
    };
    // EXTINF is rounded: what is rounded are positions, so that the sum of all is true.
    let micros = |time: MediaTime| time.to_wall().as_micros();
    for number in section.numbers.clone() {
        let (start, _) = timed.place(grid, number);
        let begins = start.at(timed.timescale);
        let ends = timed.ends(grid, number);
        if number == section.numbers.start {
            writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", begins.to_wall())?;
        }
        if !track.is_some_and(|track| track.stored.contains(number)) {
            out.write_str("#EXT-X-GAP\n")?;
        }
        let length = u64::try_from(micros(ends).saturating_sub(micros(begins))).unwrap_or(0);
        let (seconds, rest) = (length / 1_000_000, length % 1_000_000);
        writeln!(out, "#EXTINF:{seconds}.{rest:06},\n{number}.m4s")?;
    }
    Ok(())
}

/// Of each codec of sound the one for the picture at `place` of `count`: the better half of the pictures has
/// the better half of the sounds. Both are listed best first.
fn matching_sounds<'a>(place: usize, count: usize, sounds: &[&'a Track]) -> Vec<&'a Track> {
    let mut families: Vec<&str> = sounds.iter().map(|track| track.family()).collect();
    families.dedup();
    let choose = |wanted: &&str| {
        let mut same: Vec<_> = sounds.iter().filter(|s| s.family() == *wanted).collect();
        same.sort_by_key(|track| std::cmp::Reverse(track.average_bps));
        same.get(place * same.len() / count.max(1))
            .map(|track| **track)
    };
    families.iter().filter_map(choose).collect()
}

impl Track {
    /// What its codec string begins with: renditions with the same can be switched between.
    pub(super) fn family(&self) -> &str {
        self.codecs.split('.').next().unwrap_or(&self.codecs)
    }
}
