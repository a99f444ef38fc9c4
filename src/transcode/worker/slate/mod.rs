//! Draws the slate: a picture file as one frame like those of the source.
//!
//! Enters: a PNG or JPEG file; the layout and colour of the broadcast's frames
//! Leaves: one frame, the picture whole in its middle
//! Never:  opens a file: what is drawn was read by the server, or is built in
//! Time:   none
//! Spec:   none

use bytes::Bytes;
use gst::prelude::*;

use super::Error;
use super::decode::colour_caps;
use super::encode::{launch, sink, source};

/// What is built in, for pictures that are wider than high, and for the others. Drawn from the SVG files
/// beside them; black at its edges, as the bars are where its shape is not the broadcast's.
static WIDE: &[u8] = include_bytes!("wide.jpg");
static TALL: &[u8] = include_bytes!("tall.jpg");

/// How long drawing may take: a second is much for the largest.
const DRAW_LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(20);

/// The picture in `file`, or the built-in one if that is empty, as a frame like `info`.
///
/// # Errors
/// [`Error::Element`] for what is no picture.
pub(super) fn draw(file: &Bytes, info: &gst_video::VideoInfo) -> Result<gst::Buffer, Error> {
    let file = match (file.is_empty(), info.width() >= info.height()) {
        (false, _) => file.clone(),
        (true, true) => Bytes::from_static(WIDE),
        (true, false) => Bytes::from_static(TALL),
    };
    let (kind, decoder) = decoder(&file).ok_or_else(|| broken("it is neither PNG nor JPEG"))?;
    let text = format!(
        "appsrc name=in ! {decoder} ! videoconvertscale add-borders=true \
         ! video/x-raw,format={},width={},height={},pixel-aspect-ratio=1/1{} ! appsink name=out",
        info.format().to_str(),
        info.width(),
        info.height(),
        colour_caps(info),
    );
    let pipeline = launch(&text)?;
    let input = source(&pipeline, "in", &gst::Caps::builder(kind).build(), 1)?;
    let output = sink(&pipeline, "out")?;
    pipeline.set_state(gst::State::Playing)?;
    let _ = input.push_buffer(gst::Buffer::from_slice(file));
    let _ = input.end_of_stream();
    let sample = output.try_pull_sample(DRAW_LIMIT);
    let said = pipeline
        .bus()
        .and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    let _ = pipeline.set_state(gst::State::Null);
    let frame = sample.and_then(|sample| sample.buffer_owned());
    frame.ok_or_else(|| match said.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => broken(&error.error().to_string()),
        _ => broken("it cannot be decoded"),
    })
}

/// The type that the first bytes of `file` say it has, and what decodes that.
fn decoder(file: &[u8]) -> Option<(&'static str, &'static str)> {
    match file {
        [0x89, b'P', b'N', b'G', ..] => Some(("image/png", "pngdec")),
        [0xFF, 0xD8, 0xFF, ..] => Some(("image/jpeg", "jpegdec")),
        _ => None,
    }
}

fn broken(text: &str) -> Error {
    Error::Element {
        element: "slate".to_owned(),
        text: text.to_owned(),
    }
}
