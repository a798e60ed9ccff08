//! `hioload-ws`: the appliance. It reads the command line and the configuration file, starts the
//! library's server with one of the apps, says how, and waits for its end.

#![forbid(unsafe_code)]

mod apps;
mod bench;
mod cli;
mod config;
mod dpdk_options;
mod topology_command;
mod totals;
mod units;

use std::process::ExitCode;

use clap::Parser as _;
use hioload_ws::middleware::Logging;
use hioload_ws::topology::Topology;
use hioload_ws::{Builder, Error};

use cli::{App, Cli, Command, Options, ServeArgs};
use topology_command::{Told, TopologyArgs};
use totals::Totals;

/// The command line or the configuration is wrong; clap's own code for the same.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve(*args),
        Command::Check { config } => check(&config),
        Command::Topology(args) => topology(*args),
        Command::Bench(args) => {
            bench::run(&args).unwrap_or_else(|(code, problem)| fail(code, &problem))
        }
    }
}

fn serve(args: ServeArgs) -> ExitCode {
    let options = match merged(args) {
        Ok(options) => options,
        Err(message) => return fail(USAGE, &message),
    };
    log_to_stderr(&options);
    let builder = options.builder();
    if let Err(error) = builder.check() {
        return fail(USAGE, &error.to_string());
    }
    match run(builder, options.app.unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error.to_string()),
    }
}

/// The file's options under those of the command line.
fn merged(args: ServeArgs) -> Result<Options, String> {
    let file = match &args.config {
        Some(path) => config::read(path)?,
        None => Options::default(),
    };
    Ok(args.options.or(file))
}

fn run(builder: Builder, app: App) -> Result<(), Error> {
    let builder = builder.handle_signals(true);
    let running = match app {
        App::Echo => builder.start(Logging::new(apps::Echo))?,
        App::Broadcast => builder.start(Logging::new(apps::Broadcast))?,
    };
    eprintln!("{}  app          {app}", running.report());
    let monitor = running.monitor().clone();
    let ended = running.join();
    eprintln!("hioload-ws ended: {}", Totals(&monitor));
    ended
}

fn check(path: &std::path::Path) -> ExitCode {
    let checked = config::read(path)
        .and_then(|options| options.builder().check().map_err(|error| config::blame(path, &error)));
    match checked {
        Ok(()) => {
            println!("{}: valid", path.display());
            ExitCode::SUCCESS
        }
        Err(message) => fail(USAGE, &message),
    }
}

fn topology(args: TopologyArgs) -> ExitCode {
    let told = merged(*args.serve).and_then(|options| {
        let (topology, builder) = (Topology::read(), options.builder());
        let placement = builder.placement(&topology).map_err(|error| error.to_string())?;
        Ok(Told { topology, placement, nic: builder.nic().map(str::to_owned) })
    });
    match told {
        Ok(told) if args.json => println!("{}", told.json()),
        Ok(told) => print!("{told}"),
        Err(message) => return fail(USAGE, &message),
    }
    ExitCode::SUCCESS
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("hioload-ws: {}", message.trim_end());
    ExitCode::from(code)
}

fn log_to_stderr(options: &Options) {
    tracing_subscriber::fmt()
        .with_max_level(options.log.unwrap_or_default().filter())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
