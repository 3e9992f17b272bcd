//! Whose turn it is: every operation of a kind is looked at each second, none twice at a time, and none
//! waits for another one's look.
//!
//! The looks are futures of the task that drives operations, and end with it: what one had submitted by
//! then is the writer's, and is written or not, as a whole.

use std::{collections::HashMap, sync::Arc, time::Instant};

use cardea_registry_api::Name;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::Driven;
use crate::{
    shared::Shared,
    state::{State, Stored},
};

/// The most looks at a time. Beyond, the ones that waited longest come first.
const MOST: usize = 16;

/// What a look came to.
struct Ended<M> {
    id: Name,
    memo: M,
    stepped: bool,
}

/// What is known of an operation.
struct Known<M> {
    /// None: it is being looked at.
    memo: Option<M>,
    /// When that began last.
    looked: Instant,
}

/// The operations of a kind.
pub(super) struct Turns<'s, O: Driven> {
    shared: &'s Shared,
    known: HashMap<Name, Known<O::Memo>>,
    looks: FuturesUnordered<BoxFuture<'s, Ended<O::Memo>>>,
}

impl<'s, O: Driven> Turns<'s, O> {
    pub(super) fn of(shared: &'s Shared) -> Self {
        Self {
            shared,
            known: HashMap::new(),
            looks: FuturesUnordered::new(),
        }
    }

    /// Returns when an operation has made a step.
    pub(super) async fn stepped(&mut self) {
        loop {
            let Some(ended) = self.looks.next().await else {
                return std::future::pending().await;
            };
            if let Some(known) = self.known.get_mut(&ended.id) {
                known.memo = Some(ended.memo);
            }
            if ended.stepped {
                return;
            }
        }
    }

    /// Looks at all that are under way, and not being looked at.
    pub(super) fn look(&mut self, state: &Arc<State>) {
        let mut running = O::running(state);
        self.known.retain(|id, known| {
            known.memo.is_none() || running.iter().any(|stored| stored.object.id() == id)
        });
        running.sort_by_key(|stored| self.known.get(stored.object.id()).map(|known| known.looked));
        for stored in running {
            if self.looks.len() >= MOST {
                return;
            }
            let known = self.known.entry(stored.object.id().clone());
            let known = known.or_insert_with(|| Known {
                memo: Some(O::Memo::default()),
                looked: Instant::now(),
            });
            if let Some(memo) = known.memo.take() {
                known.looked = Instant::now();
                let look = look(self.shared, Arc::clone(state), stored, memo);
                self.looks.push(Box::pin(look));
            }
        }
    }
}

async fn look<O: Driven>(
    shared: &Shared,
    state: Arc<State>,
    stored: Arc<Stored<O>>,
    mut memo: O::Memo,
) -> Ended<O::Memo> {
    let stepped = O::step(shared, &state, &stored, &mut memo).await;
    Ended {
        id: stored.object.id().clone(),
        memo,
        stepped,
    }
}
