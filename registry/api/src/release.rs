//! Releases: a service's traffic moves from one group of its instances to another, in steps.
//!
//! A [`ReleasePlan`] says what is wanted; the registry makes a [`Release`] of it, which it drives and keeps
//! ([`state`]). What moves the requests is a plugin of the service's: a release writes its own rule, side or
//! weights there, and leaves everything else in it alone.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Invalid, Name, Span, cluster::MAX_TEXT, invalid::Check, name::parse_from_str, plugin::Percent,
    policy::HashKey,
};

pub mod state;

pub use state::{
    Analysis, Event, Happened, Order, OrderRequest, Release, ReleaseAnswer, ReleaseInfo,
    ReleasePreview, ReleaseState, Shown, Verdict,
};

/// The most steps of a release.
pub const MAX_STEPS: usize = 20;
/// The longest pause of a step: longer ones are for people.
pub const LONGEST_PAUSE: Span = Span::secs(24 * 3600);

/// `POST /v1/releases`: what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleasePlan {
    /// Whose traffic moves, in all clusters.
    pub service: Name,
    /// Whereto: a group of the service; with `ab`, a variant of the experiment.
    pub candidate: Name,
    /// Wherefrom. Default: the group that requests go to now, as the plugin says; without one `baseline`.
    #[serde(default)]
    pub baseline: Option<Name>,
    /// By a share of requests, or of callers. What is done if nothing else is said.
    #[serde(default)]
    pub gray: Option<ByShare>,
    /// By making the other side live, all at once.
    #[serde(default)]
    pub blue_green: Option<BySide>,
    /// By the weights of an experiment's variants.
    #[serde(default)]
    pub ab: Option<ByWeights>,
    /// The plugin that is moved. Default: the service's own of this kind; a gray or blue-green release
    /// makes one where there is none.
    #[serde(default)]
    pub plugin: Option<Name>,
    /// The candidate's share, step by step, up to 100 %. Default: 25 % and 50 % for a minute each, then
    /// all; with `blue_green` all at once, watched for a minute.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub steps: Vec<Step>,
    /// When the candidate is called worse.
    #[serde(default)]
    pub limits: Limits,
    /// What is done when it is, or when it has nobody left who takes requests. Default `rollback`.
    #[serde(default)]
    pub on_worse: OnWorse,
    /// Why it is done; kept.
    pub reason: String,
}

/// A release by share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ByShare {
    /// What a caller is known by: the same one sees the same version, and a larger share only adds callers;
    /// those without it stay with the baseline until the last step. Default: requests are drawn by lot.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^(client|path|(header|cookie|query|jwt):.+)$"))]
    pub key: Option<HashKey>,
}

/// A release by side.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BySide {}

/// A release of an experiment's winner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ByWeights {
    /// Which experiment of the plugin.
    pub experiment: Name,
}

/// How a release moves requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How<'a> {
    /// By a share.
    Gray(Option<&'a HashKey>),
    /// By side.
    BlueGreen,
    /// By weights of an experiment.
    Ab(&'a Name),
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ReleaseStep))]
pub struct Step {
    /// The candidate's share, in percent.
    #[cfg_attr(feature = "openapi", schema(value_type = f64, minimum = 0, maximum = 100))]
    pub percent: Percent,
    /// How long it is watched at least before the next one, or `manual`: until somebody says so. Default 1m.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1m"))]
    pub pause: Pause,
}

/// How long a step lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// So long, and until there is a sample.
    For(Span),
    /// Until somebody promotes it.
    Manual,
}

/// What is done when the candidate is called worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnWorse {
    /// All requests go back to the baseline.
    #[default]
    Rollback,
    /// The release pauses at its share, and waits for somebody.
    Pause,
}

/// When a candidate is called worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ReleaseLimits))]
#[serde(default)]
pub struct Limits {
    /// Of a hundred releases with nothing wrong, at most so many are called worse by mistake, over all steps
    /// and looks. 0.01 to 10. Default 1.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub alpha: Percent,
    /// Requests that candidate and baseline each must have had in a step before anything is said of it, and
    /// before the next one. Default 50.
    pub least_requests: u64,
    /// A share of 5xx that is larger by fewer points than this is no reason. Default 0.5.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub tolerated_errors: Percent,
    /// A P99 that is longer by less than so many percent is no reason. Default 20.
    pub tolerated_p99: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            alpha: Percent::from_hundredths(100).unwrap_or_default(),
            least_requests: 50,
            tolerated_errors: Percent::from_hundredths(50).unwrap_or_default(),
            tolerated_p99: 20,
        }
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self::For(Span::secs(60))
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(span) => write!(f, "{span}"),
            Self::Manual => f.write_str("manual"),
        }
    }
}

impl FromStr for Pause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "manual" {
            return Ok(Self::Manual);
        }
        text.parse().map(Self::For).map_err(|_| {
            format!("`{text}` is no pause: write a time such as 30s or 5m, or `manual`")
        })
    }
}

impl Serialize for Pause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_from_str(deserializer)
    }
}

impl FromStr for Step {
    type Err = String;

    /// As the command line has it: `25:1m`, `50:manual`, `100`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (percent, pause) = match text.split_once(':') {
            None => (text, Pause::default()),
            Some((percent, pause)) => (percent, pause.parse()?),
        };
        let value: Percent = serde_json::from_str(percent).map_err(|_| {
            format!(
                "`{text}` is no step: write PERCENT or PERCENT:PAUSE, such as 25:1m or 50:manual"
            )
        })?;
        Ok(Self {
            percent: value,
            pause,
        })
    }
}

impl ReleasePlan {
    /// A gray release with every default.
    pub fn of(service: Name, candidate: Name, reason: &str) -> Self {
        Self {
            service,
            candidate,
            baseline: None,
            gray: None,
            blue_green: None,
            ab: None,
            plugin: None,
            steps: Vec::new(),
            limits: Limits::default(),
            on_worse: OnWorse::default(),
            reason: reason.to_owned(),
        }
    }

    /// How it moves requests.
    pub fn how(&self) -> How<'_> {
        match (&self.gray, &self.blue_green, &self.ab) {
            (_, _, Some(ab)) => How::Ab(&ab.experiment),
            (_, Some(_), _) => How::BlueGreen,
            (gray, _, _) => How::Gray(gray.as_ref().and_then(|gray| gray.key.as_ref())),
        }
    }

    /// The steps that it has, those of the default where it says none.
    pub fn steps(&self) -> Vec<Step> {
        if !self.steps.is_empty() {
            return self.steps.clone();
        }
        let step = |hundredths, pause| Step {
            percent: Percent::from_hundredths(hundredths).unwrap_or_default(),
            pause: Pause::For(pause),
        };
        let minute = Span::secs(60);
        match self.how() {
            How::BlueGreen => vec![step(10_000, minute)],
            How::Gray(_) | How::Ab(_) => vec![
                step(2500, minute),
                step(5000, minute),
                step(10_000, Span::secs(0)),
            ],
        }
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let reason = self.reason.trim();
        check.ensure(
            !reason.is_empty() && self.reason.len() <= MAX_TEXT,
            "reason",
            format!("say why, in at most {MAX_TEXT} bytes: whoever looks at 3 a.m. will ask"),
        );
        let ways = [
            ("gray", self.gray.is_some()),
            ("blue_green", self.blue_green.is_some()),
            ("ab", self.ab.is_some()),
        ];
        let mut given = ways.iter().filter(|(_, given)| *given);
        let second = given.by_ref().nth(1);
        check.ensure(
            second.is_none(),
            second.map_or("", |(field, _)| field),
            "a release moves requests in one way: give one of `gray`, `blue_green` and `ab`",
        );
        let ab = self.ab.is_some();
        check.ensure(
            !ab || self.baseline.is_none(),
            "baseline",
            "with `ab` all other variants are what the candidate is compared with: leave it out",
        );
        check.ensure(
            self.baseline.as_ref() != Some(&self.candidate),
            "candidate",
            "another group than `baseline`",
        );
        self.check_steps(&mut check);
        check.merge("limits", self.limits.check());
        check.finish()
    }

    fn check_steps(&self, check: &mut Check) {
        check.ensure(
            self.steps.len() <= MAX_STEPS,
            "steps",
            format!("at most {MAX_STEPS}"),
        );
        let mut before = 0;
        for (i, step) in self.steps.iter().enumerate() {
            let percent = step.percent.hundredths();
            check.ensure(
                percent > before,
                &format!("steps[{i}].percent"),
                "more than the step before: shares only grow",
            );
            before = percent;
            let fine = match step.pause {
                Pause::For(span) => span <= LONGEST_PAUSE,
                Pause::Manual => true,
            };
            check.ensure(
                fine,
                &format!("steps[{i}].pause"),
                "at most 24h; for longer write `manual`",
            );
        }
        if let Some(last) = self.steps.len().checked_sub(1) {
            check.ensure(
                self.steps[last].percent == Percent::ALL,
                &format!("steps[{last}].percent"),
                "the last step is 100: a release ends with all requests at the candidate",
            );
            check.ensure(
                self.blue_green.is_none() || last == 0,
                "steps",
                "a side is live or is not: one step, { percent = 100, pause = \"1m\" }; for shares \
                 leave out `blue_green`",
            );
        }
    }
}

impl Limits {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            (1..=1000).contains(&self.alpha.hundredths()),
            "alpha",
            "0.01 to 10: of a hundred releases with nothing wrong, so many may be called worse",
        );
        check.ensure(
            (1..=1_000_000).contains(&self.least_requests),
            "least_requests",
            "1 to 1,000,000",
        );
        check.ensure(
            self.tolerated_p99 <= 10_000,
            "tolerated_p99",
            "0 to 10000, in percent",
        );
        check.finish()
    }
}

#[cfg(test)]
mod tests;
