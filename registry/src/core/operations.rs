//! What switches and releases have in common: a word on one is decided over what is there, and written on
//! the revisions that were seen; where something else was there by then, it is decided anew. The oldest of
//! those that are over are forgotten.

use std::sync::Arc;

use cardea_registry_api::{
    Name, Release, Switch, release::MAX_STEPS as RELEASE_STEPS, switch::MAX_STAGES,
};

use super::{Core, submit};
use crate::{
    change::{Author, Change, Kind, Rejection, SubmitError, Written},
    shared::Shared,
    state::Stored,
};

/// How many operations of a kind that are over are kept.
const KEPT: usize = 100;
/// How often a word is decided anew, as others change what it is about meanwhile: more often than an
/// operation makes steps by itself, so that an operator's word comes through.
const TRIES: usize = 2 * longer(MAX_STAGES, RELEASE_STEPS) + 8;

const fn longer(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// An operation, as it is kept.
pub(crate) trait Operation {
    /// What the log calls it, before its name.
    const KIND: Kind;

    fn id(&self) -> &Name;

    fn created_at(&self) -> i64;

    /// Nothing more comes of it by itself.
    fn is_over(&self) -> bool;

    /// What forgets one.
    fn forget(id: Name) -> Change;
}

impl Operation for Switch {
    const KIND: Kind = Kind::Switch;

    fn id(&self) -> &Name {
        &self.id
    }

    fn created_at(&self) -> i64 {
        self.created_at
    }

    fn is_over(&self) -> bool {
        !self.state.is_active()
    }

    fn forget(id: Name) -> Change {
        Change::DeleteSwitch { id }
    }
}

impl Operation for Release {
    const KIND: Kind = Kind::Release;

    fn id(&self) -> &Name {
        &self.id
    }

    fn created_at(&self) -> i64 {
        self.created_at
    }

    fn is_over(&self) -> bool {
        self.state.is_over()
    }

    fn forget(id: Name) -> Change {
        Change::DeleteRelease { id }
    }
}

/// What a word comes to: one unit of changes, on the revisions that were seen.
#[derive(Debug)]
pub(super) struct Decided<T> {
    /// Of which operation.
    pub(super) id: Name,
    pub(super) changes: Vec<Change>,
    /// What whoever asked is told beside.
    pub(super) told: T,
}

impl Core {
    /// Writes what somebody's word comes to. It is decided again for as long as others change meanwhile what
    /// it was decided over; other errors are final.
    pub(super) async fn write_word<O, T, E, F>(
        &self,
        by: &str,
        mut decide: impl FnMut() -> F,
    ) -> Result<(Name, Written, T), E>
    where
        O: Operation,
        E: From<SubmitError>,
        F: Future<Output = Result<Decided<T>, E>>,
    {
        let mut last = SubmitError::Stopping;
        for _ in 0..TRIES {
            let Decided { id, changes, told } = decide().await?;
            match take_step::<O>(&self.shared, &id, changes, by).await {
                Ok(written) => return Ok((id, written, told)),
                Err(error) if is_late(&error) => last = error,
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.into())
    }
}

/// One unit of an operation.
pub(crate) async fn take_step<O: Operation>(
    shared: &Shared,
    id: &Name,
    changes: Vec<Change>,
    by: &str,
) -> Result<Written, SubmitError> {
    let cause = format!("{} {id}", O::KIND);
    submit(shared, changes, Author::named(by), Some(cause.into())).await
}

/// Something else was there than what was looked at.
fn is_late(error: &SubmitError) -> bool {
    matches!(
        error,
        SubmitError::Rejected {
            rejection: Rejection::PreconditionFailed { .. }
                | Rejection::PreconditionRequired { .. }
                | Rejection::NotFound {
                    kind: Kind::Traffic,
                    ..
                },
            ..
        }
    )
}

/// The oldest of those that are over, beyond those that are kept.
pub(super) fn outdated<'s, O: Operation + 's>(
    all: impl Iterator<Item = &'s Arc<Stored<O>>>,
) -> impl Iterator<Item = Change> {
    let mut over: Vec<_> = all.filter(|stored| stored.object.is_over()).collect();
    over.sort_by_key(|stored| std::cmp::Reverse((stored.object.created_at(), stored.revision)));
    let old = over.into_iter().skip(KEPT);
    old.map(|stored| O::forget(stored.object.id().clone()))
}
