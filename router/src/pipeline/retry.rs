//! Whether a failed try may be made again on another peer. Nothing is ever done twice that must not
//! be: a request goes out again only if nothing of it was sent, or if its method is idempotent and
//! its whole body is at hand.

/// What went out to the peer that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Not a byte.
    Nothing,
    /// Some of it; the peer may have acted on it.
    Something,
    /// Some of it, and the peer ended it by itself on a connection that goes on: it has acted on it.
    Ended,
}

/// A failed try, as far as the decision goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed {
    /// What went out.
    pub(crate) sent: Sent,
    /// The method may be repeated.
    pub(crate) idempotent: bool,
    /// What went out is still at hand as a whole.
    pub(crate) kept: bool,
    /// Tries that the policy still allows.
    pub(crate) tries_left: u8,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Give up.
    No,
    /// Try again if the budget allows.
    WithinBudget,
    /// Try again: it costs the peers nothing more than the first try should have.
    Freely,
}

/// Decides.
pub(crate) fn decide(failed: Failed) -> Verdict {
    match failed.sent {
        _ if failed.tries_left == 0 || !failed.kept => Verdict::No,
        Sent::Nothing => Verdict::Freely,
        Sent::Something | Sent::Ended if failed.idempotent => Verdict::WithinBudget,
        Sent::Something | Sent::Ended => Verdict::No,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_is_done_twice_that_must_not_be(
            sent in prop_oneof![Just(Sent::Nothing), Just(Sent::Something), Just(Sent::Ended)],
            idempotent: bool,
            kept: bool,
            tries_left in 0_u8..4,
        ) {
            let verdict = decide(Failed { sent, idempotent, kept, tries_left });
            if verdict != Verdict::No {
                prop_assert!(kept && tries_left > 0);
                prop_assert!(sent == Sent::Nothing || idempotent);
            }
            if sent == Sent::Nothing && kept && tries_left > 0 {
                prop_assert_eq!(verdict, Verdict::Freely);
            }
        }
    }
}
