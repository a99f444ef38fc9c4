//! Launch fragments: their placeholders and the elements they name.
//!
//! Enters: GStreamer launch syntax with `{placeholders}`
//! Leaves: the same with values in their places; the elements' names
//! Never:  checks properties (only GStreamer knows those)
//! Spec:   gst-launch-1.0(1)

/// What a video encoder's fragment may ask for.
pub(super) const VIDEO_PLACEHOLDERS: &[&str] = &[
    "bitrate_bps",
    "bitrate_kbps",
    "fps",
    "height",
    "keyint",
    "threads",
    "width",
];
/// What an audio encoder's fragment may ask for.
pub(super) const AUDIO_PLACEHOLDERS: &[&str] = &["bitrate_bps", "bitrate_kbps", "sample_rate"];

/// One piece of a fragment.
enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
    /// A brace without its partner.
    Stray,
}

fn pieces(fragment: &str) -> Vec<Piece<'_>> {
    let mut all = Vec::new();
    let mut rest = fragment;
    while let Some((text, after)) = rest.split_once('{') {
        all.push(Piece::Text(text));
        match after.split_once('}') {
            Some((name, tail)) => {
                all.push(Piece::Placeholder(name));
                rest = tail;
            }
            None => {
                all.push(Piece::Stray);
                rest = after;
            }
        }
    }
    all.push(Piece::Text(rest));
    all
}

/// Every mistake in the placeholders of `fragment`: unknown ones, stray braces, and a missing one of
/// each alternative in `needed`.
pub(super) fn problems(fragment: &str, known: &[&str], needed: &[&[&str]]) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for piece in pieces(fragment) {
        match piece {
            Piece::Placeholder(name) if known.contains(&name) => seen.push(name),
            Piece::Placeholder(name) => found.push(format!(
                "unknown placeholder {{{name}}}; known are {}",
                known.join(", ")
            )),
            Piece::Stray => found.push("a { without its }".to_owned()),
            Piece::Text(text) if text.contains('}') => found.push("a } without its {".to_owned()),
            Piece::Text(_) => {}
        }
    }
    for alternatives in needed {
        if !alternatives.iter().any(|name| seen.contains(name)) {
            let names: Vec<String> = alternatives.iter().map(|n| format!("{{{n}}}")).collect();
            found.push(format!("missing placeholder {}", names.join(" or ")));
        }
    }
    found
}

/// `fragment` with every placeholder replaced by its value of `values`; one without a value stays.
#[must_use]
pub fn render(fragment: &str, values: &[(&str, u64)]) -> String {
    let mut text = fragment.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), &value.to_string());
    }
    text
}

/// The names of the elements in `fragment`: the first word of each link that is no caps filter.
#[must_use]
pub fn elements(fragment: &str) -> Vec<String> {
    let first_words = fragment
        .split('!')
        .filter_map(|link| link.split_whitespace().next());
    first_words
        .filter(|word| !word.contains('/'))
        .map(str::to_owned)
        .collect()
}
