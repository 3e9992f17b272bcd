//! What was said of traffic while the database was away, and did not hold when it was back: an alarm until
//! somebody takes note of it, or says where that traffic is to go anew.
//!
//! Kept in a file beside the journal, so that a restart does not forget it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cardea_registry_api::{TrafficKey, api::Alarm};
use serde::{Deserialize, Serialize};

use crate::{files, state::State};

/// The alarm.
pub(crate) const CODE: &str = "away_write_lost";
/// The most that are kept: the latest.
const MOST: usize = 100;

/// A write that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// Of which traffic.
    pub(crate) key: TrafficKey,
    /// Whose.
    pub(crate) actor: String,
    /// Why it was said.
    pub(crate) reason: String,
    /// When it was said, Unix ms.
    pub(crate) said_at: i64,
    /// When it was found to be lost, Unix ms, and what the database's revision was then.
    pub(crate) noticed_at: i64,
    pub(crate) revision: u64,
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

    /// The alarm, if there is something to say: not of traffic that was written anew since.
    pub(crate) fn alarm(&self, state: &State, replica: &str) -> Option<Alarm> {
        let known = self.known();
        let anew = |lost: &Lost| {
            let there = state.traffic(&lost.key);
            there.is_some_and(|stored| stored.revision > lost.revision)
        };
        let mut standing: Vec<&Lost> = known.iter().filter(|lost| !anew(lost)).collect();
        let since = standing.iter().map(|lost| lost.noticed_at).min()?;
        // Of each object the last word.
        standing.reverse();
        let mut named: Vec<&TrafficKey> = Vec::new();
        standing.retain(|lost| {
            let new = !named.contains(&&lost.key);
            named.push(&lost.key);
            new
        });
        let each = standing.iter().map(|lost| {
            format!(
                "what {} said of traffic `{}` while the database was away ({}) does not hold: it had been changed in the database meanwhile",
                lost.actor, lost.key, lost.reason
            )
        });
        let message = format!(
            "{}. Look at `ctl get traffic`. It ends when that traffic is written anew, or with `ctl acknowledge {CODE}` at {replica}",
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
            key: key.parse().unwrap(),
            actor: actor.to_owned(),
            reason: "cut off".to_owned(),
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
