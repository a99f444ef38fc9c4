//! Runs what the command line asks for.
//!
//! Enters: [`Cli`]
//! Leaves: an exit code: 0 done, 1 the work failed, 2 the command line or the configuration is wrong
//! Never:  an answer on standard error or a log line on standard output
//! Time:   none
//! Spec:   docs/configuration.md

use std::io::{IsTerminal as _, Write as _};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::app::cli::{
    Cli, Command, ConfigCommand, ExportArgs, InspectArgs, OriginArgs, PublishArgs, ServerArgs,
};
use crate::app::{examine, export, inspection, origin, pipelines, server, shutdown, telemetry};
use crate::config::{self, Config, Options};
use crate::inspect::follow::{self, Target};
use crate::publish::{Job, Progress, publish};
use crate::serve::stretch::{self, Asked};
use crate::transcode::template::Pipeline;

/// The work was tried and failed.
const FAILED: u8 = 1;
/// What was asked for makes no sense.
const WRONG: u8 = 2;

/// Does what `cli` says.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(args) => with_config(&args.server, |config| {
            with_ladder(config, |config, ladder| {
                telemetry::init_logs(&config.log)?;
                block_on(server::run(config, ladder, args.demo))
            })
        }),
        Command::Origin(args) => with_config(&server_args(args), |config| {
            finish(telemetry::init_logs(&config.log).and_then(|()| block_on(origin::run(config))))
        }),
        Command::Export(args) => export_file(args),
        Command::Publish(args) => finish(publish_file(args)),
        Command::Inspect(args) => inspect(args),
        Command::Doctor(args) => with_config(&args, |config| {
            with_ladder(config, |config, ladder| {
                block_on(examine::run(&config, ladder))
            })
        }),
        Command::Config(ConfigCommand::Check { file }) => check(&file),
        Command::Config(ConfigCommand::Show(args)) => {
            with_config(&args, |config| finish(print(&config.to_toml())))
        }
        Command::Worker(_) => worker(),
    }
}

/// What a server is told that only reads.
fn server_args(args: OriginArgs) -> ServerArgs {
    ServerArgs {
        config: args.config,
        http: args.http,
        store: args.store,
        log: args.log,
        ..ServerArgs::default()
    }
}

fn with_config(args: &ServerArgs, work: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match load(args) {
        Ok(config) => work(config),
        Err(problems) => wrong(&problems.to_string()),
    }
}

/// A ladder with mistakes is a wrong configuration, wherever the mistakes stand.
fn with_ladder(
    config: Config,
    work: impl FnOnce(Config, Pipeline) -> anyhow::Result<()>,
) -> ExitCode {
    match pipelines::load(&config.transcode) {
        Ok(ladder) => finish(work(config, ladder)),
        Err(problems) => wrong(&in_words(&problems)),
    }
}

fn load(args: &ServerArgs) -> Result<Config, config::Error> {
    let options = Options {
        rtmp: args.rtmp.clone(),
        http: args.http.clone(),
        store: args.store.clone(),
        ladder: args.ladder.clone(),
        log: args.log.clone(),
    };
    Config::load(
        args.config.as_deref(),
        &|name| std::env::var(name).ok(),
        &options,
    )
}

fn check(file: &Path) -> ExitCode {
    match Config::load(Some(file), &|_| None, &Options::default()) {
        Ok(config) => with_ladder(config, |_, _| {
            print(&format!("{}: no problem found\n", file.display()))
        }),
        Err(problems) => wrong(&problems.to_string()),
    }
}

fn export_file(args: ExportArgs) -> ExitCode {
    let server = ServerArgs {
        config: args.config.clone(),
        store: args.store.clone(),
        ..ServerArgs::default()
    };
    match export_job(args) {
        Ok(job) => with_config(&server, |config| {
            let work = || {
                telemetry::init_logs(&config.log)?;
                block_on(async {
                    let done = export::run(config.store, job).await?;
                    let (length, bytes) = (done.length.as_secs(), done.bytes);
                    print(&format!("wrote {length} s of media, {bytes} bytes\n"))
                })
            };
            finish(work())
        }),
        Err(text) => wrong(&text),
    }
}

/// What is asked for, or what of it makes no sense.
fn export_job(args: ExportArgs) -> Result<export::Job, String> {
    let instant = |text: &Option<String>, name: &str| match text {
        None => Ok(None),
        Some(text) => stretch::instant(text).map(Some).ok_or_else(|| {
            format!("--{name}: found {text:?}; write 2026-11-20T20:15:00Z, or seconds since 1970")
        }),
    };
    let (start, end) = (instant(&args.start, "start")?, instant(&args.end, "end")?);
    let names = args.rendition.iter().map(|name| name.parse());
    Ok(export::Job {
        stream: args
            .stream
            .parse()
            .map_err(|error| format!("STREAM: {error}"))?,
        file: args.file,
        asked: start.map(|start| Asked { start, end }),
        renditions: names
            .collect::<Result<_, _>>()
            .map_err(|error| format!("--rendition: {error}"))?,
    })
}

fn publish_file(args: PublishArgs) -> anyhow::Result<()> {
    telemetry::init_logs(&config::Log::default())?;
    let streams = NonZeroU32::new(args.streams).unwrap_or(NonZeroU32::MIN);
    let job = Job {
        file: args.file,
        url: args.url,
        repeat: args.repeat,
        streams,
    };
    let bar = progress_bar(args.repeat);
    block_on(async {
        let stopped = shutdown::watch_signals()?;
        let sent = publish(job, |progress| show(&bar, &progress), stopped).await;
        bar.finish_and_clear();
        let sent = sent?;
        print(&format!(
            "sent {} s of media, {} bytes\n",
            sent.media.as_secs(),
            sent.bytes
        ))
    })
}

fn inspect(args: InspectArgs) -> ExitCode {
    match Target::parse(&args.target) {
        Ok(target) => {
            let length = args.length;
            finish(block_on(inspection::run(
                follow::Job { target, length },
                args.json,
            )))
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(WRONG)
        }
    }
}

/// A bar that fills once, or one that only counts for a film that never ends.
fn progress_bar(repeat: bool) -> ProgressBar {
    let template = if repeat {
        "{spinner} {elapsed_precise}  {msg}"
    } else {
        "{bar:40} {percent:>3} %  {msg}"
    };
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::new(0);
    // The templates are constants; a bar without its style still shows the message.
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn show(bar: &ProgressBar, progress: &Progress) {
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    bar.set_length(millis(progress.film));
    bar.set_position(millis(progress.media));
    let kbps = (progress.bytes * 8)
        .checked_div(millis(progress.media))
        .unwrap_or(0);
    let loops = match progress.loops {
        0 => String::new(),
        loops => format!(", played {loops} times"),
    };
    bar.set_message(format!(
        "{} s sent, {kbps} kbit/s{loops}",
        progress.media.as_secs()
    ));
}

fn worker() -> ExitCode {
    #[cfg(feature = "gst")]
    {
        crate::transcode::worker::run()
    }
    #[cfg(not(feature = "gst"))]
    {
        complain("this build has no transcoder: it was made without the feature \"gst\"");
        ExitCode::from(FAILED)
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&in_words(&error));
            ExitCode::from(FAILED)
        }
    }
}

fn wrong(text: &str) -> ExitCode {
    complain(text);
    ExitCode::from(WRONG)
}

/// The error and what caused it; a cause that is already part of the sentence is not said again.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// Says what is wrong on standard error; if that is closed, the exit code is what remains.
fn complain(text: &str) {
    let mark = if std::io::stderr().is_terminal() {
        "\u{1b}[31merror\u{1b}[0m"
    } else {
        "error"
    };
    let _ = writeln!(std::io::stderr(), "{mark}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect: {source}")]
    struct Connect {
        source: std::io::Error,
    }

    #[test]
    fn cause_is_said_once() {
        let source = std::io::Error::other("refused");
        let error = anyhow::Error::from(Connect { source });
        assert_eq!(in_words(&error), "cannot connect: refused");
        let error = error.context("publishing");
        assert_eq!(in_words(&error), "publishing: cannot connect: refused");
    }
}
