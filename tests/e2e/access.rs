//! Who may do what: tokens with roles, bound to services; clusters apart from one another; TLS.

use std::{path::Path, time::Duration};

use cardea_registry_api::{
    Service, Span,
    api::{NewToken, Registration, Role},
    client::{Client, ClientConfig, ClientError, InstanceQuery, Precondition},
    problem::Code,
};
use cardea_tests::{
    backend::Backend,
    site::{CLUSTER, Registry, RegistrySetup, SOON, Site, Token, client_of, key, name, register},
    wait,
};

use crate::gate;

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>, code: Code) {
    let error = answer.unwrap_err();
    assert_eq!(error.code(), Some(code), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_does_what_its_role_and_services_cover_and_no_more() {
    let _machine = gate::shared().await;
    let mut site = Site::empty("tokens");
    site.add_registry(|setup| setup).await;
    let api = site.registries[0].api();
    let with = |token: Token| client_of([api], token);
    let registration = Registration::at("10.0.0.1:9001".parse().unwrap());
    let (bound, other) = (key(CLUSTER, "bound", "one"), key(CLUSTER, "other", "one"));

    let agent = with(Token::BoundAgent);
    agent.register(&bound, &registration).await.unwrap();
    agent.renew(&bound).await.unwrap();
    refused(agent.register(&other, &registration).await, Code::Forbidden);
    refused(
        agent
            .put_service(&Service::named(name("x")), Precondition::None)
            .await,
        Code::Forbidden,
    );
    with(Token::Agent)
        .register(&other, &registration)
        .await
        .unwrap();
    refused(
        agent.deregister(&other, Span::secs(0)).await,
        Code::Forbidden,
    );

    let viewer = with(Token::Viewer);
    assert_eq!(
        viewer
            .instances(&InstanceQuery::default())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    refused(
        viewer.register(&bound, &registration).await,
        Code::Forbidden,
    );
    refused(
        viewer
            .tokens(&cardea_registry_api::client::PageQuery::default())
            .await,
        Code::Forbidden,
    );
    refused(
        with(Token::Router).register(&bound, &registration).await,
        Code::Forbidden,
    );
    let operator = with(Token::Operator);
    operator
        .put_service(&Service::named(name("x")), Precondition::None)
        .await
        .unwrap();
    refused(
        operator
            .put_service(&Service::named(name("x")), Precondition::None)
            .await,
        Code::PreconditionRequired,
    );
    refused(
        operator
            .put_service(&Service::named(name("x")), Precondition::Revision(1))
            .await,
        Code::PreconditionFailed,
    );

    // Made, used, deleted: from then on unknown, also after a restart.
    let admin = with(Token::Admin);
    let new = NewToken {
        name: name("ci"),
        role: Role::Viewer,
        services: Vec::new(),
    };
    refused(operator.create_token(&new).await, Code::Forbidden);
    let made = admin.create_token(&new).await.unwrap();
    let fresh = || {
        let config = ClientConfig {
            addresses: vec![format!("http://{api}")],
            token: made.token.clone(),
            ..ClientConfig::default()
        };
        Client::new(&config).unwrap()
    };
    fresh().status().await.unwrap();
    site.registries[0].stop().await;
    site.registries[0].resume().await;
    fresh().status().await.unwrap();
    admin.delete_token(&name("ci")).await.unwrap();
    refused(fresh().status().await, Code::Unauthenticated);
    let log = std::fs::read_to_string(site.scratch.join("registry-1.log")).unwrap();
    for secret in [made.token.as_str(), &Token::Admin.secret()] {
        assert!(!log.contains(secret), "a token's secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_serves_its_own_cluster_only() {
    let _machine = gate::shared().await;
    let mut site = Site::empty("clusters");
    site.add_registry(|setup| setup).await;
    site.add_router(|setup| setup.cluster("dc-a")).await;
    site.add_router(|setup| setup.cluster("dc-b")).await;
    site.route("shop.test", "shop", |_| {}).await;
    let (a, b) = (Backend::start("in-a").await, Backend::start("in-b").await);
    // A router's feed has its own cluster's revisions only.
    let written = register(&site.client(), "dc-a", "shop", "one", a.address()).await;
    site.routers[0].wait_applied(written.revision).await;
    let written = register(&site.client(), "dc-b", "shop", "one", b.address()).await;
    site.routers[1].wait_applied(written.revision).await;
    for (router, own) in site.routers.iter().zip(["in-a", "in-b"]) {
        for _ in 0..20 {
            let answer = router.get("shop.test", "/").await;
            assert!(answer.text().starts_with(own), "{}", answer.text());
        }
    }
    // What goes in one cluster is not waited for in the other.
    site.routers[1].kill();
    let gone = site
        .client()
        .deregister(&key("dc-a", "shop", "one"), Span::secs(8))
        .await
        .unwrap();
    assert_eq!(gone.pending, Vec::<String>::new());
    assert_eq!(gone.acknowledged, ["router-1"]);
    assert_eq!(site.routers[0].get("shop.test", "/").await.status, 503);
}

/// A new authority, and a certificate of it for the loopback address.
fn certificate(cert: &Path, key: &Path, ca: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let own_key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let own_cert = own.signed_by(&own_key, &issuer).unwrap();
    std::fs::write(ca, authority_cert.pem()).unwrap();
    std::fs::write(key, own_key.serialize_pem()).unwrap();
    std::fs::write(cert, own_cert.pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_speaks_tls_and_takes_a_new_certificate_without_a_restart() {
    let _machine = gate::shared().await;
    let site = Site::empty("tls");
    let file = |name: &str| site.scratch.join(name);
    let (cert, secret) = (file("cert.pem"), file("key.pem"));
    certificate(&cert, &secret, &file("old-ca.pem"));
    let tables = format!(
        "[tls]\ncert = \"{}\"\nkey = \"{}\"\n",
        cert.display(),
        secret.display()
    );
    let setup = RegistrySetup::new("registry-1", None).tables(&tables);
    let registry = Registry::start(setup, site.dir()).await;
    let trusting = |ca: &str| {
        let config = ClientConfig {
            addresses: vec![format!("https://{}", registry.api())],
            token: Token::Admin.secret(),
            ca_file: Some(file(ca)),
            ..ClientConfig::default()
        };
        Client::new(&config).unwrap()
    };
    trusting("old-ca.pem").status().await.unwrap();
    let plain = client_of([registry.api()], Token::Admin).status().await;
    assert!(plain.is_err(), "plain HTTP is answered on the TLS port");

    // A certificate that does not fit its key changes nothing; the next good one does.
    std::fs::write(&cert, "no certificate").unwrap();
    wait::pass(Duration::from_millis(500)).await;
    trusting("old-ca.pem").status().await.unwrap();
    certificate(&cert, &secret, &file("new-ca.pem"));
    wait::until_ok("the new certificate is used", SOON, || async {
        trusting("new-ca.pem")
            .status()
            .await
            .map_err(|e| e.to_string())
    })
    .await;
    assert!(
        trusting("old-ca.pem").status().await.is_err(),
        "the old certificate is still there"
    );
}
