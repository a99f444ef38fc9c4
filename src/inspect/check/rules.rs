//! The catalogue: every rule that is checked, by name.
//!
//! Enters: nothing
//! Leaves: [`RULES`]
//! Never:  how a rule is checked
//! Spec:   docs/specs.md has the editions that the clauses belong to; docs/inspect.md prints this list

use std::fmt;

/// How much a rule binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Breaking it breaks players.
    Must,
    /// Breaking it needs a reason.
    Should,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
        })
    }
}

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, which never changes: `HLS-TARGETDURATION`.
    pub id: &'static str,
    /// How much it binds.
    pub level: Level,
    /// The clause that says so.
    pub spec: &'static str,
    /// What it asks, in one line.
    pub asks: &'static str,
}

macro_rules! catalogue {
    ($($name:ident $id:literal $level:ident $spec:literal $asks:literal;)*) => {
        $(
            #[doc = $asks]
            pub static $name: Rule = Rule { id: $id, level: Level::$level, spec: $spec, asks: $asks };
        )*
        /// Every rule, in the order of docs/inspect.md.
        pub static RULES: &[&Rule] = &[$(&$name),*];
    };
}

catalogue! {
    HLS_AVAILABLE "HLS-AVAILABLE" Must "[HLS] §6.2.1" "A listed playlist, init segment, segment or part is there the moment it is listed";
    HLS_SYNTAX "HLS-SYNTAX" Must "[HLS] §4.1, §4.4.1.1" "A playlist is UTF-8 text that begins with #EXTM3U and whose tags can be read";
    HLS_VERSION "HLS-VERSION" Must "[HLS] §8" "EXT-X-VERSION is at least what the tags need";
    HLS_TARGETDURATION "HLS-TARGETDURATION" Must "[HLS] §4.4.3.1" "Every EXTINF, rounded to whole seconds, is at most TARGETDURATION";
    HLS_TARGETDURATION_FIXED "HLS-TARGETDURATION-FIXED" Must "[HLS] §6.2.1, §6.2.4" "TARGETDURATION never changes and is the same in every rendition";
    HLS_EXTINF_MEDIA "HLS-EXTINF-MEDIA" Must "[HLS-AUTHORING] 8.1" "EXTINF is the length of the media, also summed over any run of segments, within one sample";
    HLS_MEDIA_SEQUENCE "HLS-MEDIA-SEQUENCE" Must "[HLS] §6.2.2" "MEDIA-SEQUENCE never goes back and rises by one per removed segment";
    HLS_SEGMENT_STABLE "HLS-SEGMENT-STABLE" Must "[HLS] §6.2.1" "A listed segment keeps its URI, duration, date and init segment";
    HLS_SEGMENT_BYTES "HLS-SEGMENT-BYTES" Must "[HLS] §6.2.1" "The bytes at an address of media never change";
    HLS_APPEND_ONLY "HLS-APPEND-ONLY" Must "[HLS] §6.2.1" "Segments are added at the end and removed from the front, nothing else";
    HLS_REFRESH "HLS-REFRESH" Must "[HLS] §6.2.1" "A new segment is listed within 1.5 target durations of the one before";
    HLS_WINDOW "HLS-WINDOW" Must "[HLS] §6.2.2" "Nothing is removed that leaves less than three target durations";
    HLS_WINDOW_SIX "HLS-WINDOW-SIX" Should "[HLS-AUTHORING] 8.11" "A sliding playlist lists six segments or more";
    HLS_REMOVED_AVAILABLE "HLS-REMOVED-AVAILABLE" Must "[RFC8216] §6.2.2" "A removed segment stays for its own length and that of the longest playlist that listed it";
    HLS_ENDLIST "HLS-ENDLIST" Must "[HLS] §6.2.1" "After ENDLIST a playlist stays as it is";
    HLS_PLAYLIST_TYPE "HLS-PLAYLIST-TYPE" Must "[HLS] §6.2.2" "A playlist that loses segments has no EXT-X-PLAYLIST-TYPE";
    HLS_DISCONTINUITY_SEQUENCE "HLS-DISCONTINUITY-SEQUENCE" Must "[HLS] §6.2.2" "Where discontinuities are, DISCONTINUITY-SEQUENCE counts those that were removed";
    HLS_DISCONTINUITY_MATCH "HLS-DISCONTINUITY-MATCH" Must "[HLS] §6.2.4" "Discontinuities are before the same segments in every rendition, and counted alike";
    HLS_DISCONTINUITY "HLS-DISCONTINUITY" Must "[HLS] §4.4.4.3" "Where the init segment changes there is a discontinuity";
    HLS_MAP "HLS-MAP" Must "[HLS] §4.4.4.5" "Fragmented MP4 has an EXT-X-MAP before its first segment";
    HLS_INDEPENDENT_SEGMENTS "HLS-INDEPENDENT-SEGMENTS" Should "[HLS] §4.4.2.1" "Playlists say that segments can be decoded on their own, unless the MPD lists them by their times, as of a source that decides itself";
    HLS_DATE "HLS-DATE" Must "[HLS-AUTHORING] 8.4" "A live playlist has PROGRAM-DATE-TIME, with milliseconds and a zone";
    HLS_DATE_CONTINUOUS "HLS-DATE-CONTINUOUS" Must "[HLS] §6.2.1" "A segment's date is the one before plus its duration, but after a discontinuity; a sample more or less beside a gap";
    HLS_DATE_MAPPING "HLS-DATE-MAPPING" Must "[HLS] §6.2.4" "Dates map to media time in the same way in every rendition";
    HLS_ALIGNMENT "HLS-ALIGNMENT" Must "[HLS] §6.2.4, [CMAF] §7.3.4" "Segments of one number begin at the same instant in every rendition";
    HLS_GAP "HLS-GAP" Should "[HLS] §4.4.4.7" "No segment is marked as missing";

    MV_BANDWIDTH "HLS-BANDWIDTH" Must "[HLS] §4.4.6.2, [HLS-AUTHORING] 1.29" "The measured peak is below 125 % of BANDWIDTH";
    MV_AVERAGE_BANDWIDTH "HLS-AVERAGE-BANDWIDTH" Should "[HLS-AUTHORING] 9.14" "Every variant has AVERAGE-BANDWIDTH, and it is not above BANDWIDTH";
    MV_CODECS "HLS-CODECS" Must "[HLS] §4.4.6.2" "CODECS names every format of the variant, as its init segments say";
    MV_RESOLUTION "HLS-RESOLUTION" Should "[HLS] §4.4.6.2" "RESOLUTION is the size that the parameter sets say";
    MV_FRAME_RATE "HLS-FRAME-RATE" Should "[HLS] §4.4.6.2" "FRAME-RATE is that of the media, to three decimals";
    MV_GROUPS "HLS-GROUPS" Must "[HLS] §4.4.6.2.1" "Every group that a variant names exists";
    MV_MEDIA "HLS-MEDIA" Must "[HLS] §4.4.6.1" "EXT-X-MEDIA has TYPE, GROUP-ID and NAME; names differ in a group; one default, selected automatically";
    MV_CHANNELS "HLS-CHANNELS" Should "[HLS] §4.4.6.1" "CHANNELS of sound is what its init segment says";
    MV_CLOSED_CAPTIONS "HLS-CLOSED-CAPTIONS" Must "[HLS] §4.4.6.2" "CLOSED-CAPTIONS is NONE on every variant or on none";

    LL_PART_TARGET "LL-PART-TARGET" Must "[HLS] §4.4.3.7" "PART-TARGET never changes and is the same in every rendition";
    LL_PART_MAX "LL-PART-MAX" Must "[HLS] §4.4.4.9" "No part is longer than PART-TARGET";
    LL_PART_MIN "LL-PART-MIN" Must "[HLS] §4.4.4.9" "A part lasts 85 % of PART-TARGET or more, but the last of its segment or an independent one";
    LL_PART_EVEN "LL-PART-EVEN" Should "docs/time.md" "Independent parts, too, last 85 % of PART-TARGET or more, so that sound is as even as pictures";
    LL_PART_MEDIA "LL-PART-MEDIA" Must "[HLS] §4.4.4.9" "DURATION of a part is the length of its media, within a millisecond";
    LL_PART_SUM "LL-PART-SUM" Must "[HLS] §3.2" "The parts of a segment together last as long as it";
    LL_PART_BYTES "LL-PART-BYTES" Must "[HLS] §3.2" "The parts of a segment, end to end, are the segment";
    LL_PART_INDEPENDENT "LL-PART-INDEPENDENT" Must "[HLS] §4.4.4.9" "A part marked INDEPENDENT begins with a key frame";
    LL_PART_UNMARKED "LL-PART-UNMARKED" Should "[HLS] §4.4.4.9" "A part that begins with a key frame is marked INDEPENDENT";
    LL_SERVER_CONTROL "LL-SERVER-CONTROL" Must "[HLS] §4.4.3.8, §6.2.4" "SERVER-CONTROL is there, the same in every rendition, and offers blocking reload";
    LL_PART_HOLD_BACK "LL-PART-HOLD-BACK" Must "[HLS] §4.4.3.8, [HLS-AUTHORING] 1.32" "PART-HOLD-BACK is at least three times PART-TARGET";
    LL_HOLD_BACK "LL-HOLD-BACK" Must "[HLS] §4.4.3.8" "HOLD-BACK is at least three times TARGETDURATION";
    LL_SKIP_UNTIL "LL-SKIP-UNTIL" Must "[HLS] §4.4.3.8" "CAN-SKIP-UNTIL is at least six times TARGETDURATION";
    LL_BLOCKING "LL-BLOCKING" Must "[HLS] §6.2.5.2" "A blocking request is answered with the part asked for, or a later one";
    LL_BLOCKING_TIME "LL-BLOCKING-TIME" Should "[HLS] §6.2.5.2" "No request is held for more than three target durations";
    LL_PART_ALONE "LL-PART-ALONE" Must "[HLS] §6.2.5.2" "_HLS_part without _HLS_msn is answered with 400";
    LL_TOO_FAR "LL-TOO-FAR" Should "[HLS] §6.2.5.2" "_HLS_msn more than two ahead is answered with 400";
    LL_DELTA "LL-DELTA" Must "[HLS] §6.2.5.1" "A delta update, put over what is known, is the whole playlist";
    LL_DELTA_SKIPS "LL-DELTA-SKIPS" Should "[HLS] §6.2.5.1" "Where segments can be skipped, a delta update skips them";
    LL_SKIP_V2 "LL-SKIP-V2" Must "[HLS] §6.2.5.1" "_HLS_skip=v2 is answered with a delta update or the whole playlist";
    LL_HINT "LL-HINT" Must "[HLS] §4.4.5.3" "What is hinted becomes the next part";
    LL_HINT_ANSWER "LL-HINT-ANSWER" Must "[HLS] §6.2.6" "A hinted part can be asked for at once and comes whole";
    LL_RENDITION_REPORT "LL-RENDITION-REPORT" Must "[HLS] §4.4.5.4, App. B.1" "Every other rendition is reported, as fresh as the playlist that carries the report";

    CMAF_INIT "CMAF-INIT" Must "[CMAF] §7.3.1" "An init segment is ftyp and moov and can be read";
    CMAF_INIT_BRANDS "CMAF-INIT-BRANDS" Must "[CMAF] §7.2" "An init segment has the brand cmfc or cmf2, and iso6 or later";
    CMAF_ONE_TRACK "CMAF-ONE-TRACK" Must "[CMAF] §7.3.1" "An init segment has one track";
    CMAF_NO_SAMPLES "CMAF-NO-SAMPLES" Must "[CMAF] §7.3.1" "An init segment describes no samples";
    CMAF_MVEX "CMAF-MVEX" Must "[CMAF] §7.3.1, [HLS] §3.1.2" "An init segment has mvex with a trex for its track, after it";
    CMAF_SEGMENT_BRANDS "CMAF-SEGMENT-BRANDS" Should "[CMAF] §7.2" "A segment begins with styp and the brand cmfs";
    CMAF_FRAGMENT "CMAF-FRAGMENT" Must "[CMAF] §7.3.2.3" "A segment consists of whole moof and mdat boxes in turn";
    CMAF_ONE_TRUN "CMAF-ONE-TRUN" Must "[CMAF] §7.5.1" "A moof has one traf with one trun, of the init segment's track";
    CMAF_BASE_IS_MOOF "CMAF-BASE-IS-MOOF" Must "[CMAF] §7.5.16" "Data is addressed from the moof";
    CMAF_DATA "CMAF-DATA" Must "[ISOBMFF] §8.8.8" "The samples of a trun fill its mdat exactly";
    CMAF_TFDT "CMAF-TFDT" Must "[CMAF] §7.5.1" "Every traf has a tfdt";
    CMAF_TFDT_WIDE "CMAF-TFDT-WIDE" Should "[ISOBMFF] §8.8.12" "tfdt is of version 1, so that it does not overflow";
    CMAF_CONTINUITY "CMAF-CONTINUITY" Must "[CMAF] §7.3.2.3" "A fragment begins exactly where the one before ends";
    CMAF_SYNC "CMAF-SYNC" Must "[CMAF] §7.3.2.3, [HLS-AUTHORING] 7.4" "Where playlists say that segments can be decoded on their own, one begins with a sync sample, of H.264 with an IDR picture";
    CMAF_SYNC_ALL "CMAF-SYNC-ALL" Should "[CMAF] §7.3.2.3" "Where they do not say so, it begins with one, too";
    CMAF_FIRST_TIME "CMAF-FIRST-TIME" Should "[CMAF] §7.5.17" "Where playlists say that segments can be decoded on their own, the first sample of one is presented at its decode time";
    CMAF_SWITCHING "CMAF-SWITCHING" Must "[CMAF] §7.3.4" "Tracks that are switched between have one timescale";

    GRID_NUMBER "GRID-NUMBER" Should "docs/time.md" "Where numbers count from the epoch: number and media sequence are start over length";
    GRID_START "GRID-START" Should "docs/time.md" "Where numbers count from the epoch: a segment begins with the first sample of its place";

    DASH_AVAILABLE "DASH-AVAILABLE" Must "[DASH] §5.3.1" "The MPD and the init segments that it names are there";
    DASH_XML "DASH-XML" Must "[DASH] §5.2.1" "The MPD is well-formed XML with an MPD element of the DASH namespace";
    DASH_ATTRIBUTES "DASH-ATTRIBUTES" Must "[DASH] §5.3" "Required attributes are there and can be read";
    DASH_START_FIXED "DASH-START-FIXED" Must "[DASH] §5.3.1.2" "availabilityStartTime never changes";
    DASH_PUBLISH_TIME "DASH-PUBLISH-TIME" Must "[DASH] §5.3.1.2" "publishTime rises with every change of the MPD, and only then";
    DASH_UTC_TIMING "DASH-UTC-TIMING" Must "[DASHIOP] timing" "A dynamic MPD names a clock, and it answers with the time";
    DASH_EDGE "DASH-EDGE" Must "[DASH] §5.3.9.5.3, §A.3" "The segment that the clock or the timeline makes the newest is there";
    DASH_WINDOW "DASH-WINDOW" Must "[DASH] §5.3.1.2" "Listed segments within timeShiftBufferDepth are there";
    DASH_SEGMENT_TIME "DASH-SEGMENT-TIME" Must "[DASHIOP] addressing" "A segment begins within half a segment of where its number puts it";
    DASH_TIMELINE "DASH-TIMELINE" Must "[DASH] §5.3.9.6" "Segments of a SegmentTimeline do not overlap";
    DASH_TIMELINE_WHOLE "DASH-TIMELINE-WHOLE" Should "[DASH] §5.3.9.6" "A SegmentTimeline leaves out no time";
    DASH_TIMELINE_STABLE "DASH-TIMELINE-STABLE" Must "[DASH] §5.4" "A segment keeps its number, time and length from MPD to MPD";
    DASH_TIMELINE_MEDIA "DASH-TIMELINE-MEDIA" Must "[DASH] §5.3.9.6" "A segment begins and lasts as its S element says, within one sample";
    DASH_PERIODS "DASH-PERIODS" Must "[DASH] §5.3.2, §5.4" "Periods have names of their own, begin one after the other, and keep their starts";
    DASH_PERIOD_MEDIA "DASH-PERIOD-MEDIA" Must "[DASH] §5.3.2" "What a SegmentTimeline lists lies within its Period";
    DASH_PERIOD_TIME "DASH-PERIOD-TIME" Must "[DASH] §5.3.2, [HLS] §4.4.4.6" "DASH puts a segment at the date that HLS gives it, in every Period alike";
    DASH_BANDWIDTH "DASH-BANDWIDTH" Should "[DASH] §5.3.5.2" "The measured peak is below 125 % of bandwidth";
    DASH_CODECS "DASH-CODECS" Must "[DASH] §5.3.7.2" "codecs, width, height and audioSamplingRate are what the init segment says";
    DASH_SAME_BYTES "DASH-SAME-BYTES" Should "[CMAF] §6" "HLS and DASH list the same bytes";
    DASH_LATENCY "DASH-LATENCY" Must "[DASHIOP-LL] service description" "An MPD of low latency says the latency it is made for: no less than the age of a chunk that has just come";
    DASH_CHUNK_OFFSET "DASH-CHUNK-OFFSET" Must "[DASHIOP-LL] availability" "availabilityTimeOffset is at most the length of a segment without its first chunk";
    DASH_REFERENCE_TIME "DASH-REFERENCE-TIME" Must "[DASHIOP-LL] reference time" "ProducerReferenceTime is there, and ties media to the wall clock as the newest segment is";
    DASH_PRFT "DASH-PRFT" Must "[DASH] §5.12, [ISOBMFF] §8.16.5" "Where reference times are in-band, every chunk has a prft, and it agrees with the MPD";
    DASH_RESYNC "DASH-RESYNC" Should "[DASHIOP-LL] resync" "Resync is there, and no chunk is longer than it says";
    DASH_GROWING "DASH-GROWING" Must "[DASH] §5.3.9.5.3" "A segment that may be asked for before it is whole comes as it grows";
    DASH_END "DASH-END" Must "[DASH] §5.3.1.2" "When HLS has ended, the MPD announces no more updates";

    HTTP_CONTENT_TYPE "HTTP-CONTENT-TYPE" Must "[RFC8216] §4, [DASH] Annex C" "Every answer has the content type of what it is";
    HTTP_CACHE_MEDIA "HTTP-CACHE-MEDIA" Should "[RFC9111] §5.2, [RFC8246]" "Media may be cached for as long as it is listed, and is immutable";
    HTTP_CACHE_MANIFEST "HTTP-CACHE-MANIFEST" Should "[RFC9111] §5.2" "A live manifest may be cached for half a target duration at most";
    HTTP_CACHE_ERROR "HTTP-CACHE-ERROR" Should "[RFC9111] §4.2.2" "An error says for how long it may be cached: seconds";
    HTTP_ETAG "HTTP-ETAG" Should "[RFC9110] §8.8.3" "Manifests and media have an ETag";
    HTTP_NOT_MODIFIED "HTTP-NOT-MODIFIED" Should "[RFC9110] §13.1.2" "If-None-Match with the tag just given is answered with 304";
    HTTP_RANGE "HTTP-RANGE" Should "[RFC9110] §14.2" "A range of media is answered with 206 and those bytes";
    HTTP_CORS "HTTP-CORS" Must "[FETCH] CORS" "Every answer, errors too, may be read by pages from elsewhere";
    HTTP_GZIP "HTTP-GZIP" Should "[HLS] §6.2.1, [HLS-AUTHORING] 10.1" "Manifests are compressed for those who accept it, and Vary says so";
    HTTP_MEDIA_PLAIN "HTTP-MEDIA-PLAIN" Should "[RFC9110] §8.4" "Media is not compressed";
    HTTP_HEAD "HTTP-HEAD" Should "[RFC9110] §9.3.2" "HEAD is answered as GET is, without the body";
    HTTP_OPTIONS "HTTP-OPTIONS" Should "[FETCH] CORS preflight" "OPTIONS allows pages from elsewhere to GET, and to ask for ranges";
    HTTP_NOT_FOUND "HTTP-NOT-FOUND" Must "[RFC9110] §15.5.5, [HLS] §6.2.6" "A segment or part of the far future is answered with 404";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_rule_has_a_clause() {
        let mut ids: Vec<_> = RULES.iter().map(|rule| rule.id).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(
            RULES
                .iter()
                .all(|rule| !rule.spec.is_empty() && !rule.asks.ends_with('.'))
        );
    }
}
