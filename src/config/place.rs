//! Reads where a store is.
//!
//! Enters: text as written
//! Leaves: the same once it makes sense, or what is wrong with it and what to write instead
//! Never:  looks whether anything is there
//! Spec:   docs/configuration.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use crate::config::validate::quoted;
use crate::store;

/// Where a store is.
pub(crate) fn store_url(text: &str) -> Result<String, String> {
    match store::Config::check_url(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(complaint) => Err(quoted(text, &complaint)),
    }
}

/// The address of a service.
pub(crate) fn endpoint(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_address = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '@']));
    if text.is_empty() || is_address {
        Ok(text.to_owned())
    } else {
        let why = "use the address of the service alone, as in \"https://s3.example.org\"; bucket \
                   and prefix stand in store.url";
        Err(quoted(text, &why))
    }
}

/// A region of a service.
pub(crate) fn region(text: &str) -> Result<String, String> {
    let is_name = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(quoted(
            text,
            &"is no region; use a name such as \"eu-west-1\"",
        ))
    }
}

/// Where an address names the bucket.
pub(crate) fn addressing(text: &str) -> Result<store::Addressing, String> {
    let named = store::Addressing::ALL
        .iter()
        .find(|(name, _)| *name == text);
    match named {
        Some((_, addressing)) => Ok(*addressing),
        None => Err(quoted(text, &"use \"auto\", \"path\" or \"host\"")),
    }
}

/// Where a second store is; empty if there is none.
pub(crate) fn second_url(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    store_url(text)
}

/// The name of a profile.
pub(crate) fn profile(text: &str) -> Result<String, String> {
    if text.contains(['[', ']', '\n']) {
        return Err(quoted(text, &"is no name of a profile"));
    }
    Ok(text.to_owned())
}
