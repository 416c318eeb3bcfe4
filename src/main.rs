//! A stand-in until the job's branch brings the real one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use levada::cli::gateway::GatewayArgs;
use levada::gateway::JobInfo;

#[derive(Parser)]
enum Command {
    Gateway {
        #[arg(long = "data", default_value = ".levada")]
        data_dir: PathBuf,
        #[command(flatten)]
        args: GatewayArgs,
    },
}

fn main() -> ExitCode {
    let Command::Gateway { data_dir, args } = Command::parse();
    let svg = std::env::var("LEVADA_DRAFT_SVG").ok().and_then(|path| std::fs::read_to_string(path).ok());
    let topics = ["decisions", "incidents", "anomalies", "delays", "forecasts"].map(String::from).to_vec();
    let jobs = svg.map(|svg| JobInfo { name: "flights".into(), svg, topics }).into_iter().collect();
    match args.run(data_dir, jobs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
