//! What a follower says when something is not as it should be.

use super::Sync;

impl Sync {
    /// Says that something is not as it should be, or no longer is; whether that is news. What is said of
    /// another cluster is an alarm: the own one may be served as ever.
    pub(super) fn degrade(&self, code: &'static str, why: Option<String>) -> bool {
        if self.other.is_none() {
            return self.shared.set_degraded(code, why);
        }
        self.alarm(code, why.map(|why| (String::new(), why)));
        false
    }

    /// An alarm about what a registry said, or that there is none; first which registry.
    pub(super) fn alarm(&self, code: &str, what: Option<(String, String)>) {
        let about = |registry: String| match registry.as_str() {
            "" => "its set".to_owned(),
            registry => format!("the update from {registry}"),
        };
        let alarms = what.map(|(registry, why)| (about(registry), why));
        if self.other.is_none() {
            return self.shared.set_alarms(code, alarms);
        }
        let cluster = &self.settings.cluster;
        let named = alarms.map(|(about, why)| (format!("cluster `{cluster}`: {about}"), why));
        self.shared
            .set_alarms(&format!("{code} cluster {cluster}"), named);
    }
}
