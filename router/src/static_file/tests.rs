use std::time::Instant;

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::fixtures::name;

fn manifest(ports: &[u16]) -> String {
    let instance = |port| format!("[[service.instance]]\naddress = \"127.0.0.1:{port}\"\n");
    let instances: Vec<String> = ports.iter().map(instance).collect();
    format!(
        "[[service]]\nname = \"s\"\n{}[[route]]\nhost = \"h\"\nservice = \"s\"\n",
        instances.concat()
    )
}

struct Served {
    dir: TempDir,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

impl Served {
    fn start(text: &str) -> Result<Self, Invalid> {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("f.toml"), text).unwrap();
        let shared = Arc::new(Shared::default());
        let path = dir.path().join("f.toml");
        let file = StaticFile::new(
            path,
            (name("dc"), None),
            crate::tls::Version::V12,
            Arc::clone(&shared),
        )?;
        let task = tokio::spawn(file.run());
        Ok(Self {
            dir,
            shared,
            task: Some(task),
        })
    }

    fn write(&self, text: &str) {
        fs::write(self.dir.path().join("f.toml"), text).unwrap();
    }

    fn peers(&self) -> usize {
        let table = self.shared.table_full().unwrap();
        table.upstreams().map(|u| u.members().len()).sum()
    }

    fn degraded(&self) -> Option<String> {
        self.shared.degraded().pop().map(|c| c.message)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "not in time: {what}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

#[tokio::test]
async fn serves_and_follows_edits_and_keeps_peers() {
    let served = Served::start(&manifest(&[9001])).unwrap();
    assert_eq!(served.peers(), 1);
    let number = |served: &Served| {
        let table = served.shared.table_full().unwrap();
        table.upstreams().next().unwrap().members()[0].number()
    };
    let first = number(&served);
    served.write(&manifest(&[9001, 9002]));
    served.until("reloaded", |s| s.peers() == 2).await;
    assert_eq!(number(&served), first);
    // Of the same length, and within the same tick of a coarse clock.
    served.write(&manifest(&[9001, 9003]));
    served
        .until("reloaded again", |s| {
            let table = s.shared.table_full().unwrap();
            let upstream = table.upstreams().next().unwrap();
            upstream.members()[1].peer.address().port() == 9003
        })
        .await;
}

#[tokio::test]
async fn a_bad_edit_keeps_the_last_good_file_and_says_what_is_wrong() {
    let served = Served::start(&manifest(&[9001])).unwrap();
    for (bad, word) in [
        ("[[service]\n", "TOML"),
        ("[[servise]]\nname = \"s\"\n", "did you mean `service`"),
        (
            "[[route]]\nhost = \"h\"\nservice = \"x\"\n",
            "no service `x`",
        ),
    ] {
        served.write(bad);
        served
            .until(word, |s| s.degraded().is_some_and(|m| m.contains(word)))
            .await;
        assert_eq!(served.peers(), 1);
    }
    fs::remove_file(served.dir.path().join("f.toml")).unwrap();
    served
        .until("gone", |s| {
            s.degraded().is_some_and(|m| m.contains("cannot read"))
        })
        .await;
    assert_eq!(served.peers(), 1);
    served.write(&manifest(&[9001]));
    served.until("good again", |s| s.degraded().is_none()).await;
}

#[tokio::test]
async fn a_first_file_that_is_bad_is_an_error_that_names_the_field() {
    let error = Served::start("[[route]]\nhost = \"h\"\nservice = \"x\"\n")
        .err()
        .unwrap();
    assert_eq!(error.errors[0].field, "route[0].service");
    assert!(error.to_string().contains("f.toml"), "{error}");
}

#[test]
fn yaml_and_json_by_name() {
    let yaml = b"service:\n- name: s\nroute:\n- host: h\n  service: s\n";
    let json = br#"{"service":[{"name":"s"}],"route":[{"host":"h","service":"s"}]}"#;
    for (path, text) in [("f.yaml", &yaml[..]), ("f.yml", yaml), ("f.json", json)] {
        let parsed = parse(Path::new(path), text, &name("dc"), &[]).unwrap();
        assert_eq!(parsed.objects.len(), 2, "{path}");
    }
    assert!(parse(Path::new("f.toml"), yaml, &name("dc"), &[]).is_err());
}
