//! Answers which GStreamer elements this machine lacks.
//!
//! Enters: names of elements
//! Leaves: one line of JSON on stdout: `{"gstreamer":"1.22.0","missing":["nvh264enc"]}`
//! Never:  creates an element
//! Spec:   [`Probe`]

use std::io::Write;

use super::Error;
use crate::transcode::supervisor::Probe;

pub(super) fn run(names: &[String]) -> Result<(), Error> {
    gst::init()?;
    let (major, minor, micro, _) = gst::version();
    let exists = |name: &str| gst::ElementFactory::find(name).is_some();
    let missing = names.iter().filter(|name| !exists(name));
    let answer = Probe {
        gstreamer: format!("{major}.{minor}.{micro}"),
        missing: missing.cloned().collect(),
    };
    let mut line = serde_json::to_vec(&answer).map_err(std::io::Error::from)?;
    line.push(b'\n');
    std::io::stdout().write_all(&line)?;
    Ok(())
}
