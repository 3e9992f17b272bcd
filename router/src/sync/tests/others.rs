//! Other clusters, which traffic names.

use cardea_registry_api::{Traffic, TrafficKey};

use super::*;

fn traffic(to: &str) -> Traffic {
    let mut traffic = Traffic::of(TrafficKey {
        cluster: name("dc"),
        service: None,
    });
    traffic.weights.insert(name(to), 100);
    traffic
}

fn away(number: usize) -> cardea_registry_api::Instance {
    let mut away = instance("s", number, 100);
    away.cluster = name("b");
    away
}

/// Three instances here, two there, and everything goes there.
fn led() -> Running {
    let registry = Fake::start(filled());
    let fake = &registry.fake;
    fake.change(|r| r.put(kind::TRAFFIC, "dc", &traffic("b")));
    fake.other.send_modify(|r| {
        // What is in every feed, too: it is of no use.
        r.put(kind::ROUTE, "r", &route("r", "h", "/", "s"));
        r.instance(&away(50));
        r.instance(&away(51));
    });
    registry
}

fn everybody(shared: &Shared) -> usize {
    let table = shared.table_full();
    table.map_or(0, |t| t.upstreams().map(|u| u.everybody().count()).sum())
}

fn acknowledged(fake: &Fake) -> Option<u64> {
    let asked = fake.asked_of_other.lock().unwrap();
    let mut asked = asked.iter().rev();
    asked.find_map(|q| q.get("after")?.parse().ok())
}

#[tokio::test]
async fn what_traffic_names_is_followed_and_acknowledged_until_it_is_named_no_more() {
    let registry = led();
    let router = follow(&[registry.address], None);
    let fake = &registry.fake;
    // From the first table on.
    until("first table", || router.revision() > 0).await;
    assert_eq!(everybody(&router.shared), 5);
    for number in 60..70 {
        fake.other.send_modify(|r| r.instance(&away(number)));
        let revision = fake.other.borrow().revision;
        until("acknowledged", || acknowledged(fake) == Some(revision)).await;
        assert_eq!(
            everybody(&router.shared),
            6 + number - 60,
            "not before it was applied"
        );
    }
    let asked = fake.asked_of_other.lock().unwrap().clone();
    let named = asked.iter().filter(|q| q.contains_key("router"));
    assert!(
        named.into_iter().all(|q| q["router"] == "dc/r1"),
        "{asked:?}"
    );
    fake.other
        .send_modify(|r| r.remove(kind::INSTANCE, &away(60).key().to_string()));
    until("one less", || everybody(&router.shared) == 14).await;

    fake.change(|r| r.put(kind::TRAFFIC, "dc", &traffic("dc")));
    until("it is let go", || everybody(&router.shared) == 3).await;
    let said = || fake.farewells_of.lock().unwrap().clone();
    until("goodbye", || said() == ["dc/r1 of b"]).await;
    fake.change(|r| r.put(kind::TRAFFIC, "dc", &traffic("b")));
    until("it is there again", || everybody(&router.shared) == 14).await;
    let fake = fake.clone();
    router.stop().await;
    let mut said = fake.farewells_of.lock().unwrap().clone();
    said.sort();
    assert_eq!(said, ["dc/r1 of b", "dc/r1 of b", "r1 of dc"]);
}

#[tokio::test]
async fn without_a_registry_the_copies_on_disk_serve() {
    let dir = TempDir::new().unwrap();
    let registry = led();
    let address = registry.address;
    let router = follow(&[address], Some(&dir));
    until("first table", || everybody(&router.shared) == 5).await;
    router.stop().await;
    drop(registry);
    let shared = Arc::new(Shared::default());
    let sync = Sync::new(settings(&[address], Some(&dir)), Arc::clone(&shared), &[]).unwrap();
    assert_eq!(everybody(&shared), 5, "before anything has run");
    // And what takes over from it has the same without a disk.
    let handed = sync.handle().tables();
    assert_eq!(handed.len(), 2);
    let successor = Arc::new(Shared::default());
    let sync = Sync::new(settings(&[address], None), Arc::clone(&successor), &handed).unwrap();
    assert_eq!(everybody(&successor), 5);
    assert_eq!(successor.table_full().unwrap().origin, Origin::HandedOver);
    drop(sync);
}

#[tokio::test]
async fn another_history_of_another_cluster_empties_nothing() {
    let registry = led();
    let router = follow(&[registry.address], None);
    until("first table", || everybody(&router.shared) == 5).await;
    registry.fake.other.send_modify(|r| {
        *r = Registry::of("b", "e2");
        r.instance(&away(52));
    });
    until("both", || everybody(&router.shared) == 6).await;
    let alarms = router.alarms();
    assert_eq!(alarms, ["retained cluster b"]);
    registry.fake.other.send_modify(|r| {
        r.accepted = true;
        r.revision += 1;
    });
    until("accepted", || everybody(&router.shared) == 4).await;
    router.stop().await;
}

#[tokio::test]
async fn a_follower_that_dies_is_started_again_and_its_instances_stay() {
    let registry = led();
    let shared = Arc::new(Shared::default());
    let settings = settings(&[registry.address], None);
    let sync = Sync::new(settings, Arc::clone(&shared), &[]).unwrap();
    let company = sync.handle().company;
    let router = Follower::of(sync, shared);
    until("first table", || everybody(&router.shared) == 5).await;
    company.deadly.store(true, Ordering::SeqCst);
    let other = &registry.fake.other;
    other.send_modify(|r| r.instance(&away(60)));
    until("it dies", || !company.deadly.load(Ordering::SeqCst)).await;
    assert_eq!(everybody(&router.shared), 5);
    other.send_modify(|r| r.instance(&away(61)));
    until("it follows again", || everybody(&router.shared) == 7).await;
    router.stop().await;
}
