//! `rtmp://host[:port]/app/key` to its parts.
//!
//! Enters: text from a command line
//! Leaves: [`Target`]
//! Never:  name resolution
//! Spec:   [RTMP] §7.2.1.1 (tcUrl)

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::str::FromStr;

const DEFAULT_PORT: u16 = 1_935;

/// Where to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address of the server, an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The application: the first segment of the path.
    pub app: String,
    /// The stream key: the rest of the path.
    pub key: String,
    /// What follows the `?`, with it; empty if there is none.
    pub query: String,
}

/// Why a text is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no rtmp://HOST[:PORT]/APP/KEY: {what}")]
pub struct TargetError {
    found: String,
    what: &'static str,
}

impl Target {
    /// The same place under the key with `-number` behind it.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        Self {
            key: format!("{}-{number}", self.key),
            ..self.clone()
        }
    }

    /// The address of the application, as connect names it.
    pub(super) fn tc_url(&self) -> String {
        let Self {
            host, port, app, ..
        } = self;
        match host.contains(':') {
            true => format!("rtmp://[{host}]:{port}/{app}"),
            false => format!("rtmp://{host}:{port}/{app}"),
        }
    }

    /// The name to publish: key and query.
    pub(super) fn name(&self) -> String {
        format!("{}{}", self.key, self.query)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        parse(text).map_err(|what| TargetError {
            found: text.to_owned(),
            what,
        })
    }
}

fn parse(text: &str) -> Result<Target, &'static str> {
    let rest = text.strip_prefix("rtmp://");
    let rest = rest.ok_or("it does not begin with rtmp://")?;
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (rest, String::new()),
    };
    let (authority, path) = place.split_once('/').ok_or("the application is missing")?;
    let (app, key) = path.split_once('/').ok_or("the stream key is missing")?;
    if app.is_empty() || key.is_empty() {
        return Err("application and stream key must not be empty");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or("a bracket is missing")?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    let port = match port {
        Some(port) => port
            .parse()
            .map_err(|_| "the port is no number below 65536")?,
        None => DEFAULT_PORT,
    };
    Ok(Target {
        host: host.to_owned(),
        port,
        app: app.to_owned(),
        key: key.to_owned(),
        query,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let target: Target = "rtmp://h/live/demo?a=b".parse().expect("valid");
        assert_eq!((&*target.host, target.port), ("h", 1_935));
        assert_eq!(target.numbered(2).name(), "demo-2?a=b");
        assert_eq!(target.tc_url(), "rtmp://h:1935/live");
        let target: Target = "rtmp://[::1]:5/live/a/b".parse().expect("valid");
        assert_eq!((&*target.host, &*target.key), ("::1", "a/b"));
        assert_eq!(target.tc_url(), "rtmp://[::1]:5/live");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "http://h/a/b",
            "rtmp://h",
            "rtmp://h/live",
            "rtmp://h/live/",
            "rtmp:///a/b",
            "rtmp://h:x/a/b",
            "rtmp://[::1/a/b",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
