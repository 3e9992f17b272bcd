//! `cardea-test-backend --listen ADDRESS --name NAME [--record FILE] [--warm-up MS]`: a
//! [`cardea_tests::backend`] as a process. On TERM it takes no more connections, finishes the requests
//! it has, and ends.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use cardea_tests::backend::{State, serve};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (mut listen, mut name) = (None, String::from("backend"));
    let (mut record, mut warm_up) = (None, 0);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args
            .next()
            .with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--listen" => listen = Some(value),
            "--name" => name = value,
            "--record" => record = Some(PathBuf::from(value)),
            "--warm-up" => warm_up = value.parse()?,
            _ => bail!("unknown flag {flag}"),
        }
    }
    let listen = listen.context("--listen ADDRESS is missing")?;
    let state = State::new(&name, record.as_deref(), Duration::from_millis(warm_up));
    let listener = TcpListener::bind(&listen)
        .await
        .with_context(|| listen.clone())?;
    println!("{name} listens on {listen}");
    let end = CancellationToken::new();
    let mut term = signal(SignalKind::terminate())?;
    let stop = end.clone();
    let serving = serve(listener, Arc::new(state), end);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        _ = term.recv() => {
            stop.cancel();
            serving.await;
        }
    }
    Ok(())
}
