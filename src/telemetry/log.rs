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
    // What `object_store` says of each attempt is said once more when it is given up.
    let default = if quiet { "warn" } else { "info,object_store=warn" };
    let asked = std::env::var("LEVADA_LOG").unwrap_or_default();
    let filter = filter(&asked).unwrap_or_else(|wrong| {
        eprintln!("warning: LEVADA_LOG={asked}: {wrong}; log lines are those of `{default}`");
        None
    });
    let filter = filter.unwrap_or_else(|| EnvFilter::new(default));
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

/// What `LEVADA_LOG` asks for, if anything; why it cannot be had.
fn filter(asked: &str) -> Result<Option<EnvFilter>, String> {
    const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
    if asked.trim().is_empty() {
        return Ok(None);
    }
    for part in asked.split(',') {
        // A word alone would be taken for a module of that name, and silence all others.
        let level = part.rsplit('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !LEVELS.contains(&level.as_str()) {
            return Err(format!("`{level}` is no level; there are {}", LEVELS.join(", ")));
        }
    }
    EnvFilter::try_new(asked).map(Some).map_err(|error| error.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_there_is_not_is_told() {
        for asked in ["info", "WARN", "info,levada=debug", "levada_connectors=trace"] {
            assert!(filter(asked).unwrap().is_some(), "{asked}");
        }
        assert!(filter(" ").unwrap().is_none());
        let wrong = filter("info,levada=loud").unwrap_err();
        assert_eq!(wrong, "`loud` is no level; there are off, error, warn, info, debug, trace");
        assert!(filter("5").is_err());
    }
}
