//! Reads which page of a stream's shows an address asks for.
//!
//! Enters: the query of the address, from anyone
//! Leaves: a [`Page`], or what is wrong
//! Never:  whether there are any
//! Spec:   docs/api.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use crate::id::SegmentNumber;

/// How many shows a page has by itself.
const DEFAULT_SHOWS: usize = 20;

/// How many it has at most: each is a small object to be read.
const MAX_SHOWS: usize = 100;

/// Which shows somebody wants to know: the newest, or those before one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Only those that are called by a smaller number.
    pub before: Option<SegmentNumber>,
    /// At most so many.
    pub limit: usize,
}

/// Why a query asks for no page; sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// `before` is no number.
    #[error("before must be the number of a show")]
    Before,
    /// `limit` is no number, or too large.
    #[error("limit must be 1 to {MAX_SHOWS}")]
    Limit,
}

impl Page {
    /// What `query` asks for. What it does not know is passed over; of what is there twice the last counts.
    ///
    /// # Errors
    ///
    /// [`PageError`]
    pub fn parse(query: Option<&str>) -> Result<Self, PageError> {
        let mut page = Self {
            before: None,
            limit: DEFAULT_SHOWS,
        };
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            match name {
                "before" => {
                    let number = value.parse().ok().filter(|_| is_number);
                    page.before = Some(SegmentNumber::new(number.ok_or(PageError::Before)?));
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|_| is_number);
                    let limit = limit.filter(|limit| (1..=MAX_SHOWS).contains(limit));
                    page.limit = limit.ok_or(PageError::Limit)?;
                }
                _ => {}
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_or_refused() {
        let page = |before: Option<u64>, limit| {
            let before = before.map(SegmentNumber::new);
            Ok(Page { before, limit })
        };
        for (query, found) in [
            (None, page(None, 20)),
            (Some(""), page(None, 20)),
            (Some("x=1"), page(None, 20)),
            (Some("limit=100"), page(None, 100)),
            (Some("before=7&limit=1"), page(Some(7), 1)),
            (Some("limit=0"), Err(PageError::Limit)),
            (Some("limit=101"), Err(PageError::Limit)),
            (Some("limit=+5"), Err(PageError::Limit)),
            (Some("limit"), Err(PageError::Limit)),
            (Some("before=-1"), Err(PageError::Before)),
            (Some("before=99999999999999999999"), Err(PageError::Before)),
        ] {
            assert_eq!(Page::parse(query), found, "{query:?}");
        }
    }
}
