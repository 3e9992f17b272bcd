//! Traffic while the database is away: an operator on one side of a cut may act for the routers there.
//!
//! What is said is journaled and served at once, as what is done to instances, and written when the
//! database is back: on what the writer saw. What was changed in the database meanwhile holds, so that all
//! replicas come to the same, whatever clocks say. What does not hold then is an alarm (`lost.rs`).

use std::sync::Arc;

use cardea_registry_api::{Invalid, Traffic, TrafficKey, api::Mode};

use super::{Core, submit};
use crate::{
    change::{Author, Change, Kind, Rejection, SubmitError, Written},
    lost,
    writer::run_blocking,
};

/// Why an alarm goes on though somebody has taken note of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AckError {
    /// It is not one to take note of.
    #[error("it ends by itself when its cause does")]
    EndsByItself,
    /// It would come back.
    #[error("the disk does not take it: {0}")]
    Disk(std::io::Error),
}

/// The longest reason, in bytes.
const MAX_REASON: usize = 200;

impl Core {
    /// Somebody has taken note of an alarm that stands until then; none: there is no such alarm. Others end
    /// when their cause does.
    pub(crate) async fn acknowledge(
        &self,
        code: &str,
        by: &Author,
    ) -> Option<Result<(), AckError>> {
        let alarms = self.status().alarms;
        if !alarms.iter().any(|alarm| alarm.code == code) {
            return None;
        }
        if code != lost::CODE {
            return Some(Err(AckError::EndsByItself));
        }
        let known = Arc::clone(&self.shared.lost);
        let done = run_blocking(move || known.acknowledge()).await;
        let done = done.map_err(std::io::Error::other).flatten();
        if done.is_ok() {
            tracing::info!(code, by = %by.0, "an alarm was acknowledged");
        }
        Some(done.map(drop).map_err(AckError::Disk))
    }

    /// Whether traffic can be moved on a reason given for this time only: the database is away. Its history
    /// being in question is another thing: somebody has to decide that first.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.shared.mode() == Mode::DatabaseLost
    }

    /// Says where a cluster's requests go (none: nothing special), until the database is back and after.
    pub(crate) async fn move_traffic(
        &self,
        key: TrafficKey,
        (before, after): (Option<Traffic>, Option<Traffic>),
        reason: &str,
        author: Author,
    ) -> Result<Written, SubmitError> {
        let refused = |rejection| SubmitError::Rejected {
            index: 0,
            rejection,
        };
        let reason = reason.trim();
        let plain = !reason.is_empty() && reason.len() <= MAX_REASON;
        if !plain || reason.chars().any(char::is_control) {
            let why = format!("say why, in at most {MAX_REASON} bytes: it is kept in the log");
            return Err(refused(Invalid::field("while_away", why).into()));
        }
        if !self.shared.routers.has_here(&key.cluster) {
            return Err(refused(Rejection::Conflict {
                kind: Kind::Traffic,
                key: key.to_string(),
                why: format!(
                    "no router of `{}` asks this registry: the database is away, and nobody else would hear of it. Say it to a registry that they ask (`ctl routers`)",
                    key.cluster
                ),
            }));
        }
        let change = Change::MoveTraffic {
            key,
            before: before.map(Box::new),
            after: after.map(Box::new),
        };
        let cause: Arc<str> = format!("away {reason}").into();
        submit(&self.shared, vec![change], author, Some(cause)).await
    }
}
