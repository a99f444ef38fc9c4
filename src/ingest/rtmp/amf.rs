//! AMF0 bodies to values, with a limit on everything a body can make us build.
//!
//! Enters: the body of one command or data message, from anybody
//! Leaves: [`Value`]s, at most [`MAX_VALUES`] of them, at most [`MAX_DEPTH`] deep
//! Never:  AMF3 values; allocation on the word of a count
//! Spec:   [AMF0]

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

/// Nesting that is followed. A connect command has two levels, track maps in metadata four.
pub const MAX_DEPTH: usize = 16;

/// Values in one message. The richest metadata seen from an encoder has about forty.
pub const MAX_VALUES: usize = 1_024;

/// One AMF0 value. Dates are numbers of milliseconds; both kinds of string are one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A double.
    Number(f64),
    /// A boolean.
    Boolean(bool),
    /// Text; what was not UTF-8 is replaced.
    Text(String),
    /// An object or ECMA array: properties as they came, names may repeat.
    Object(Vec<(String, Self)>),
    /// A strict array.
    Array(Vec<Self>),
    /// Null, undefined or unsupported: all say that there is nothing.
    Null,
}

impl Value {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub const fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The first property called `name`, if this is an object that has it.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(properties) => properties.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body ends inside a value.
    #[error("amf ends inside a value at byte {at}")]
    Truncated {
        /// Byte offset in the body.
        at: usize,
    },
    /// A marker that begins no value of AMF0, or one that only players use.
    #[error("amf marker {found:#04x} at byte {at} is not handled")]
    Marker {
        /// Byte offset in the body.
        at: usize,
        /// The marker found.
        found: u8,
    },
    /// Deeper than [`MAX_DEPTH`].
    #[error("amf nests deeper than {MAX_DEPTH} levels at byte {at}")]
    TooDeep {
        /// Byte offset in the body.
        at: usize,
    },
    /// More than [`MAX_VALUES`].
    #[error("amf has more than {MAX_VALUES} values at byte {at}")]
    TooMany {
        /// Byte offset in the body.
        at: usize,
    },
}

/// The values of `body`, in order.
///
/// # Errors
/// Any [`Error`].
pub fn parse(body: &[u8]) -> Result<Vec<Value>, Error> {
    let mut reader = Reader {
        body,
        at: 0,
        values: 0,
    };
    let mut values = Vec::new();
    while reader.at < body.len() {
        values.push(reader.value(0)?);
    }
    Ok(values)
}

const OBJECT_END: u8 = 0x09;

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    values: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        let at = self.at;
        if depth >= MAX_DEPTH {
            return Err(Error::TooDeep { at });
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Error::TooMany { at });
        }
        let [marker] = self.take()?;
        match marker {
            0x00 => Ok(Value::Number(f64::from_be_bytes(self.take()?))),
            0x01 => Ok(Value::Boolean(self.take::<1>()? != [0])),
            0x02 => Ok(Value::Text(self.short_text()?)),
            0x03 => Ok(Value::Object(self.properties(depth)?)),
            // Null, undefined, unsupported. A reference (0x07) would need the object table that no
            // encoder uses.
            0x05 | 0x06 | 0x0D => Ok(Value::Null),
            0x08 => {
                let _count: [u8; 4] = self.take()?;
                Ok(Value::Object(self.properties(depth)?))
            }
            0x0A => self.array(depth),
            0x0B => {
                let millis = f64::from_be_bytes(self.take()?);
                let _time_zone: [u8; 2] = self.take()?;
                Ok(Value::Number(millis))
            }
            // Long string, XML document.
            0x0C | 0x0F => {
                let length = u32::from_be_bytes(self.take()?);
                self.text(length as usize).map(Value::Text)
            }
            0x10 => {
                let _class = self.short_text()?;
                Ok(Value::Object(self.properties(depth)?))
            }
            found => Err(Error::Marker { at, found }),
        }
    }

    fn properties(&mut self, depth: usize) -> Result<Vec<(String, Value)>, Error> {
        let mut properties = Vec::new();
        loop {
            // Some encoders leave the end mark off an ECMA array that ends the body.
            if self.at == self.body.len() && !properties.is_empty() {
                return Ok(properties);
            }
            let name = self.short_text()?;
            if name.is_empty() && self.body.get(self.at) == Some(&OBJECT_END) {
                self.at += 1;
                return Ok(properties);
            }
            properties.push((name, self.value(depth + 1)?));
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Error> {
        let count = u32::from_be_bytes(self.take()?);
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(values))
    }

    fn short_text(&mut self) -> Result<String, Error> {
        let length = u16::from_be_bytes(self.take()?);
        self.text(usize::from(length))
    }

    fn text(&mut self, length: usize) -> Result<String, Error> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or(Error::Truncated { at: self.at })?;
        self.at += length;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let bytes = rest.first_chunk().ok_or(Error::Truncated { at: self.at })?;
        self.at += N;
        Ok(*bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rml_amf0::Amf0Value;

    use super::*;

    /// What an independent writer wrote comes back the same.
    #[test]
    fn what_another_writer_wrote_is_read() {
        let object = HashMap::from([
            ("app".to_owned(), Amf0Value::Utf8String("live".to_owned())),
            ("n".to_owned(), Amf0Value::Number(3.5)),
        ]);
        let body = rml_amf0::serialize(&vec![
            Amf0Value::Utf8String("connect".to_owned()),
            Amf0Value::Object(object),
            Amf0Value::Null,
            Amf0Value::Boolean(true),
            Amf0Value::StrictArray(vec![Amf0Value::Number(1.0), Amf0Value::Undefined]),
        ])
        .expect("small");
        let values = parse(&body).expect("well-formed");
        assert_eq!(values[0].as_text(), Some("connect"));
        assert_eq!(
            values[1].property("app").and_then(Value::as_text),
            Some("live")
        );
        assert_eq!(
            values[1].property("n").and_then(Value::as_number),
            Some(3.5)
        );
        assert_eq!(values[2..4], [Value::Null, Value::Boolean(true)]);
        assert_eq!(
            values[4],
            Value::Array(vec![Value::Number(1.0), Value::Null])
        );
    }

    #[test]
    fn dates_long_strings_and_typed_objects_are_values_too() {
        let mut body = vec![0x0B];
        body.extend_from_slice(&1_000_f64.to_be_bytes());
        body.extend_from_slice(&[0, 0, 0x0C, 0, 0, 0, 2, b'h', b'i']);
        body.extend_from_slice(&[0x10, 0, 1, b'C', 0, 1, b'x', 0x05, 0, 0, 9]);
        let typed = Value::Object(vec![("x".to_owned(), Value::Null)]);
        let text = Value::Text("hi".to_owned());
        assert_eq!(parse(&body), Ok(vec![Value::Number(1_000.0), text, typed]));
    }

    #[test]
    fn bombs_are_refused() {
        let nested: Vec<u8> = [3, 0, 1, b'a'].repeat(5_000);
        assert!(matches!(parse(&nested), Err(Error::TooDeep { .. })));
        let arrays: Vec<u8> = [10, 0, 0, 0, 1].repeat(5_000);
        assert!(matches!(parse(&arrays), Err(Error::TooDeep { .. })));
        assert!(matches!(
            parse(&vec![5; 1 << 20]),
            Err(Error::TooMany { .. })
        ));
        let boast = [10, 0xFF, 0xFF, 0xFF, 0xFF, 5];
        assert!(matches!(parse(&boast), Err(Error::Truncated { .. })));
        let text = [12, 0xFF, 0xFF, 0xFF, 0xFF];
        assert!(matches!(parse(&text), Err(Error::Truncated { .. })));
        assert_eq!(parse(&[0x11]), Err(Error::Marker { at: 0, found: 0x11 }));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _whatever = parse(&body);
        }

        #[test]
        fn markers_at_random_stay_within_the_limits(
            body in proptest::collection::vec(prop_oneof![0_u8..17, Just(0)], 0..2_000),
        ) {
            if let Ok(values) = parse(&body) {
                prop_assert!(values.len() <= MAX_VALUES);
            }
        }
    }
}
