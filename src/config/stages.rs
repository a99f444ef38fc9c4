//! The settings of each stage, as the stage owns them.
//!
//! Enters: nothing; these are plain values
//! Leaves: one `Config` per stage, whose `Default` is the documented default
//! Never:  text, files, the environment
//! Spec:   docs/configuration.md

/// Settings of `ingest::rtmp`.
pub mod rtmp {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    /// Settings of the RTMP listener.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Config {
        /// Where publishers connect.
        pub listen: SocketAddr,
        /// Connections at once, publishing or not.
        pub max_connections: usize,
        /// From the connection to the end of the handshake.
        pub handshake_timeout: Duration,
        /// From the handshake to the first media message.
        pub first_media_timeout: Duration,
        /// Between two messages of a publisher.
        pub idle_timeout: Duration,
        /// The longest message, in bytes.
        pub max_message_bytes: u32,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1935)),
                max_connections: 512,
                handshake_timeout: Duration::from_secs(5),
                first_media_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(15),
                max_message_bytes: 8 << 20,
            }
        }
    }
}

/// Settings of `package`.
pub mod package {
    use std::num::NonZeroU32;

    /// Settings of the packager.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Config {
        /// Length of a segment in milliseconds: the grid.
        pub segment_ms: NonZeroU32,
        /// Longest part in milliseconds: PART-TARGET.
        pub part_ms: NonZeroU32,
        /// Segments that the playlists list.
        pub window_segments: u32,
        /// Segments that stay addressable after they left the list; more than are listed.
        pub kept_segments: u32,
        /// Whether parts appear in playlists as soon as they exist.
        pub low_latency: bool,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                segment_ms: NonZeroU32::MIN.saturating_add(1_999),
                part_ms: NonZeroU32::MIN.saturating_add(332),
                window_segments: 10,
                kept_segments: 15,
                low_latency: true,
            }
        }
    }
}

/// Settings of `transcode`.
pub mod transcode {
    /// Settings of the transcoder.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Config {
        /// `auto`, the name of a ladder that the binary carries, or the path of a TOML file.
        pub ladder: String,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                ladder: "auto".to_owned(),
            }
        }
    }
}

/// Settings of `store`.
pub mod store {
    use std::time::Duration;

    /// Settings of the store.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Config {
        /// A folder, or a `file://` URL.
        pub url: String,
        /// Whether an object counts as stored only when the disk has it.
        pub fsync: bool,
        /// The most bytes that one broadcast may have waiting to be written.
        pub max_waiting_bytes: u64,
        /// How long what an earlier broadcast of the same name left is kept.
        pub leftover_grace: Duration,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                url: "./data".to_owned(),
                fsync: true,
                max_waiting_bytes: 64 << 20,
                leftover_grace: Duration::from_secs(60),
            }
        }
    }
}

/// Settings of `serve`.
pub mod serve {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    /// Settings of the origin.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Config {
        /// Where players and CDNs connect.
        pub listen: SocketAddr,
        /// The `Access-Control-Allow-Origin` of every answer.
        pub allow_origin: String,
        /// Connections at once.
        pub max_connections: usize,
        /// How long a new connection may take to say which version of HTTP it speaks.
        pub opening_timeout: Duration,
        /// How long a request's head, the wait for the next request, or a client's pause may take.
        pub idle_timeout: Duration,
        /// How long open requests may take on shutdown.
        pub drain_timeout: Duration,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
                allow_origin: "*".to_owned(),
                max_connections: 16_384,
                opening_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(65),
                drain_timeout: Duration::from_secs(10),
            }
        }
    }
}
