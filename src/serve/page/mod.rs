//! Holds the files of the page at `/`, carried inside the binary.
//!
//! Enters: the files of this folder, at build time
//! Leaves: [`ASSETS`]: address, content type and bytes of each; the same for the life of the process
//! Never:  reads a file, opens a connection, or names an address outside this server
//! Time:   none
//! Spec:   none

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

/// The `Content-Security-Policy` that the page needs and works under.
///
/// Everything comes from this server. `blob:` is what Media Source playback and hls.js's worker
/// use. `index.html` carries the same rules, so that a proxy which drops the header changes nothing.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self'; connect-src 'self'; media-src 'self' blob:; \
    worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// One file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// The path at which it is served: `/` or `/assets/<name>`.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its bytes, not compressed.
    pub body: &'static [u8],
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Every file of the page, the page itself first. Paths are unique.
pub const ASSETS: &[Asset] = &[
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        body: include_bytes!("index.html"),
    },
    Asset {
        path: "/assets/style.css",
        content_type: "text/css; charset=utf-8",
        body: include_bytes!("style.css"),
    },
    Asset {
        path: "/assets/icon.svg",
        content_type: "image/svg+xml",
        body: include_bytes!("icon.svg"),
    },
    Asset {
        path: "/assets/app.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("app.js"),
    },
    Asset {
        path: "/assets/card.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("card.js"),
    },
    Asset {
        path: "/assets/engine.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("engine.js"),
    },
    Asset {
        path: "/assets/dom.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("dom.js"),
    },
    Asset {
        path: "/assets/hls.min.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("vendor/hls.min.js"),
    },
    Asset {
        path: "/assets/hls.LICENSE.txt",
        content_type: TEXT,
        body: include_bytes!("vendor/hls.LICENSE.txt"),
    },
    Asset {
        path: "/assets/dash.all.min.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("vendor/dash.all.min.js"),
    },
    Asset {
        path: "/assets/dash.all.min.js.LICENSE.txt",
        content_type: TEXT,
        body: include_bytes!("vendor/dash.all.min.js.LICENSE.txt"),
    },
    Asset {
        path: "/assets/dash.LICENSE.txt",
        content_type: TEXT,
        body: include_bytes!("vendor/dash.LICENSE.md"),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The files written here, as text; the vendored ones are not ours to judge.
    fn own_files() -> impl Iterator<Item = (&'static str, &'static str)> {
        ASSETS
            .iter()
            .filter(|a| !a.path.contains(".min.js") && !a.path.contains("LICENSE"))
            .map(|a| (a.path, str::from_utf8(a.body).unwrap()))
    }

    #[test]
    fn paths_are_unique_and_in_their_place() {
        let paths: HashSet<_> = ASSETS.iter().map(|a| a.path).collect();
        assert_eq!(paths.len(), ASSETS.len());
        assert_eq!(ASSETS[0].path, "/");
        assert!(ASSETS[1..].iter().all(|a| {
            a.path
                .strip_prefix("/assets/")
                .is_some_and(|name| !name.is_empty() && !name.contains('/'))
        }));
        assert!(ASSETS.iter().all(|a| !a.body.is_empty()));
    }

    #[test]
    fn every_asset_named_by_the_page_exists() {
        for (path, text) in own_files() {
            for tail in text.split("/assets/").skip(1) {
                let name: String = tail
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c))
                    .collect();
                let full = format!("/assets/{name}");
                assert!(ASSETS.iter().any(|a| a.path == full), "{path} names {full}");
            }
            for tail in text.split(" from './").skip(1) {
                let name = tail.split('\'').next().unwrap();
                let full = format!("/assets/{name}");
                assert!(
                    ASSETS.iter().any(|a| a.path == full),
                    "{path} imports {name}"
                );
            }
        }
    }

    #[test]
    fn page_asks_no_other_server() {
        for (path, text) in own_files() {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://"), "{path}");
            assert!(!elsewhere.contains("https://"), "{path}");
        }
    }

    #[test]
    fn page_runs_under_its_own_content_security_policy() {
        let html = str::from_utf8(ASSETS[0].body).unwrap();
        for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!html.contains(inline), "{inline}");
        }
        let scripts = html.matches("<script").count();
        assert_eq!(
            html.matches("<script type=\"module\" src=\"/assets/")
                .count(),
            scripts
        );
        // A page cannot set frame-ancestors on itself, so it carries the others.
        let (own, _) = CONTENT_SECURITY_POLICY
            .split_once("; frame-ancestors")
            .unwrap();
        assert!(html.contains(own), "{own}");
    }

    #[test]
    fn nothing_from_the_api_becomes_markup() {
        for (path, text) in own_files() {
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(sink), "{path} uses {sink}");
            }
        }
    }
}
