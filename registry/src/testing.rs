//! What the tests build on: a core on an own directory, on SQLite or on a real Postgres.

mod postgres;

use std::{path::Path, time::Duration};

use cardea_registry_api::feed::Coding;

pub(crate) use postgres::Postgres;

use crate::{
    change::{Author, Change, SubmitError, Written},
    core::{Asker, Background, Core, CoreConfig, FeedRequest, OpenError},
    state::tests::name,
};

/// A configuration with short times.
pub(crate) fn config(dir: &Path, url: &str, replica: &str) -> CoreConfig {
    let mut config = CoreConfig {
        data_dir: dir.join(replica),
        replica: replica.to_owned(),
        ..CoreConfig::default()
    };
    url.clone_into(&mut config.store.url);
    config.snapshots.interval = Duration::from_millis(200);
    config.leases.tick = Duration::from_millis(50);
    config.leases.grace = Duration::ZERO;
    config.router_return = Duration::ZERO;
    config
}

pub(crate) fn sqlite_url(dir: &Path) -> String {
    format!("sqlite://{}/registry.db", dir.display())
}

/// A running core.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) core: Core,
    pub(crate) background: Background,
}

impl Running {
    pub(crate) async fn open(config: CoreConfig) -> Result<Self, OpenError> {
        let (core, background) = Core::open(config).await?;
        Ok(Self { core, background })
    }

    pub(crate) async fn stop(mut self) {
        assert!(self.background.is_whole(), "a task ended by itself");
        self.background.stop().await;
    }

    pub(crate) async fn submit(&self, change: Change) -> Result<Written, SubmitError> {
        self.core.submit(vec![change], Author::named("test")).await
    }
}

/// Waits until something holds, with a deadline.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A poll of cluster `a`'s feed.
pub(crate) fn ask(after: Option<(&str, u64)>, wait: Duration) -> FeedRequest {
    FeedRequest {
        cluster: name("a"),
        after: after.map(|(epoch, revision)| (epoch.to_owned(), revision)),
        wait,
        full: false,
        coding: Coding::Identity,
        router: Some(Asker {
            id: "r1".to_owned(),
            version: "0.1".to_owned(),
            kinds: None,
        }),
    }
}
