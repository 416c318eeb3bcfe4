//! Log lines: `tracing` on standard error, filtered by `LEVADA_LOG` (default `info`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line of text.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Starts logging. `quiet` leaves only warnings, for when the terminal shows progress instead.
pub fn start(format: LogFormat, quiet: bool) {
    let default = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("LEVADA_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// A panic anywhere ends the process with a report: a worker that is gone would leave the others
/// waiting for it for ever.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_string();
        if ["timely:recv", "timely:send"].iter().any(|of_peers| name.starts_with(of_peers)) {
            // That is how timely tells of a lost peer.
            eprintln!(
                "error: the connection to another process of this job broke: that one has ended, or the network has"
            );
            eprintln!("levada: stopped. Nothing was published after the last finished epoch.");
            std::process::exit(1);
        }
        eprintln!("levada: a bug: thread `{name}` panicked: {panic}");
        eprintln!("{}", std::backtrace::Backtrace::force_capture());
        eprintln!(
            "levada: stopped. Nothing was published after the last finished epoch. Please report the above."
        );
        std::process::abort();
    }));
}
