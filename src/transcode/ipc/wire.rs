//! Integers and byte strings of a message's body.
//!
//! Enters: values; bodies
//! Leaves: big-endian bytes; values, or `None` where the body ends too early
//! Never:  copies a byte string when reading
//! Spec:   none

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(super) struct Output<'a>(&'a mut BytesMut);

impl<'a> Output<'a> {
    pub(super) const fn new(out: &'a mut BytesMut) -> Self {
        Self(out)
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.put_u32(value);
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.put_u64(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.put_i64(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(super) fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.put_slice(value);
    }
}

pub(super) struct Input(Bytes);

impl Input {
    pub(super) const fn new(body: Bytes) -> Self {
        Self(body)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.0.try_get_i64().ok()
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn count(&mut self, max: usize) -> Option<usize> {
        let value = usize::try_from(self.u32()?).ok()?;
        (value <= max).then_some(value)
    }

    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        let length = self.count(self.0.len())?;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    pub(super) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}
