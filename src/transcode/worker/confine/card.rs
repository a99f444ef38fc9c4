//! Whether a ladder needs a graphics card.
//!
//! Enters: a plan; what GStreamer knows of its elements
//! Leaves: yes or no
//! Never:  loads a plugin
//! Time:   none
//! Spec:   docs/resilience.md

use crate::transcode::ladder::Plan;

/// What GStreamer says of elements that use one.
const HARDWARE: &str = "Hardware";
/// What begins the names of those it does not say it of.
const GRAPHICS: &str = "gl";
/// The property of an encoder that computes on one.
const COMPUTES: &str = "opencl=";

/// Whether an encoder of `plan`, or anything beside it in its launch fragment, works on a graphics card. Decoders never do.
pub(in super::super) fn needs_card(plan: &Plan) -> bool {
    let video = plan.video.iter().flat_map(|video| &video.rungs);
    let mut fragments = video.map(|rung| rung.encoder.as_str());
    fragments.any(is_for_card)
}

fn is_for_card(fragment: &str) -> bool {
    let mut words = fragment.split_whitespace();
    words.any(|word| {
        let is_hardware = |factory: gst::ElementFactory| {
            let class = factory.metadata(gst::ELEMENT_METADATA_KLASS);
            class.is_some_and(|class| class.contains(HARDWARE))
        };
        let is_name = !word.contains('=');
        (is_name && word.starts_with(GRAPHICS))
            || word.starts_with(COMPUTES)
            || gst::ElementFactory::find(word).is_some_and(is_hardware)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_computes_on_a_card_needs_one() {
        gst::init().expect("GStreamer");
        for (fragment, needs) in [
            ("x264enc tune=zerolatency key-int-max=60 ! h264parse", false),
            ("videoconvert ! x264enc opencl=true", true),
            ("glupload ! gldownload ! x264enc", true),
            ("vp9enc global=1 ! vp9parse", false),
        ] {
            assert_eq!(is_for_card(fragment), needs, "{fragment}");
        }
    }
}
