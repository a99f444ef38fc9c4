//! The `headwater` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "gst")]
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return headwater::transcode::worker::run();
    }
    ExitCode::SUCCESS
}
