//! What the stored windows say of candidate and baseline. Pure, and made anew at each look.
//!
//! A step is judged in *spells* of a quarter of an hour, each from nothing: one that waits for somebody all
//! day must see what goes wrong in the evening, however well the morning was. Each spends its own part of the
//! chance to err ([`Spend::of`]).
//!
//! With all requests at the candidate there is nothing beside it to compare it with. Then each of its windows
//! is laid beside [`BESIDE`] of the baseline's before the share was written, each of those once, the nearest
//! first. That sees a fault, but takes trouble for the candidate's that both would have had.

use cardea_registry_api::{
    Name, Release,
    figures::Figures,
    plugin::Percent,
    release::{Analysis, Shown, Verdict},
};

use super::{Seen, waits_for};
use crate::analysis::{Comparison, Spend, failed};

/// How long a spell is, in milliseconds.
pub(crate) const SPELL_MS: i64 = 900_000;
/// How far back the baseline is looked at, in milliseconds.
pub(crate) const HISTORY_MS: i64 = 1_200_000;
/// Windows of the baseline for one of the candidate's.
const BESIDE: usize = 4;

/// What both groups had in one window, in one cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    /// When it began, Unix ms.
    pub(crate) at: i64,
    pub(crate) cluster: Name,
    pub(crate) candidate: Figures,
    pub(crate) baseline: Figures,
}

/// What comes of a look.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// There is something to compare the candidate with.
    pub(crate) comparable: bool,
    baseline: Figures,
    candidate: Figures,
}

/// The spell that a moment is in, from 0, and when it began.
pub(crate) fn spell_of(release: &Release, now: i64) -> (u32, i64) {
    let spell = (now - release.judged_from).max(0) / SPELL_MS;
    let begin = release.judged_from + spell * SPELL_MS;
    (u32::try_from(spell).unwrap_or(u32::MAX), begin)
}

/// Compares candidate and baseline in this spell.
pub(crate) fn judge(release: &Release, seen: &Seen<'_>) -> Judged {
    let (spell, begin) = spell_of(release, seen.now);
    let limits = release.plan.limits;
    let alpha = f64::from(limits.alpha.hundredths()) / 10_000.0;
    let (step, steps) = (usize::from(release.step), release.plan.steps.len());
    let mut comparison = Comparison::new(limits, Spend::of(alpha, step, steps, spell));
    let windows = || seen.windows.iter().filter(|window| window.at >= begin);
    let alone = release.percent == Percent::ALL;
    let mut history: Vec<&Window> = seen.before.iter().rev().collect();
    let mut at = None;
    for window in windows() {
        if at.is_some_and(|at| at != window.at) {
            comparison.end_window();
        }
        at = Some(window.at);
        if alone {
            let beside = earlier(&mut history, &window.cluster);
            if beside.requests() > 0 {
                comparison.add(&beside, &window.candidate);
            }
        } else {
            comparison.add(&window.baseline, &window.candidate);
        }
    }
    comparison.end_window();
    let mut candidate = Figures::default();
    windows().for_each(|window| candidate.merge(&window.candidate));
    // What the baseline had before does not grow: too little of it is not to be waited for.
    let had: u64 = seen.before.iter().map(|w| w.baseline.requests()).sum();
    Judged {
        verdict: comparison.verdict(),
        comparable: !alone || had >= limits.least_requests.max(1),
        baseline: comparison.figures().0.clone(),
        candidate,
    }
}

/// Takes the nearest windows of a cluster out of what is left of the time before.
fn earlier(history: &mut Vec<&Window>, cluster: &Name) -> Figures {
    let mut sum = Figures::default();
    for _ in 0..BESIDE {
        let Some(found) = history
            .iter()
            .rposition(|window| window.cluster == *cluster)
        else {
            break;
        };
        sum.merge(&history.remove(found).baseline);
    }
    sum
}

impl Judged {
    /// Requests of baseline and candidate.
    pub(crate) fn requests(&self) -> (u64, u64) {
        (self.baseline.requests(), self.candidate.requests())
    }

    /// Why the candidate is called worse, with the numbers; none: it is not.
    pub(super) fn why_worse(&self, release: &Release) -> Option<String> {
        let (name, at) = (&release.plan.candidate, release.percent);
        let share = f64::from(at.hundredths()) / 100.0;
        match self.verdict {
            Verdict::TooFew | Verdict::NotWorse => None,
            Verdict::MoreErrors => Some(format!(
                "`{name}` has more errors at {share} %: {} of its {} requests ({:.2} %), the baseline {} of {} \
                 ({:.2} %)",
                failed(&self.candidate),
                self.candidate.requests(),
                errors_percent(&self.candidate),
                failed(&self.baseline),
                self.baseline.requests(),
                errors_percent(&self.baseline),
            )),
            Verdict::Slower => {
                let p99 = |figures: &Figures| figures.latency.quantile(0.99).unwrap_or(0) as f64;
                Some(format!(
                    "`{name}` is slower at {share} %: P99 {:.1} ms over {} requests, the baseline {:.1} ms over {}",
                    p99(&self.candidate) / 1000.0,
                    self.candidate.requests(),
                    p99(&self.baseline) / 1000.0,
                    self.baseline.requests(),
                ))
            }
        }
    }

    /// As the API shows it.
    pub(crate) fn shown(&self, release: &Release, seen: &Seen<'_>) -> Analysis {
        let group = |figures: &Figures, ready| Shown {
            requests: figures.requests(),
            errors: failed(figures),
            errors_percent: errors_percent(figures),
            p99_us: figures.latency.quantile(0.99),
            ready,
        };
        Analysis {
            verdict: self.verdict,
            candidate: group(&self.candidate, seen.candidate_ready),
            baseline: group(&self.baseline, seen.baseline_ready),
            newest: seen.newest,
            waits_for: waits_for(release, seen, self),
        }
    }
}

fn errors_percent(figures: &Figures) -> f64 {
    let all = figures.requests();
    if all == 0 {
        return 0.0;
    }
    let share = failed(figures) as f64 / all as f64;
    (share * 1_000_000.0).round() / 10_000.0
}
