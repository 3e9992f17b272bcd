//! The database is gone, at 3 a.m. and in the middle of a release.

use cardea_registry_api::api;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_back_at_the_baseline_though_the_database_is_gone() {
    let _machine = gate::shared().await;
    let mut shop = Shop::start(Site::on_postgres("release-away", 1, 1).await).await;
    let id = shop.begin(&plan(&["50:manual", "100:manual"])).await;
    shop.applied().await;
    let load = shop.load(100.0);
    load.pass(100, SOON).await;
    let postgres = shop.site.postgres.as_mut().unwrap();
    postgres.stop_immediate().await;
    let registry = &shop.site.registries[0];
    registry.wait_mode(api::Mode::DatabaseLost, SOON).await;
    let no = ctl(&shop.site, &["release", "rollback", "--yes"]);
    let said = String::from_utf8(no.stderr).unwrap();
    assert!(
        !no.status.success() && said.contains("the database is away"),
        "{said}"
    );
    let away = ["release", "rollback", "--while-away", "--yes"];
    let said = ok(&shop.site, &[&away[..], &["--reason", "errors"]].concat());
    assert!(
        said.contains("rolled-back") && said.contains("note: kept"),
        "{said}"
    );
    let (old, new) = shop.answered(200).await;
    assert!(old >= 200);
    assert_eq!(new, 0);
    let postgres = shop.site.postgres.as_mut().unwrap();
    postgres.resume().await;
    let registry = &shop.site.registries[0];
    registry.wait_mode(api::Mode::Ok, SOON).await;
    let stands = shop.see(&id).await;
    assert_eq!(state(&stands), ReleaseState::RolledBack);
    assert_eq!(stands.release.why.as_deref(), Some("errors"));
    let postgres = shop.site.postgres.as_ref().unwrap();
    let written = format!("SELECT kind FROM changes WHERE cause = 'release {id}'");
    let kinds = postgres.texts(&written).await;
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "plugin").count(),
        2,
        "{kinds:?}"
    );
    let (old, new) = shop.answered(200).await;
    assert!(old >= 200);
    assert_eq!(new, 0);
    load.stop().await.assert_clean();
}
