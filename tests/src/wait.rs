//! Waiting on conditions with a deadline.

use std::{
    future::Future,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(5);

/// Polls `probe` until it gives a value.
///
/// # Panics
/// When `limit` is over.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            begun.elapsed() < limit,
            "after {limit:?} still not true: {what}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// Polls `probe` until it is `Ok`; the last error is in the panic.
///
/// # Panics
/// When `limit` is over.
pub async fn until_ok<T, F, Fut>(what: &str, limit: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let begun = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) => assert!(
                begun.elapsed() < limit,
                "after {limit:?} still not true: {what}; last seen: {seen}"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Polls a plain condition.
///
/// # Panics
/// When `limit` is over.
pub async fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) {
    until(what, limit, || std::future::ready(probe().then_some(()))).await;
}

/// Lets `span` pass because the scenario is that long ("for 60 s"), not to wait for something.
pub async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}
