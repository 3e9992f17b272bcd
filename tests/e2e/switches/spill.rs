//! What is too much for one centre goes to the next one.

use cardea_registry_api::{Traffic, traffic::Failover};

use super::*;
use crate::gate;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_instances_say_that_they_cannot_serve_goes_to_the_other_centre() {
    let _machine = gate::shared().await;
    let (site, backends) = centres("switches-spill", Some(200)).await;
    let mut traffic = Traffic::of("dc-a".parse().unwrap());
    traffic.failover = Some(Failover::to(vec![name("dc-b")]));
    let client = site.client();
    let written = client.put_traffic(&traffic, Precondition::None).await;
    for router in &site.routers[..2] {
        router
            .wait_applied(written.as_ref().unwrap().revision)
            .await;
    }
    let background = load(&site, 500.0);
    // It can serve 200 of 500.
    let spilt = wait::until_ok("three in five leave", STAGE, || async {
        let share = share(&backends, &background, 1000).await;
        if (share - 60.0).abs() <= 3.0 {
            Ok(share)
        } else {
            Err(format!("{share}"))
        }
    })
    .await;
    println!("200 of 500 a second can be served: {spilt:.1} % leave");
    // As soon as it can serve them, they are back.
    register(&site, "dc-a", "shop", &backends[0], Some(1000)).await;
    wait::until_ok("all are back", STAGE, || async {
        let share = share(&backends, &background, 500).await;
        if share < 0.01 {
            Ok(())
        } else {
            Err(format!("{share}"))
        }
    })
    .await;
    background.stop().await.assert_clean();
}
