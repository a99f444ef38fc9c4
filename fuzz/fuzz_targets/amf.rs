//! Any body: values within the limits, and metadata of them without a panic.

#![no_main]

use headwater::ingest::rtmp::Metadata;
use headwater::ingest::rtmp::amf::{MAX_DEPTH, MAX_VALUES, Value, parse};
use libfuzzer_sys::fuzz_target;

/// Values in `value`, itself included, and levels.
fn measure(value: &Value) -> (usize, usize) {
    let inner: Vec<_> = match value {
        Value::Object(properties) => properties.iter().map(|(_, v)| measure(v)).collect(),
        Value::Array(values) => values.iter().map(measure).collect(),
        _ => Vec::new(),
    };
    let count = inner.iter().map(|(count, _)| count).sum::<usize>();
    let depth = inner.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
    (count + 1, depth + 1)
}

fuzz_target!(|body: &[u8]| {
    if let Ok(values) = parse(body) {
        let all: Vec<_> = values.iter().map(measure).collect();
        assert!(all.iter().map(|(count, _)| count).sum::<usize>() <= MAX_VALUES);
        assert!(all.iter().all(|(_, depth)| *depth <= MAX_DEPTH));
        let _metadata = Metadata::from_values(&values);
    }
});
