//! What holds whatever is seen and ordered.

use cardea_registry_api::release::Step;
use proptest::prelude::*;

use super::*;

/// What can happen between two looks.
#[derive(Debug, Clone)]
enum Turn {
    Look {
        good: bool,
        heard: bool,
        ready: bool,
        secs: i64,
    },
    Order(Order),
    Hand,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let look = (
        any::<bool>(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.95),
        1i64..90,
    )
        .prop_map(|(good, heard, ready, secs)| Turn::Look {
            good,
            heard,
            ready,
            secs,
        });
    let order = prop::sample::select(vec![
        Order::Promote,
        Order::PromoteFull,
        Order::Pause,
        Order::Resume,
        Order::Abort,
        Order::Rollback,
    ]);
    let turn = prop_oneof![8 => look, 2 => order.prop_map(Turn::Order), 1 => Just(Turn::Hand)];
    prop::collection::vec(turn, 1..40)
}

proptest! {
    /// Whatever is seen and ordered: shares grow by steps of the plan only, a step that goes on by itself has
    /// had its pause, its figures and no verdict against it; what is rolled back has no requests, what is
    /// over stays over; a paused one does nothing.
    #[test]
    fn it_never_goes_on_blindly(turns in turns()) {
        let (mut release, mut plugin) = begun(&plan("v2"), T0);
        let mut now = T0;
        for turn in turns {
            let before = release.clone();
            let mut done_something = true;
            match turn {
                Turn::Look { good, heard, ready, secs } => {
                    now += secs * 1000;
                    let errors = if good { 0 } else { 20 };
                    let counted = if heard {
                        windows(release.judged_from, now - 3000, (250, errors), (750, 0))
                    } else {
                        Vec::new()
                    };
                    let mut seen = seen(now, &plugin, &counted);
                    seen.candidate_ready = Some(u64::from(ready));
                    let done = next(&release, &seen);
                    if before.state != ReleaseState::Running {
                        prop_assert_eq!(&done, &None);
                    }
                    let Some((action, why)) = done else { continue };
                    let (to, put) = act(&release, Some(&plugin), &action, (ITSELF, why, now)).unwrap();
                    if action == Action::Promote {
                        let step = before.at().unwrap();
                        let Pause::For(pause) = step.pause else { panic!("by hand") };
                        prop_assert!(now >= before.since + i64::try_from(pause.as_millis()).unwrap());
                        if pause > Span::secs(0) {
                            prop_assert!(good && heard && ready && counted.len() >= 10);
                        }
                        prop_assert!(to.step == before.step + 1 || to.state == ReleaseState::Finished);
                    } else {
                        prop_assert!(to.state != ReleaseState::Running);
                    }
                    release = to;
                    plugin = put.unwrap_or(plugin);
                }
                Turn::Order(order) => {
                    let done = act(&release, Some(&plugin), &order.into(), ("bob", None, now));
                    if let Ok((to, put)) = done {
                        if before.state.is_over() {
                            prop_assert_eq!(to.state, ReleaseState::RolledBack);
                        }
                        release = to;
                        plugin = put.unwrap_or(plugin);
                    } else {
                        done_something = false;
                    }
                }
                Turn::Hand => {
                    plugin.gray.as_mut().unwrap().rules[0].when.percent = Percent::from_hundredths(777);
                    continue;
                }
            }
            let steps: Vec<Percent> = release.plan.steps.iter().map(|step: &Step| step.percent).collect();
            prop_assert!(
                release.percent == Percent::default() || steps.contains(&release.percent)
            );
            prop_assert_eq!(
                release.state == ReleaseState::RolledBack,
                release.percent == Percent::default()
            );
            if done_something && release.state == ReleaseState::RolledBack {
                prop_assert_eq!(rules(&plugin), [("v2".to_owned(), Some(0))]);
            }
            prop_assert_eq!(release.ended_at.is_some(), release.state.is_over());
        }
    }
}
