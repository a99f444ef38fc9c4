//! Reads HLS playlists, line by line.
//!
//! Enters: text from anyone
//! Leaves: [`Media`] or [`Multivariant`], and what could not be read
//! Never:  judgement beyond syntax
//! Time:   microseconds; dates since the Unix epoch
//! Spec:   [HLS] §4

use super::text::{join, parse_date, parse_seconds};

/// The most lines of a playlist that are read: three days of parts.
pub const MAX_LINES: usize = 1_000_000;

/// A part: EXT-X-PART.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its address as written.
    pub uri: String,
    /// DURATION.
    pub duration_us: i64,
    /// INDEPENDENT=YES.
    pub independent: bool,
    /// GAP=YES.
    pub gap: bool,
    /// It is a range of a file, which is not followed.
    pub is_range: bool,
}

/// A segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its media sequence number.
    pub msn: u64,
    /// Its address as written.
    pub uri: String,
    /// EXTINF.
    pub duration_us: i64,
    /// EXT-X-PROGRAM-DATE-TIME.
    pub date_us: Option<i64>,
    /// The EXT-X-MAP in force.
    pub map: Option<String>,
    /// EXT-X-DISCONTINUITY before it.
    pub discontinuity: bool,
    /// EXT-X-GAP.
    pub gap: bool,
    /// EXT-X-BYTERANGE, which is not followed.
    pub is_range: bool,
    /// Its parts, as far as listed.
    pub parts: Vec<Part>,
}

/// EXT-X-SERVER-CONTROL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// CAN-BLOCK-RELOAD=YES.
    pub can_block: bool,
    /// PART-HOLD-BACK.
    pub part_hold_back_us: Option<i64>,
    /// HOLD-BACK.
    pub hold_back_us: Option<i64>,
    /// CAN-SKIP-UNTIL.
    pub can_skip_until_us: Option<i64>,
}

/// EXT-X-RENDITION-REPORT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenditionReport {
    /// The other playlist, as written.
    pub uri: String,
    /// LAST-MSN.
    pub last_msn: Option<u64>,
    /// LAST-PART.
    pub last_part: Option<u64>,
}

/// A media playlist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// EXT-X-VERSION, 1 without.
    pub version: u64,
    /// EXT-X-TARGETDURATION, in seconds.
    pub target_s: Option<i64>,
    /// PART-TARGET of EXT-X-PART-INF.
    pub part_target_us: Option<i64>,
    /// EXT-X-SERVER-CONTROL.
    pub control: Option<Control>,
    /// EXT-X-MEDIA-SEQUENCE, 0 without.
    pub media_sequence: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE.
    pub discontinuity_sequence: Option<u64>,
    /// EXT-X-INDEPENDENT-SEGMENTS.
    pub independent_segments: bool,
    /// EXT-X-PLAYLIST-TYPE.
    pub playlist_type: Option<String>,
    /// EXT-X-ENDLIST.
    pub ended: bool,
    /// SKIPPED-SEGMENTS of EXT-X-SKIP.
    pub skipped: Option<u64>,
    /// The segments; after a skip, those that follow it.
    pub segments: Vec<Segment>,
    /// The parts of the segment that is not whole yet.
    pub open_parts: Vec<Part>,
    /// The EXT-X-MAP in force for them.
    pub open_map: Option<String>,
    /// The date before them.
    pub open_date_us: Option<i64>,
    /// URI of EXT-X-PRELOAD-HINT with TYPE=PART.
    pub hint: Option<String>,
    /// EXT-X-RENDITION-REPORT.
    pub reports: Vec<RenditionReport>,
    /// Lines that could not be read, and what is wrong with them.
    pub problems: Vec<String>,
}

impl Media {
    /// The number of the segment after the last whole one.
    #[must_use]
    pub fn next_msn(&self) -> u64 {
        let skipped = self.skipped.unwrap_or(0);
        let count = u64::try_from(self.segments.len()).unwrap_or(u64::MAX);
        self.media_sequence
            .saturating_add(skipped)
            .saturating_add(count)
    }

    /// The last part listed, as segment and place: of the open segment, or of the last whole one.
    #[must_use]
    pub fn last_part(&self) -> Option<(u64, u64)> {
        let last = |parts: &[Part]| u64::try_from(parts.len()).ok()?.checked_sub(1);
        if let Some(part) = last(&self.open_parts) {
            return Some((self.next_msn(), part));
        }
        let segment = self.segments.last()?;
        Some((segment.msn, last(&segment.parts)?))
    }

    /// The part that follows [`Self::last_part`], as a player asks for it.
    #[must_use]
    pub fn next_part(&self) -> (u64, u64) {
        let open = u64::try_from(self.open_parts.len()).unwrap_or(u64::MAX);
        (self.next_msn(), open)
    }

    /// The address, as written, of part `part` of segment `msn`.
    #[must_use]
    pub fn part(&self, msn: u64, part: u64) -> Option<&Part> {
        let parts = if msn == self.next_msn() {
            &self.open_parts
        } else {
            &self.segment(msn)?.parts
        };
        parts.get(usize::try_from(part).ok()?)
    }

    /// The segment with the number `msn`.
    #[must_use]
    pub fn segment(&self, msn: u64) -> Option<&Segment> {
        let first = self
            .media_sequence
            .saturating_add(self.skipped.unwrap_or(0));
        self.segments
            .get(usize::try_from(msn.checked_sub(first)?).ok()?)
    }

    /// The length of all segments.
    #[must_use]
    pub fn length_us(&self) -> i64 {
        self.segments.iter().map(|s| s.duration_us).sum()
    }
}

/// EXT-X-STREAM-INF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// The address as written.
    pub uri: String,
    /// All attributes.
    pub attributes: Attributes,
}

/// A multivariant playlist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multivariant {
    /// EXT-X-VERSION, 1 without.
    pub version: u64,
    /// EXT-X-INDEPENDENT-SEGMENTS.
    pub independent_segments: bool,
    /// EXT-X-STREAM-INF with their addresses.
    pub variants: Vec<Variant>,
    /// EXT-X-MEDIA.
    pub media: Vec<Attributes>,
    /// Lines that could not be read, and what is wrong with them.
    pub problems: Vec<String>,
}

/// The attributes of a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, String)>);

impl Attributes {
    fn parse(text: &str) -> Result<Self, String> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').ok_or("an attribute has no value")?;
            let name_is_good = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || !name.chars().all(name_is_good) {
                return Err(format!("{name:?} is no name of an attribute"));
            }
            let value;
            (value, rest) = match after.strip_prefix('"') {
                Some(quoted) => {
                    let (value, rest) = quoted.split_once('"').ok_or("a quote is not closed")?;
                    if !rest.is_empty() && !rest.starts_with(',') {
                        return Err(format!("something follows the value of {name}"));
                    }
                    (value, rest.strip_prefix(',').unwrap_or_default())
                }
                None => after.split_once(',').unwrap_or((after, "")),
            };
            if found.iter().any(|(other, _)| other == name) {
                return Err(format!("{name} is there twice"));
            }
            found.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(found))
    }

    /// The value of `name`, without quotes.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(found, _)| found == name)?;
        Some(&pair.1)
    }

    /// The value of `name` as an integer.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// The same with URI, which stands in the playlist at `base`, as a whole address.
    pub(super) fn with_whole_uri(&self, base: &str) -> Self {
        let whole = |(name, value): &(String, String)| {
            let value = if name == "URI" {
                join(base, value)
            } else {
                value.clone()
            };
            (name.clone(), value)
        };
        Self(self.0.iter().map(whole).collect())
    }

    fn seconds(&self, name: &str) -> Option<i64> {
        parse_seconds(self.get(name)?)
    }

    fn is_yes(&self, name: &str) -> bool {
        self.get(name) == Some("YES")
    }
}

/// Whether `text` is a multivariant playlist.
#[must_use]
pub fn is_multivariant(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.lines()
        .any(|line| line.starts_with("#EXT-X-STREAM-INF"))
}

/// The lines of a playlist, and what is wrong with it as a text.
fn lines<'a>(bytes: &'a [u8], problems: &mut Vec<String>) -> Vec<&'a str> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        problems.push("it is not UTF-8".to_owned());
        return Vec::new();
    };
    if text
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\r')
    {
        problems.push("it has control characters".to_owned());
    }
    let mut lines = text.lines();
    if lines.next().map(str::trim_end) != Some("#EXTM3U") {
        problems.push("the first line is not #EXTM3U".to_owned());
    }
    lines
        .take(MAX_LINES)
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect()
}

/// A tag's name and what follows its colon.
fn tag(line: &str) -> Option<(&str, &str)> {
    if !line.starts_with("#EXT") {
        return None;
    }
    Some(line.split_once(':').unwrap_or((line, "")))
}

/// Reads a media playlist.
#[must_use]
pub fn parse_media(bytes: &[u8]) -> Media {
    let mut problems = Vec::new();
    let lines = lines(bytes, &mut problems);
    let mut reader = MediaReader {
        media: Media {
            version: 1,
            problems,
            ..Media::default()
        },
        ..MediaReader::default()
    };
    for line in lines {
        let outcome = match tag(line) {
            Some((name, value)) => reader.tag(name, value),
            None if line.starts_with('#') => Ok(()),
            None => reader.uri(line),
        };
        if let Err(problem) = outcome {
            reader.media.problems.push(format!("{line}: {problem}"));
        }
    }
    let mut media = reader.media;
    media.open_parts = reader.next.parts;
    media.open_map = reader.map;
    media.open_date_us = reader.next.date_us;
    if media.target_s.is_none() {
        media
            .problems
            .push("there is no EXT-X-TARGETDURATION".to_owned());
    }
    media
}

#[derive(Default)]
struct MediaReader {
    media: Media,
    /// What has been said of the next segment.
    next: Segment,
    has_length: bool,
    map: Option<String>,
    once: Vec<String>,
}

impl MediaReader {
    fn tag(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "#EXTINF" => {
                let number = value.split(',').next().unwrap_or_default();
                self.next.duration_us = need(parse_seconds(number))?;
                self.has_length = true;
            }
            "#EXT-X-PROGRAM-DATE-TIME" => self.next.date_us = Some(need(parse_date(value))?),
            "#EXT-X-DISCONTINUITY" => self.next.discontinuity = true,
            "#EXT-X-GAP" => self.next.gap = true,
            "#EXT-X-BYTERANGE" => self.next.is_range = true,
            "#EXT-X-MAP" => {
                let attributes = Attributes::parse(value)?;
                self.map = Some(need(attributes.get("URI"))?.to_owned());
            }
            "#EXT-X-PART" => self.next.parts.push(parse_part(value)?),
            "#EXT-X-PRELOAD-HINT" => {
                let attributes = Attributes::parse(value)?;
                let uri = need(attributes.get("URI"))?.to_owned();
                if attributes.get("TYPE") == Some("PART") && self.media.hint.replace(uri).is_some()
                {
                    return Err("a second hint of a part".to_owned());
                }
            }
            "#EXT-X-RENDITION-REPORT" => {
                let attributes = Attributes::parse(value)?;
                self.media.reports.push(RenditionReport {
                    uri: need(attributes.get("URI"))?.to_owned(),
                    last_msn: attributes.number("LAST-MSN"),
                    last_part: attributes.number("LAST-PART"),
                });
            }
            "#EXT-X-STREAM-INF" | "#EXT-X-MEDIA" | "#EXT-X-I-FRAME-STREAM-INF" => {
                return Err("this tag belongs into a multivariant playlist".to_owned());
            }
            _ => return self.header(name, value),
        }
        Ok(())
    }

    /// Tags that stand once.
    fn header(&mut self, name: &str, value: &str) -> Result<(), String> {
        let media = &mut self.media;
        match name {
            "#EXT-X-VERSION" => media.version = need(value.parse().ok())?,
            "#EXT-X-TARGETDURATION" => {
                media.target_s = Some(need(value.parse().ok().filter(|s| *s > 0))?);
            }
            "#EXT-X-MEDIA-SEQUENCE" => {
                media.media_sequence = need(value.parse().ok())?;
                if !media.segments.is_empty() {
                    return Err("it stands after a segment".to_owned());
                }
            }
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                media.discontinuity_sequence = Some(need(value.parse().ok())?);
            }
            "#EXT-X-INDEPENDENT-SEGMENTS" => media.independent_segments = true,
            "#EXT-X-PLAYLIST-TYPE" => media.playlist_type = Some(value.to_owned()),
            "#EXT-X-ENDLIST" => media.ended = true,
            "#EXT-X-PART-INF" => {
                let target = Attributes::parse(value)?.seconds("PART-TARGET");
                media.part_target_us = Some(need(target.filter(|us| *us > 0))?);
            }
            "#EXT-X-SERVER-CONTROL" => {
                let attributes = Attributes::parse(value)?;
                media.control = Some(Control {
                    can_block: attributes.is_yes("CAN-BLOCK-RELOAD"),
                    part_hold_back_us: attributes.seconds("PART-HOLD-BACK"),
                    hold_back_us: attributes.seconds("HOLD-BACK"),
                    can_skip_until_us: attributes.seconds("CAN-SKIP-UNTIL"),
                });
            }
            "#EXT-X-SKIP" => {
                let count = Attributes::parse(value)?.number("SKIPPED-SEGMENTS");
                media.skipped = Some(need(count)?);
            }
            _ => return Ok(()),
        }
        if self.once.iter().any(|seen| seen == name) {
            return Err("it is there twice".to_owned());
        }
        self.once.push(name.to_owned());
        Ok(())
    }

    fn uri(&mut self, line: &str) -> Result<(), String> {
        let mut segment = std::mem::take(&mut self.next);
        segment.msn = self.media.next_msn();
        segment.uri = line.to_owned();
        segment.map.clone_from(&self.map);
        self.media.segments.push(segment);
        if std::mem::take(&mut self.has_length) {
            Ok(())
        } else {
            Err("a segment without EXTINF".to_owned())
        }
    }
}

fn need<T>(value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| "a value is missing or cannot be read".to_owned())
}

fn parse_part(value: &str) -> Result<Part, String> {
    let attributes = Attributes::parse(value)?;
    Ok(Part {
        uri: need(attributes.get("URI"))?.to_owned(),
        duration_us: need(attributes.seconds("DURATION"))?,
        independent: attributes.is_yes("INDEPENDENT"),
        gap: attributes.is_yes("GAP"),
        is_range: attributes.get("BYTERANGE").is_some(),
    })
}

/// Reads a multivariant playlist.
#[must_use]
pub fn parse_multivariant(bytes: &[u8]) -> Multivariant {
    let mut found = Multivariant {
        version: 1,
        ..Multivariant::default()
    };
    let lines = lines(bytes, &mut found.problems);
    let mut pending = None;
    for line in lines {
        let outcome = match tag(line) {
            Some(("#EXT-X-VERSION", value)) => need(value.parse().ok()).map(|v| found.version = v),
            Some(("#EXT-X-INDEPENDENT-SEGMENTS", _)) => {
                found.independent_segments = true;
                Ok(())
            }
            Some(("#EXT-X-MEDIA", value)) => {
                Attributes::parse(value).map(|attributes| found.media.push(attributes))
            }
            Some(("#EXT-X-STREAM-INF", value)) => {
                Attributes::parse(value).map(|attributes| pending = Some(attributes))
            }
            Some(("#EXTINF" | "#EXT-X-TARGETDURATION" | "#EXT-X-MEDIA-SEQUENCE", _)) => {
                Err("this tag belongs into a media playlist".to_owned())
            }
            None if !line.starts_with('#') => match pending.take() {
                Some(attributes) => {
                    found.variants.push(Variant {
                        uri: line.to_owned(),
                        attributes,
                    });
                    Ok(())
                }
                None => Err("an address without EXT-X-STREAM-INF".to_owned()),
            },
            _ => Ok(()),
        };
        if let Err(problem) = outcome {
            found.problems.push(format!("{line}: {problem}"));
        }
    }
    if found.variants.is_empty() {
        found.problems.push("there is no variant".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW_LATENCY: &str = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.0,CAN-SKIP-UNTIL=12.0\n\
        #EXT-X-PART-INF:PART-TARGET=0.333334\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n\
        #EXT-X-MAP:URI=\"i,n=it.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:01.000Z\n\
        #EXT-X-PART:DURATION=0.3,URI=\"10.0.m4s\",INDEPENDENT=YES\n#EXTINF:2.000000,\n10.m4s\n\
        #EXT-X-PART:DURATION=0.3,URI=\"11.0.m4s\"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"11.1.m4s\"\n\
        #EXT-X-RENDITION-REPORT:URI=\"../a/index.m3u8\",LAST-MSN=11,LAST-PART=0\n";

    #[test]
    fn a_low_latency_playlist_is_read() {
        let media = parse_media(LOW_LATENCY.as_bytes());
        assert_eq!(media.problems, Vec::<String>::new());
        assert_eq!((media.next_msn(), media.last_part()), (11, Some((11, 0))));
        assert_eq!(media.segments[0].map.as_deref(), Some("i,n=it.mp4"));
        assert_eq!(media.segments[0].date_us, Some(1_000_000));
        assert!(media.part(10, 0).is_some_and(|part| part.independent));
        assert_eq!(media.hint.as_deref(), Some("11.1.m4s"));
        assert_eq!(media.reports[0].last_msn, Some(11));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for text in [
            "",
            "#EXTM3U\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2.5\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-TARGETDURATION:2\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n1.m4s\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:x,\n1.m4s\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI=\"a\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA:TYPE=AUDIO\n",
        ] {
            assert!(!parse_media(text.as_bytes()).problems.is_empty(), "{text}");
        }
        assert!(!parse_media(b"#EXTM3U\n\xff").problems.is_empty());
    }
}
