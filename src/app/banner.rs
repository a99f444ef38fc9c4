//! What a person sees when the server has started.
//!
//! Enters: the addresses that are listened on
//! Leaves: a few lines on standard output
//! Never:  more than fits on a small screen
//! Time:   none
//! Spec:   none

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Says where to watch and what to type into OBS.
pub(super) fn print(http: SocketAddr, rtmp: SocketAddr) {
    let text = format!(
        "\nHeadwater {}\n\n  Watch   http://{}/\n\n  OBS     Settings → Stream → Service \"Custom…\"\n          \
         Server      rtmp://{}/live\n          Stream Key  any name, such as mystream\n{}\n",
        env!("CARGO_PKG_VERSION"),
        reachable(http, 80),
        reachable(rtmp, 1935),
        note(http),
    );
    // A closed standard output is no reason not to serve.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// Says where a server that only reads is reached.
pub(super) fn print_origin(http: SocketAddr) {
    let text = format!(
        "\nHeadwater {}\n\n  Watch   http://{1}/\n  HLS     http://{1}/live/<stream>/index.m3u8\n  \
         DASH    http://{1}/live/<stream>/manifest.mpd\n{2}\n",
        env!("CARGO_PKG_VERSION"),
        reachable(http, 80),
        note(http),
    );
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// The address as it can be dialled from this machine; the usual port is left out.
fn reachable(address: SocketAddr, usual_port: u16) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    if address.port() == usual_port {
        host
    } else {
        format!("{host}:{}", address.port())
    }
}

fn note(http: SocketAddr) -> &'static str {
    if http.ip().is_unspecified() {
        "\n  From another machine, put this one's name or address in place of localhost.\n"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_shown_as_it_can_be_dialled() {
        for (address, usual, shown) in [
            ("0.0.0.0:8080", 80, "localhost:8080"),
            ("0.0.0.0:1935", 1935, "localhost"),
            ("[::]:1935", 1935, "localhost"),
            ("127.0.0.1:4000", 80, "127.0.0.1:4000"),
            ("[::1]:4000", 80, "[::1]:4000"),
        ] {
            assert_eq!(
                reachable(address.parse().expect("an address"), usual),
                shown
            );
        }
    }
}
