//! `priced MANIFEST LISTEN ACCESS_LOG OFF`: a router in static mode with features switched off, for
//! `tests/bench/run proxies price`. `OFF` is a list such as `log,metrics`, or empty.

use std::{process::ExitCode, thread};

use cardea_router::{AccessLog, Config, Source, start, switch_off};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [manifest, listen, log, off] = &args[..] else {
        eprintln!("usage: priced MANIFEST LISTEN ACCESS_LOG OFF");
        return ExitCode::from(2);
    };
    let mut access_log = AccessLog::File(log.into());
    for name in off.split(',').filter(|name| !name.is_empty()) {
        match name {
            "log" => access_log = AccessLog::Off,
            name if switch_off(name) => {}
            other => {
                eprintln!("`{other}` cannot be switched off");
                return ExitCode::from(2);
            }
        }
    }
    let Ok(listen) = listen.parse() else {
        eprintln!("LISTEN is no address");
        return ExitCode::from(2);
    };
    let config = Config {
        source: Source::Static {
            file: manifest.into(),
        },
        listen: Some(listen),
        admin: ([127, 0, 0, 1], 0).into(),
        access_log,
        threads: 1,
        ..Config::default()
    };
    match start(config) {
        Ok(_router) => loop {
            thread::park();
        },
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
