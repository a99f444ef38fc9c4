//! The command line: what a person types, as types.
//!
//! Enters: `argv` and the environment, through clap
//! Leaves: [`Cli`]
//! Never:  a default: those live in the configuration, so that file < environment < flag holds
//! Time:   none
//! Spec:   docs/configuration.md

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// A live-video origin: OBS pushes RTMP in; HLS and DASH come out, in several qualities, from one command.
#[derive(Debug, Parser)]
#[command(
    name = "headwater",
    version,
    about,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = "Try it:  headwater serve --demo   then open http://127.0.0.1:8080/")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: take RTMP, make the ladder, serve HLS and DASH.
    ///
    /// Without a configuration it listens for RTMP on port 1935 and for HTTP on port 8080 and keeps what it
    /// makes in ./data. Ctrl-C finishes the open segments, stores them and ends.
    Serve(ServeArgs),
    /// Serve what other nodes have stored, and take nothing in: live at segment latency, and recordings.
    ///
    /// Any number of these may stand behind a load balancer. It needs no more than the right to read the
    /// store, and reads each object once, however many ask for it at the same time.
    Origin(OriginArgs),
    /// Write what is kept of a stream as one ordinary MP4 file: the samples as they are stored.
    ///
    /// Without --start all of the newest show.
    Export(ExportArgs),
    /// Publish an MP4 file to an RTMP address at the speed it plays: H.264 and AAC, or what Enhanced RTMP adds.
    Publish(PublishArgs),
    /// Follow a broadcast as players do and check it against the rules of HLS, LL-HLS, DASH and CMAF.
    ///
    /// Exits with 1 if a MUST is broken. docs/inspect.md lists the rules.
    Inspect(InspectArgs),
    /// Check whether this machine can run Headwater and say what to do where it cannot.
    Doctor(ServerArgs),
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The transcode worker; the server starts it by itself.
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// What decides how a server runs; every option has a twin in the environment and in the file.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerArgs {
    /// Configuration file (TOML). Flags and environment go before what it says.
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where to take RTMP [env: HEADWATER_RTMP] [default: 0.0.0.0:1935]
    #[arg(long, value_name = "ADDR")]
    pub rtmp: Option<String>,
    /// Where to serve HTTP [env: HEADWATER_HTTP] [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Where to keep segments and manifests [env: HEADWATER_STORE] [default: ./data]
    #[arg(long, value_name = "URL|DIR")]
    pub store: Option<String>,
    /// Which qualities to make: "auto", another file of pipelines/ by name, or a path to one
    /// [env: HEADWATER_LADDER] [default: auto]
    #[arg(long, value_name = "NAME|FILE")]
    pub ladder: Option<String>,
    /// How much to log: error, warn, info, debug, trace, or a tracing filter
    /// [env: HEADWATER_LOG] [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// `headwater serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// How the server runs.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Also publish the bundled film clip to live/demo, over real RTMP.
    #[arg(long)]
    pub demo: bool,
}

/// `headwater origin`.
#[derive(Args, Clone, Debug)]
pub struct OriginArgs {
    /// Configuration file (TOML), the same as that of the nodes that write. Flags and environment go before
    /// what it says.
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where to serve HTTP [env: HEADWATER_HTTP] [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Where segments and manifests are [env: HEADWATER_STORE] [default: ./data]
    #[arg(long, value_name = "URL|DIR")]
    pub store: Option<String>,
    /// How much to log: error, warn, info, debug, trace, or a tracing filter
    /// [env: HEADWATER_LOG] [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// `headwater export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// The stream, as it is called in its address.
    pub stream: String,
    /// The file to write. One that is there already is left as it is.
    pub file: PathBuf,
    /// Configuration file (TOML), the same as that of the nodes that write. Flags and environment go before
    /// what it says.
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where segments and manifests are [env: HEADWATER_STORE] [default: ./data]
    #[arg(long, value_name = "URL|DIR")]
    pub store: Option<String>,
    /// The instant to begin with: 2026-11-20T20:15:00Z, or seconds since 1970.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// The instant to end with.
    #[arg(long, value_name = "TIME", requires = "start")]
    pub end: Option<String>,
    /// Which renditions, such as v720,a128; the best picture and the best sound if not given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub rendition: Vec<String>,
}

/// `headwater publish`.
#[derive(Args, Clone, Debug)]
pub struct PublishArgs {
    /// The film: MP4 with H.264, HEVC, AV1 or VP9 video, and AAC-LC or Opus sound.
    pub file: PathBuf,
    /// Where to, with the stream key at the end: rtmp://HOST/live/KEY
    pub url: String,
    /// Start again at the end, until stopped.
    #[arg(long = "loop")]
    pub repeat: bool,
    /// Publish N copies at once, to KEY-1 … KEY-N.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub streams: u32,
}

/// `headwater inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The address of a playlist, an MPD or the folder they stand in (http://), or a stored folder.
    #[arg(value_name = "URL|DIR")]
    pub target: String,
    /// For how long to follow a live broadcast: 20s, 500ms, 2m.
    #[arg(long = "for", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub length: Duration,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A whole number with its unit: `500ms`, `20s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match text.strip_prefix(digits) {
        Some("ms") => 1,
        Some("s") => 1_000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        _ => return Err("a number and ms, s, m or h".to_owned()),
    };
    let count: u32 = digits
        .parse()
        .map_err(|_| "a whole number and its unit".to_owned())?;
    Ok(Duration::from_millis(u64::from(count) * unit_ms))
}

/// `headwater config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration file; every problem is listed with its place.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the configuration that would be in force, as TOML.
    Show(ServerArgs),
}

/// `headwater worker`.
#[derive(Args, Clone, Debug)]
pub struct WorkerArgs {
    /// Passed through to the worker.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}
