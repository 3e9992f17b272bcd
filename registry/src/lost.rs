//! What was said of traffic and releases while the database was away, and did not hold when it was back: an
//! alarm until somebody takes note of it, or what was meant is done anew.
//!
//! Kept in a file beside the journal, so that a restart does not forget it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cardea_registry_api::{Name, TrafficKey, api::Alarm, release::ReleaseState};
use serde::{Deserialize, Serialize};

use crate::{files, state::State};

/// The alarm.
pub(crate) const CODE: &str = "away_write_lost";
/// The most that are kept: the latest.
const MOST: usize = 100;

/// What somebody meant to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Meant {
    /// Where the requests of a cluster, or of a service there, go.
    #[serde(rename = "key")]
    Traffic(TrafficKey),
    /// That a release is rolled back.
    #[serde(rename = "release")]
    Rollback(Name),
}

impl Meant {
    /// Whether it was done anew after a revision, or by somebody else.
    fn is_done(&self, state: &State, after: u64) -> bool {
        match self {
            Self::Traffic(key) => {
                let there = state.traffic(key);
                there.is_some_and(|stored| stored.revision > after)
            }
            Self::Rollback(id) => {
                let there = state.release(id.as_str());
                there.is_some_and(|stored| stored.object.state == ReleaseState::RolledBack)
            }
        }
    }
}

/// A write that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// Of what.
    #[serde(flatten)]
    pub(crate) meant: Meant,
    /// Whose.
    pub(crate) actor: String,
    /// Why it was said.
    pub(crate) reason: String,
    /// Why it does not hold; in lists of older programs not said.
    #[serde(default)]
    pub(crate) refused: String,
    /// When it was said, Unix ms.
    pub(crate) said_at: i64,
    /// When it was found to be lost, Unix ms, and what the database's revision was then.
    pub(crate) noticed_at: i64,
    pub(crate) revision: u64,
}

impl Lost {
    fn said(&self) -> String {
        let Self { actor, reason, .. } = self;
        match &self.meant {
            Meant::Traffic(key) => format!(
                "what {actor} said of traffic `{key}` while the database was away ({reason}) does not hold: it had been changed in the database meanwhile"
            ),
            Meant::Rollback(id) => format!(
                "that {actor} rolled release `{id}` back while the database was away ({reason}) does not hold: {}",
                self.refused
            ),
        }
    }
}

/// Those that nobody has taken note of.
#[derive(Debug)]
pub(crate) struct LostWrites {
    path: PathBuf,
    known: Mutex<Vec<Lost>>,
}

impl LostWrites {
    /// What a directory remembers. A file that cannot be read is set aside.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("lost-writes.json");
        let known = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(known) => known,
                Err(error) => {
                    let aside = files::set_aside(&path)?;
                    tracing::error!(aside = %aside.display(), %error,
                        "the list of lost writes is damaged; it is set aside");
                    Vec::new()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            path,
            known: Mutex::new(known),
        })
    }

    fn known(&self) -> MutexGuard<'_, Vec<Lost>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some were lost. They are known at once, and on disk when it returns.
    pub(crate) fn add(&self, lost: Vec<Lost>) -> io::Result<()> {
        let bytes = {
            let mut known = self.known();
            known.extend(lost);
            let beyond = known.len().saturating_sub(MOST);
            known.drain(..beyond);
            serde_json::to_vec(&*known)?
        };
        files::write_atomically(&self.path, &bytes)
    }

    /// Somebody has taken note of all that are known; whether there were any.
    pub(crate) fn acknowledge(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => files::sync_parent(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(!std::mem::take(&mut *self.known()).is_empty())
    }

    /// The alarm, if there is something to say: not of what was done anew since.
    pub(crate) fn alarm(&self, state: &State, replica: &str) -> Option<Alarm> {
        let known = self.known();
        let mut standing: Vec<&Lost> = (known.iter())
            .filter(|lost| !lost.meant.is_done(state, lost.revision))
            .collect();
        let since = standing.iter().map(|lost| lost.noticed_at).min()?;
        // Of each object the last word.
        standing.reverse();
        let mut named: Vec<&Meant> = Vec::new();
        standing.retain(|lost| {
            let new = !named.contains(&&lost.meant);
            named.push(&lost.meant);
            new
        });
        let each = standing.iter().map(|lost| lost.said());
        let of_traffic = |lost: &&Lost| matches!(lost.meant, Meant::Traffic(_));
        let (look, done) = match (
            standing.iter().any(of_traffic),
            standing.iter().all(of_traffic),
        ) {
            (true, true) => ("`ctl get traffic`", "that traffic is written anew"),
            (false, _) => ("`ctl release status`", "that release is rolled back"),
            (true, false) => (
                "`ctl get traffic` and `ctl release status`",
                "that traffic is written anew and that release rolled back",
            ),
        };
        let message = format!(
            "{}. Look at {look}. It ends when {done}, or with `ctl acknowledge {CODE}` at {replica}",
            each.collect::<Vec<_>>().join("; ")
        );
        Some(Alarm {
            code: CODE.to_owned(),
            message,
            since,
        })
    }
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::{Cluster, Traffic};

    use super::*;
    use crate::{
        change::{Change, Expected},
        state::tests::{fresh, name},
    };

    fn lost(key: &str, actor: &str, revision: u64) -> Lost {
        Lost {
            meant: Meant::Traffic(key.parse().unwrap()),
            actor: actor.to_owned(),
            reason: "cut off".to_owned(),
            refused: String::new(),
            said_at: 1,
            noticed_at: 2,
            revision,
        }
    }

    #[test]
    fn it_is_said_until_somebody_takes_note_or_writes_anew_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = fresh();
        let one = LostWrites::open(dir.path()).unwrap();
        assert_eq!(one.alarm(&state, "r"), None);
        assert!(!one.acknowledge().unwrap());
        let more = vec![
            lost("a", "ann", 7),
            lost("a", "bob", 7),
            lost("b/s", "ann", 7),
        ];
        one.add(more).unwrap();
        drop(one);
        let one = LostWrites::open(dir.path()).unwrap();
        let said = one.alarm(&state, "r-2").unwrap();
        assert_eq!((said.code.as_str(), said.since), (CODE, 2));
        assert!(
            said.message.starts_with(
                "what ann said of traffic `b/s` while the database was away (cut off) does not hold"
            ) && said.message.contains("what bob said of traffic `a`")
                && !said.message.contains("what ann said of traffic `a`")
                && said
                    .message
                    .ends_with("with `ctl acknowledge away_write_lost` at r-2"),
            "{said:?}"
        );
        let cluster = |one: &str| Change::PutCluster {
            cluster: Cluster::named(name(one)),
            expected: Expected::Any,
        };
        let put = Change::PutTraffic {
            traffic: Box::new(Traffic::of("a".parse().unwrap())),
            expected: Expected::Any,
        };
        state.apply_all(&[cluster("a"), cluster("b")], 1).unwrap();
        state.revision = 7;
        state.apply_all(&[put], 1).unwrap();
        let said = one.alarm(&state, "r").unwrap();
        assert!(!said.message.contains("`a`"), "{said:?}");
        assert!(one.acknowledge().unwrap());
        assert_eq!(one.alarm(&state, "r"), None);
        assert_eq!(
            LostWrites::open(dir.path()).unwrap().alarm(&state, "r"),
            None
        );
    }

    #[test]
    fn a_rollback_is_said_too_and_lists_of_older_programs_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let older = r#"[{"key":"b/s","actor":"ann","reason":"cut off","said_at":1,"noticed_at":2,"revision":7}]"#;
        fs::write(dir.path().join("lost-writes.json"), older).unwrap();
        let one = LostWrites::open(dir.path()).unwrap();
        let rollback = Lost {
            meant: Meant::Rollback(name("shop-1")),
            reason: "errors".to_owned(),
            refused: "there is no release `shop-1`".to_owned(),
            ..lost("a", "bob", 7)
        };
        one.add(vec![rollback]).unwrap();
        for one in [&one, &LostWrites::open(dir.path()).unwrap()] {
            let said = one.alarm(&fresh(), "r").unwrap().message;
            assert_eq!(
                said,
                "that bob rolled release `shop-1` back while the database was away (errors) does not hold: \
                 there is no release `shop-1`; \
                 what ann said of traffic `b/s` while the database was away (cut off) does not hold: \
                 it had been changed in the database meanwhile. \
                 Look at `ctl get traffic` and `ctl release status`. It ends when that traffic is written anew \
                 and that release rolled back, or with `ctl acknowledge away_write_lost` at r"
            );
        }
    }

    #[test]
    fn a_damaged_list_is_set_aside_and_a_long_one_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lost-writes.json"), "[{").unwrap();
        let one = LostWrites::open(dir.path()).unwrap();
        assert_eq!(one.alarm(&fresh(), "r"), None);
        let files = fs::read_dir(dir.path()).unwrap().flatten();
        let aside = files.filter(|f| f.file_name().to_string_lossy().contains("damaged"));
        assert_eq!(aside.count(), 1);
        let many = (0..MOST + 5).map(|n| lost(&format!("c{n}"), "ann", 1));
        one.add(many.collect()).unwrap();
        let said = one.alarm(&fresh(), "r").unwrap().message;
        assert!(!said.contains("`c4`") && said.contains("`c5`"), "{said}");
    }
}
