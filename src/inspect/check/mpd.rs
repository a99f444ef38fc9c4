//! Reads an MPD: what a player needs to address segments by `$Number$` and `@duration`, or as a SegmentTimeline
//! lists them.
//!
//! Enters: XML from anyone
//! Leaves: [`Mpd`], and what is missing in it
//! Never:  SegmentList, a timeline whose end is left open (`@r` of -1): representations that use them are read,
//! but not followed
//! Time:   microseconds; dates since the Unix epoch
//! Spec:   [DASH] §5.3

use roxmltree::{Document, Node, ParsingOptions};

use super::text::{SECOND_US, join, parse_date, parse_duration};

/// The most elements and attributes of an MPD that are read.
const MAX_NODES: u32 = 200_000;
/// The namespace.
const NAMESPACE: &str = "urn:mpeg:dash:schema:mpd:2011";

/// The most segments of a timeline that are read: three days of two seconds.
const MAX_TIMELINE: i64 = 130_000;

/// A segment that a SegmentTimeline lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// `$Number$`.
    pub number: u64,
    /// `@t`, in the timescale of the template.
    pub time: i64,
    /// `@d`.
    pub length: i64,
}

/// A Period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// `@id`.
    pub id: String,
    /// `@start`, or where the one before ends.
    pub start_us: i64,
    /// `@duration`.
    pub length_us: Option<i64>,
}

/// SegmentTemplate with all that it inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    media: Option<String>,
    initialization: Option<String>,
    timescale: u64,
    /// `@duration` in `@timescale`.
    duration: Option<u64>,
    start_number: u64,
    offset: i64,
    availability_offset_us: i64,
    /// `@availabilityTimeComplete` is `false`.
    is_chunked: bool,
    has_timeline: bool,
    /// What it lists: time and length, as far as it can be read.
    timeline: Vec<(i64, i64)>,
}

/// ProducerReferenceTime: where media time is tied to the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `@inband`: every chunk says the same of itself.
    pub in_band: bool,
    /// `@wallClockTime`, in microseconds since the Unix epoch.
    pub wall_us: i64,
    /// `@presentationTime`, in the timescale of the template.
    pub presentation: i64,
}

/// Latency of a ServiceDescription, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// `@min`.
    pub min_ms: Option<i64>,
    /// `@target`.
    pub target_ms: Option<i64>,
    /// `@max`.
    pub max_ms: Option<i64>,
}

/// A Representation with what it inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Representation {
    /// `@id`.
    pub id: String,
    /// `@bandwidth`.
    pub bandwidth: Option<u64>,
    /// `@mimeType`.
    pub mime: Option<String>,
    /// `@codecs`.
    pub codecs: Option<String>,
    /// `@width` and `@height`.
    pub size: Option<(u32, u32)>,
    /// `@audioSamplingRate`.
    pub sample_rate: Option<u32>,
    /// `Period@id`.
    pub period: String,
    /// `Period@start`.
    pub period_start_us: i64,
    /// `Period@duration`.
    pub period_length_us: Option<i64>,
    /// ProducerReferenceTime.
    pub reference: Option<Reference>,
    /// Resync@dT, in the timescale of the template.
    pub resync: Option<i64>,
    base: String,
    template: Option<Template>,
}

/// An MPD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mpd {
    /// Why it is not XML, or not an MPD.
    pub not_xml: Option<String>,
    /// Required attributes that are missing or cannot be read.
    pub missing: Vec<String>,
    /// `@type` is `dynamic`.
    pub is_dynamic: bool,
    /// `@availabilityStartTime`.
    pub start_us: Option<i64>,
    /// `@publishTime`.
    pub published_us: Option<i64>,
    /// `@minimumUpdatePeriod`.
    pub update_us: Option<i64>,
    /// `@timeShiftBufferDepth`.
    pub depth_us: Option<i64>,
    /// `@mediaPresentationDuration`.
    pub length_us: Option<i64>,
    /// UTCTiming: scheme and value.
    pub clocks: Vec<(String, String)>,
    /// Latency of the first ServiceDescription that has one.
    pub latency: Option<Latency>,
    /// All periods.
    pub periods: Vec<Period>,
    /// All representations of all periods.
    pub representations: Vec<Representation>,
}

impl Mpd {
    /// Whether segments are listed by their times.
    #[must_use]
    pub fn has_timelines(&self) -> bool {
        let mut all = self.representations.iter();
        all.any(|representation| representation.timeline().is_some())
    }

    /// The representation `id` that has segment `number` at `url`; else the first of that name.
    #[must_use]
    pub fn representation(&self, id: &str, number: u64, url: &str) -> Option<&Representation> {
        let mut named = self.representations.iter().filter(|r| r.id == id);
        let exact = named.clone().find(|r| {
            r.timeline().is_none_or(|_| r.listed(number).is_some())
                && r.media(number).as_deref() == Some(url)
        });
        exact.or_else(|| named.next())
    }
}

impl Representation {
    /// The segments that are listed by their times; `None` where they are not, or not readably.
    #[must_use]
    pub fn timeline(&self) -> Option<Vec<Listed>> {
        let template = self.template.as_ref().filter(|t| t.has_timeline)?;
        let numbers = template.start_number..;
        let all = numbers.zip(&template.timeline);
        let all = all.map(|(number, (time, length))| Listed {
            number,
            time: *time,
            length: *length,
        });
        Some(all.collect()).filter(|all: &Vec<_>| !all.is_empty())
    }

    /// Segment `number` as it is listed.
    #[must_use]
    pub fn listed(&self, number: u64) -> Option<Listed> {
        let template = self.template.as_ref().filter(|t| t.has_timeline)?;
        let index = usize::try_from(number.checked_sub(template.start_number)?).ok()?;
        let (time, length) = *template.timeline.get(index)?;
        Some(Listed {
            number,
            time,
            length,
        })
    }

    /// Where media at `time`, in the timescale of the template, lies in its period.
    #[must_use]
    pub fn presentation_us(&self, time: i64) -> Option<i64> {
        let template = self.template.as_ref()?;
        template.scaled(time.checked_sub(template.offset)?)
    }

    /// The length of a segment; `None` where segments are not addressed by number and duration.
    #[must_use]
    pub fn step_us(&self) -> Option<i64> {
        let template = self.template.as_ref().filter(|t| !t.has_timeline)?;
        template
            .scaled(i64::try_from(template.duration?).ok()?)
            .filter(|us| *us > 0)
    }

    /// Whether segments may be asked for before they are whole.
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.template.as_ref().is_some_and(|t| t.is_chunked)
    }

    /// By how much earlier than whole segments may be asked for.
    #[must_use]
    pub fn early_us(&self) -> i64 {
        let template = self.template.as_ref();
        template.map_or(0, |template| template.availability_offset_us)
    }

    /// `value` of the template's timescale in microseconds.
    #[must_use]
    pub fn scaled(&self, value: i64) -> Option<i64> {
        self.template.as_ref()?.scaled(value)
    }

    /// When by the MPD's clock segment `number` is whole, of an MPD that starts at `start_us`.
    #[must_use]
    pub fn whole_us(&self, start_us: i64, number: u64) -> Option<i64> {
        let after = i64::try_from(number.checked_sub(self.first())?.checked_add(1)?).ok()?;
        let begin = start_us.checked_add(self.period_start_us)?;
        begin.checked_add(after.checked_mul(self.step_us()?)?)
    }

    /// The first number.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.template
            .as_ref()
            .map_or(1, |template| template.start_number)
    }

    /// The newest segment that is there at `now_us` by the clock, of an MPD that starts at `start_us`.
    #[must_use]
    pub fn newest(&self, start_us: i64, now_us: i64) -> Option<u64> {
        let template = self.template.as_ref()?;
        let since = now_us
            .checked_sub(start_us)?
            .checked_sub(self.period_start_us)?;
        let since = since.checked_add(template.availability_offset_us)?;
        let whole = u64::try_from(since.div_euclid(self.step_us()?)).ok()?;
        self.first().checked_add(whole)?.checked_sub(1)
    }

    /// Where segment `number` begins on the line of media time.
    #[must_use]
    pub fn media_start_us(&self, number: u64) -> Option<i64> {
        let template = self.template.as_ref()?;
        let index = i64::try_from(number.checked_sub(self.first())?).ok()?;
        template
            .scaled(template.offset)?
            .checked_add(index.checked_mul(self.step_us()?)?)
    }

    /// The address of segment `number`.
    #[must_use]
    pub fn media(&self, number: u64) -> Option<String> {
        let pattern = self.template.as_ref()?.media.as_ref()?;
        Some(join(&self.base, &self.fill(pattern, Some(number))?))
    }

    /// The address of the init segment.
    #[must_use]
    pub fn init(&self) -> Option<String> {
        let pattern = self.template.as_ref()?.initialization.as_ref()?;
        Some(join(&self.base, &self.fill(pattern, None)?))
    }

    fn fill(&self, pattern: &str, number: Option<u64>) -> Option<String> {
        let mut out = String::new();
        for (index, piece) in pattern.split('$').enumerate() {
            if index % 2 == 0 {
                out.push_str(piece);
                continue;
            }
            let (name, width) = match piece.split_once("%0") {
                Some((name, format)) => (name, format.strip_suffix('d')?.parse().ok()?),
                None => (piece, 1_usize),
            };
            let width = width.min(20);
            match name {
                "" => out.push('$'),
                "RepresentationID" => out.push_str(&self.id),
                "Number" => out.push_str(&format!("{:0width$}", number?)),
                "Time" => {
                    let time = self.listed(number?)?.time;
                    out.push_str(&format!("{time:0width$}"));
                }
                "Bandwidth" => out.push_str(&format!("{:0width$}", self.bandwidth?)),
                _ => return None,
            }
        }
        Some(out)
    }
}

impl Template {
    fn scaled(&self, value: i64) -> Option<i64> {
        let scale = i128::from(self.timescale.max(1));
        i64::try_from(i128::from(value) * i128::from(SECOND_US) / scale).ok()
    }

    /// What `node` says over what is inherited.
    fn refine(&mut self, node: &Node<'_, '_>) {
        let number = |name: &str| node.attribute(name).and_then(|text| text.parse().ok());
        let text = |name: &str| node.attribute(name).map(str::to_owned);
        self.media = text("media").or_else(|| self.media.take());
        self.initialization = text("initialization").or_else(|| self.initialization.take());
        self.timescale = number("timescale").unwrap_or(self.timescale);
        self.duration = number("duration").or(self.duration);
        self.start_number = number("startNumber").unwrap_or(self.start_number);
        let signed = |name: &str| node.attribute(name).and_then(|text| text.parse().ok());
        self.offset = signed("presentationTimeOffset").unwrap_or(self.offset);
        if let Some(offset) = node.attribute("availabilityTimeOffset") {
            self.availability_offset_us = super::text::parse_seconds(offset).unwrap_or(0);
        }
        if let Some(complete) = node.attribute("availabilityTimeComplete") {
            self.is_chunked = complete == "false";
        }
        if let Some(timeline) = child(node, "SegmentTimeline") {
            self.has_timeline = true;
            self.timeline = read_timeline(&timeline).unwrap_or_default();
        }
    }
}

/// Times and lengths; `None` if there is anything that cannot be read or followed.
fn read_timeline(node: &Node<'_, '_>) -> Option<Vec<(i64, i64)>> {
    let mut all = Vec::new();
    let mut end = 0;
    for run in children(node, "S") {
        let number = |name: &str| run.attribute(name).map(str::parse::<i64>);
        let number = |name: &str| number(name).transpose().ok();
        let mut time = number("t")?.unwrap_or(end);
        let length = number("d")?.filter(|length| *length > 0)?;
        let more = number("r")?.unwrap_or(0);
        if !(0..MAX_TIMELINE).contains(&more) || all.len() > usize::try_from(MAX_TIMELINE).ok()? {
            return None;
        }
        for _ in 0..=more {
            all.push((time, length));
            time = time.checked_add(length)?;
        }
        end = time;
    }
    Some(all)
}

fn child<'a, 'i>(node: &Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children()
        .find(|n| n.is_element() && n.tag_name().name() == name)
}

fn children<'a, 'i>(node: &Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    let found = node.children();
    found.filter(move |n| n.is_element() && n.tag_name().name() == name)
}

/// Reads the MPD that was found at `url`.
#[must_use]
pub fn parse(bytes: &[u8], url: &str) -> Mpd {
    let mut mpd = Mpd::default();
    let options = ParsingOptions {
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    let document = std::str::from_utf8(bytes).map_err(|error| error.to_string());
    let document = document
        .and_then(|text| Document::parse_with_options(text, options).map_err(|e| e.to_string()));
    match document {
        Err(problem) => mpd.not_xml = Some(problem),
        Ok(document) => {
            let root = document.root_element();
            if root.tag_name().name() != "MPD" || root.tag_name().namespace() != Some(NAMESPACE) {
                mpd.not_xml = Some(format!("the root is {:?}", root.tag_name()));
            }
            read_root(&mut mpd, &root, url);
        }
    }
    mpd
}

/// The value of an attribute, read by `read`; noted if it is missing though `required`, or unreadable.
fn read<T>(
    missing: &mut Vec<String>,
    node: &Node<'_, '_>,
    name: &str,
    required: bool,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let element = node.tag_name().name();
    match node.attribute(name).map(|text| (text, read(text))) {
        Some((_, Some(value))) => return Some(value),
        Some((text, None)) => missing.push(format!("{element}@{name} is {text:?}")),
        None if required => missing.push(format!("{element} has no @{name}")),
        None => {}
    }
    None
}

fn read_root(mpd: &mut Mpd, root: &Node<'_, '_>, url: &str) {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    mpd.is_dynamic = root.attribute("type") == Some("dynamic");
    let (dynamic, missing) = (mpd.is_dynamic, &mut mpd.missing);
    read(missing, root, "profiles", true, text);
    read(missing, root, "minBufferTime", true, parse_duration);
    mpd.start_us = read(missing, root, "availabilityStartTime", dynamic, parse_date);
    mpd.published_us = read(missing, root, "publishTime", dynamic, parse_date);
    mpd.update_us = read(missing, root, "minimumUpdatePeriod", false, parse_duration);
    mpd.depth_us = read(missing, root, "timeShiftBufferDepth", false, parse_duration);
    let periods_tell = children(root, "Period").all(|p| p.attribute("duration").is_some());
    let length_needed = !dynamic && !periods_tell;
    mpd.length_us = read(
        missing,
        root,
        "mediaPresentationDuration",
        length_needed,
        parse_duration,
    );
    for clock in children(root, "UTCTiming") {
        let scheme = read(&mut mpd.missing, &clock, "schemeIdUri", true, text);
        let value = clock.attribute("value").unwrap_or_default();
        mpd.clocks
            .push((scheme.unwrap_or_default(), join(url, value)));
    }
    mpd.latency = children(root, "ServiceDescription")
        .filter_map(|service| child(&service, "Latency"))
        .map(|latency| {
            let number = |name: &str| latency.attribute(name).and_then(|text| text.parse().ok());
            Latency {
                min_ms: number("min"),
                target_ms: number("target"),
                max_ms: number("max"),
            }
        })
        .next();
    let base = based(root, url);
    for period in children(root, "Period") {
        let id = read(&mut mpd.missing, &period, "id", mpd.is_dynamic, text);
        let start = read(&mut mpd.missing, &period, "start", false, parse_duration);
        let last = mpd.periods.last();
        let end = last.map(|last| last.start_us.saturating_add(last.length_us.unwrap_or(0)));
        let length_us = read(&mut mpd.missing, &period, "duration", false, parse_duration);
        mpd.periods.push(Period {
            id: id.unwrap_or_default(),
            start_us: start.or(end).unwrap_or(0),
            length_us,
        });
        let base = based(&period, &base);
        let mut template = Template {
            timescale: 1,
            start_number: 1,
            ..Template::default()
        };
        let mut has_template = false;
        if let Some(node) = child(&period, "SegmentTemplate") {
            template.refine(&node);
            has_template = true;
        }
        for set in children(&period, "AdaptationSet") {
            read_set(mpd, &set, &base, has_template.then(|| template.clone()));
        }
    }
    if mpd.periods.is_empty() {
        mpd.missing.push("MPD has no Period".to_owned());
    }
}

fn read_reference(node: &Node<'_, '_>) -> Option<Reference> {
    let found = child(node, "ProducerReferenceTime")?;
    Some(Reference {
        in_band: found.attribute("inband") == Some("true"),
        wall_us: parse_date(found.attribute("wallClockTime")?)?,
        presentation: found.attribute("presentationTime")?.parse().ok()?,
    })
}

fn read_resync(node: &Node<'_, '_>) -> Option<i64> {
    child(node, "Resync")?.attribute("dT")?.parse().ok()
}

fn based(node: &Node<'_, '_>, url: &str) -> String {
    let base = child(node, "BaseURL").and_then(|base| base.text().map(str::trim));
    base.map_or_else(|| url.to_owned(), |base| join(url, base))
}

/// Reads what belongs to the last period read.
fn read_set(mpd: &mut Mpd, set: &Node<'_, '_>, base: &str, template: Option<Template>) {
    let period = mpd.periods.last().cloned().unwrap_or_default();
    let base = based(set, base);
    let refined = |template: &Option<Template>, node: &Node<'_, '_>| {
        let Some(own) = child(node, "SegmentTemplate") else {
            return template.clone();
        };
        let fresh = || Template {
            timescale: 1,
            start_number: 1,
            ..Template::default()
        };
        let mut template = template.clone().unwrap_or_else(fresh);
        template.refine(&own);
        Some(template)
    };
    let template = refined(&template, set);
    for node in children(set, "Representation") {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let missing = &mut mpd.missing;
        let id = read(missing, &node, "id", true, text).unwrap_or_default();
        let bandwidth = read(missing, &node, "bandwidth", true, |text| text.parse().ok());
        let either = |name: &str| node.attribute(name).or_else(|| set.attribute(name));
        let number = |name: &str| either(name).and_then(|text| text.parse().ok());
        let template = refined(&template, &node);
        if either("mimeType").is_none() {
            missing.push(format!("Representation {id} has no @mimeType"));
        }
        let addressed = template.as_ref().is_some_and(|t| {
            t.media.is_some() && (t.duration.is_some_and(|d| d > 0) || t.has_timeline)
        });
        let other = ["SegmentBase", "SegmentList"];
        let has_other = other
            .iter()
            .any(|n| child(&node, n).is_some() || child(set, n).is_some());
        if !addressed && !has_other {
            missing.push(format!(
                "Representation {id} has no @media with @duration or a timeline"
            ));
        }
        mpd.representations.push(Representation {
            id,
            bandwidth,
            mime: either("mimeType").map(str::to_owned),
            codecs: either("codecs").map(str::to_owned),
            size: number("width").zip(number("height")),
            sample_rate: number("audioSamplingRate"),
            period: period.id.clone(),
            period_start_us: period.start_us,
            period_length_us: period.length_us,
            reference: read_reference(&node).or_else(|| read_reference(set)),
            resync: read_resync(&node).or_else(|| read_resync(set)),
            base: based(&node, &base),
            template,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = r#"<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="p" type="dynamic"
        minBufferTime="PT2S" availabilityStartTime="1970-01-01T00:00:02Z"
        publishTime="2026-11-20T14:00:00Z"><Period id="1" start="PT0S">
        <AdaptationSet mimeType="video/mp4"><SegmentTemplate timescale="1000" duration="2000"
        startNumber="1" presentationTimeOffset="2000" initialization="$RepresentationID$/i.mp4"
        media="$RepresentationID$/$Number%05d$.m4s"/><Representation id="v" bandwidth="1"/>
        </AdaptationSet></Period><UTCTiming schemeIdUri="s" value="/time"/></MPD>"#;

    #[test]
    fn numbers_follow_from_the_clock() {
        let mpd = parse(LIVE.as_bytes(), "http://h/live/a/manifest.mpd");
        assert_eq!((mpd.not_xml, mpd.missing), (None, Vec::new()));
        let v = &mpd.representations[0];
        assert_eq!(v.newest(2_000_000, 9_999_999), Some(3));
        assert_eq!(v.newest(2_000_000, 10_000_000), Some(4));
        assert_eq!(v.media_start_us(4), Some(8_000_000));
        assert_eq!(v.media(4).as_deref(), Some("http://h/live/a/v/00004.m4s"));
        assert_eq!(mpd.clocks[0].1, "http://h/time");
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = LIVE.replace(" bandwidth=\"1\"", "").replace("PT2S", "2");
        let mpd = parse(text.as_bytes(), "x");
        assert_eq!(mpd.missing.len(), 2, "{:?}", mpd.missing);
        assert!(parse(b"<MPD>", "x").not_xml.is_some());
        assert!(parse(b"<html/>", "x").not_xml.is_some());
    }
}
