//! `onMetaData` to what we use of it.
//!
//! Enters: decoded AMF values of a data message
//! Leaves: [`Metadata`], or nothing for every other data message
//! Never:  trust: an encoder may say anything here, the media decides
//! Spec:   [FLV] §E.5, [ERTMP] metadata

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use super::amf::Value;

/// The longest text kept from a peer, in characters: it goes into logs and the status API.
pub(super) const MAX_TEXT_CHARS: usize = 256;

/// What a publisher says about its media. Hints: none of it is checked against the media.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
    pub height: Option<u32>,
    /// Frames per thousand seconds: 29970 for 30000/1001.
    pub frame_rate_millihertz: Option<u32>,
    /// The encoder's name, cut to 256 characters.
    pub encoder: Option<String>,
    /// The number of FLV (7 is H.264) or a FourCC as a big-endian number.
    pub video_codec: Option<u32>,
    /// The number of FLV (10 is AAC) or a FourCC as a big-endian number.
    pub audio_codec: Option<u32>,
}

impl Metadata {
    /// The metadata in a data message of `values`: `onMetaData {…}`, with or without a leading
    /// `@setDataFrame`. `None` for every other message.
    #[must_use]
    pub fn from_values(values: &[Value]) -> Option<Self> {
        let values = match values.first()?.as_text()? {
            "@setDataFrame" => values.get(1..)?,
            _ => values,
        };
        if values.first()?.as_text()? != "onMetaData" {
            return None;
        }
        let object = values.get(1)?;
        Some(Self {
            width: whole(object.property("width")),
            height: whole(object.property("height")),
            frame_rate_millihertz: object
                .property("framerate")
                .or_else(|| object.property("videoframerate"))
                .and_then(Value::as_number)
                .and_then(millihertz),
            encoder: object
                .property("encoder")
                .and_then(Value::as_text)
                .filter(|name| !name.is_empty())
                .map(clip),
            video_codec: codec(object.property("videocodecid")),
            audio_codec: codec(object.property("audiocodecid")),
        })
    }
}

/// `text` cut to [`MAX_TEXT_CHARS`], control characters replaced.
pub(super) fn clip(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '\u{FFFD}' } else { c };
    text.chars().take(MAX_TEXT_CHARS).map(printable).collect()
}

/// A number as a positive whole one; `None` if it is none or zero.
fn whole(value: Option<&Value>) -> Option<u32> {
    integer(value?.as_number()?).filter(|n| *n > 0)
}

/// A codec: by number, or by four characters as some encoders write it.
fn codec(value: Option<&Value>) -> Option<u32> {
    match value? {
        Value::Number(number) => integer(*number),
        Value::Text(text) => text
            .as_bytes()
            .first_chunk()
            .map(|b| u32::from_be_bytes(*b)),
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "AMF0 has no integers; the range is checked first"
)]
fn integer(number: f64) -> Option<u32> {
    (0.0..=f64::from(u32::MAX))
        .contains(&number)
        .then_some(number as u32)
}

#[expect(
    clippy::float_arithmetic,
    reason = "AMF0 has only doubles; here one stops being one"
)]
fn millihertz(rate: f64) -> Option<u32> {
    integer((rate * 1_000.0).round()).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(properties: &[(&str, Value)]) -> Value {
        let own = |(name, value): &(&str, Value)| ((*name).to_owned(), value.clone());
        Value::Object(properties.iter().map(own).collect())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn metadata_is_read_with_and_without_set_data_frame() {
        let properties = object(&[
            ("width", Value::Number(1_280.0)),
            ("height", Value::Number(720.0)),
            ("framerate", Value::Number(29.97)),
            ("videocodecid", text("avc1")),
            ("audiocodecid", Value::Number(10.0)),
            ("encoder", text("obs\n1")),
        ]);
        let expected = Metadata {
            width: Some(1_280),
            height: Some(720),
            frame_rate_millihertz: Some(29_970),
            encoder: Some("obs\u{FFFD}1".to_owned()),
            video_codec: Some(0x6176_6331),
            audio_codec: Some(10),
        };
        let bare = [text("onMetaData"), properties.clone()];
        assert_eq!(Metadata::from_values(&bare), Some(expected.clone()));
        let framed = [text("@setDataFrame"), text("onMetaData"), properties];
        assert_eq!(Metadata::from_values(&framed), Some(expected));
    }

    #[test]
    fn numbers_out_of_range_are_nothing() {
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300, 0.0] {
            let values = [
                text("onMetaData"),
                object(&[
                    ("width", Value::Number(bad)),
                    ("framerate", Value::Number(bad)),
                ]),
            ];
            assert_eq!(Metadata::from_values(&values), Some(Metadata::default()));
        }
    }

    #[test]
    fn other_data_is_no_metadata() {
        for values in [
            vec![],
            vec![text("@setDataFrame")],
            vec![text("@setDataFrame"), text("onMetaData")],
            vec![text("onCuePoint"), object(&[])],
            vec![Value::Null],
        ] {
            assert_eq!(Metadata::from_values(&values), None);
        }
    }
}
