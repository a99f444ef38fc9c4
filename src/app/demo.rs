//! The bundled film, published by ourselves over real RTMP.
//!
//! Enters: the address of our own RTMP listener
//! Leaves: the stream `demo`, until the server ends
//! Never:  a short cut past the network: what works here works for OBS
//! Time:   as the film plays
//! Spec:   none

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use anyhow::Context as _;

use crate::app::shutdown::Signal;
use crate::publish::{Job, publish};

/// The film: see `fixtures/README.md` for its authors and licence.
const FILM: &[u8] = include_bytes!("../../fixtures/media/bbb_720p30_12s.mp4");

/// The stream key it is published under.
pub(super) const STREAM: &str = "demo";

/// Publishes the film to `rtmp` again and again until `stopped`. A failure is logged: the server goes
/// on without its demo.
pub(super) async fn run(rtmp: SocketAddr, stopped: Signal) {
    if let Err(error) = play(rtmp, stopped).await {
        tracing::warn!(%error, "the demo has ended");
    }
}

async fn play(rtmp: SocketAddr, stopped: Signal) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("headwater-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let file = folder.join("film.mp4");
    std::fs::File::create(&file)
        .and_then(|mut film| film.write_all(FILM))
        .with_context(|| file.display().to_string())?;
    let url = format!("rtmp://{}/live/{STREAM}", loopback(rtmp));
    let job = Job {
        file,
        url,
        repeat: true,
        streams: NonZeroU32::MIN,
    };
    let played = publish(job, |_| {}, stopped).await;
    // Left behind it would only cost its few megabytes until the next boot.
    let _ = std::fs::remove_dir_all(&folder);
    played?;
    Ok(())
}

/// The address to dial from this machine for one that is listened on.
fn loopback(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
