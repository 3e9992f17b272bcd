//! Certificates: whatever is asked, by whomever, a private key does not come back.

use cardea_registry_api::certificate::Key;
use serde_json::{Value, json};

use crate::Cardea;

struct Pair {
    cert: String,
    key: String,
}

fn pair(host: &str) -> Pair {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    Pair {
        cert: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    }
}

/// Another certificate for the same key.
fn renewed(host: &str, pair: &Pair) -> String {
    let key = rcgen::KeyPair::from_pem(&pair.key).unwrap();
    let mut params = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
    params.serial_number = Some(7_u64.into());
    params.self_signed(&key).unwrap().pem()
}

impl Pair {
    fn object(&self) -> Value {
        json!({"name": "shop", "chain": self.cert, "key": self.key})
    }

    /// Any line of the key: none must be seen.
    fn secret(&self) -> &str {
        self.key.lines().nth(1).unwrap()
    }
}

const ONE: &str = "/v1/certificates/shop";

#[tokio::test]
async fn a_key_goes_to_routers_and_to_nobody_else() {
    let cardea = Cardea::start().await;
    let shop = pair("shop.example");
    let written = cardea.send("operator", "PUT", ONE, shop.object()).await;
    written.ok();
    let apply = json!({"certificates": [shop.object()], "services": [{"name": "s"}]});
    let mut seen = Vec::new();
    for path in ["/v1/apply?dry_run=true", "/v1/apply"] {
        let answer = cardea
            .send("operator", "POST", path, apply.clone())
            .await
            .ok();
        seen.push(answer.body);
    }
    let other = pair("shop.example");
    let request = cardea.request("operator", "PUT", ONE);
    let replaced = crate::send(request.header("if-match", "*").json(&other.object())).await;
    seen.push(replaced.ok().body);
    for role in ["viewer", "operator", "admin"] {
        for path in ["/v1/certificates", ONE, "/v1/changes"] {
            let answer = cardea.call(role, "GET", path).await.ok();
            let text = answer.body.to_string();
            assert!(text.contains("BEGIN CERTIFICATE"), "{role} {path}");
            seen.push(answer.body);
        }
    }
    for answer in seen {
        let text = answer.to_string();
        for pair in [&shop, &other] {
            assert!(!text.contains(pair.secret()), "{text}");
        }
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
    let feed = |role: &'static str| cardea.request(role, "GET", "/v1/clusters/default/snapshot");
    for role in ["viewer", "operator", "agent"] {
        crate::send(feed(role)).await.problem(403, "forbidden");
    }
    let text = feed("router").send().await.unwrap().text().await.unwrap();
    assert!(text.contains(other.secret()), "{text}");
    assert!(!text.contains(shop.secret()), "{text}");
    cardea.stop().await;
}

#[tokio::test]
async fn a_certificate_may_be_renewed_without_its_key() {
    let cardea = Cardea::start().await;
    let shop = pair("shop.example");
    let put = |body: Value| {
        let request = cardea.request("operator", "PUT", ONE);
        crate::send(request.header("if-match", "*").json(&body))
    };
    let keyless = json!({"name": "shop", "chain": shop.cert});
    put(keyless.clone()).await.invalid(&["key"]);
    put(shop.object()).await.ok();
    let revision = put(keyless).await.ok().body["revision"].clone();
    let next = json!({"name": "shop", "chain": renewed("shop.example", &shop)});
    assert_ne!(put(next).await.ok().body["revision"], revision);
    let stranger = json!({"name": "shop", "chain": pair("shop.example").cert});
    put(stranger).await.invalid(&["key"]);
    cardea.stop().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_without_repeating_the_key() {
    let cardea = Cardea::start().await;
    let (shop, other) = (pair("shop.example"), pair("other.example"));
    for (body, field) in [
        (
            json!({"name": "shop", "chain": shop.cert, "key": other.key}),
            "key",
        ),
        (
            json!({"name": "shop", "chain": "x", "key": shop.key}),
            "chain",
        ),
        (
            json!({"name": "shop", "chain": shop.key, "key": shop.key}),
            "chain",
        ),
        (
            json!({"name": "shop", "chain": shop.cert, "key": shop.key, "hosts": ["x.example"]}),
            "hosts[0]",
        ),
        (
            json!({"name": "shop", "chain": shop.cert, "key": [shop.key]}),
            "key",
        ),
        (
            json!({"name": "shop", "chain": shop.cert, "keys": shop.key}),
            "keys",
        ),
    ] {
        let answer = cardea.send("operator", "PUT", ONE, body).await;
        answer.invalid(&[field]);
        let text = answer.body.to_string();
        for pair in [&shop, &other] {
            assert!(!text.contains(pair.secret()), "{text}");
        }
    }
    assert_eq!(format!("{:?}", Key::from("secret")), "***");
    cardea.stop().await;
}

/// A certificate of its own for `host` that is valid in these years.
fn valid(host: &str, from: i32, to: i32) -> Pair {
    let mut params = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    Pair {
        cert: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

#[tokio::test]
async fn a_chain_out_of_its_time_is_refused_by_name_and_blocks_no_other_afterwards() {
    let cardea = Cardea::start().await;
    for (wrong, says) in [
        (valid("shop.example", 2001, 2002), "expired on"),
        (valid("shop.example", 2901, 2902), "not valid before"),
    ] {
        let answer = cardea.send("operator", "PUT", ONE, wrong.object()).await;
        answer.invalid(&["chain"]);
        assert!(answer.body.to_string().contains(says), "{}", answer.body);
        // Among others: it is named, and nothing of the file is taken.
        let fine = pair("fine.example");
        let fine = json!({"name": "fine", "chain": fine.cert, "key": fine.key});
        let file = json!({"certificates": [fine, wrong.object()]});
        let answer = cardea.send("operator", "POST", "/v1/apply", file).await;
        answer.invalid(&["certificates[1].chain"]);
        assert!(!answer.body.to_string().contains(wrong.secret()));
        let listed = cardea.call("viewer", "GET", "/v1/certificates").await.ok();
        assert_eq!(listed.body["items"], json!([]));
    }
    // The next one is taken as if nothing had been.
    let shop = pair("shop.example");
    cardea
        .send("operator", "PUT", ONE, shop.object())
        .await
        .ok();
    cardea.stop().await;
}
