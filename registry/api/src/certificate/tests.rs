use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::*;

fn pair(hosts: &[&str]) -> (String, String) {
    let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn certificate(chain: &str, key: &str) -> Certificate {
    Certificate {
        name: "shop".parse().unwrap(),
        description: String::new(),
        chain: chain.into(),
        key: key.into(),
        hosts: Vec::new(),
        default: false,
        client_auth: None,
    }
}

fn error(certificate: &Certificate) -> String {
    certificate.check().unwrap_err().to_string()
}

#[test]
fn a_good_pair_passes_and_names_its_hosts() {
    let (chain, key) = pair(&["shop.example", "*.shop.example", "192.0.2.1"]);
    let certificate = certificate(&chain, &key);
    certificate.check().unwrap();
    let (chain, hosts) = certificate.read().unwrap();
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["shop.example", "*.shop.example", "192.0.2.1"]);
    assert_eq!(chain.facts.fingerprint.len(), 64);
    assert!(chain.facts.not_after > chain.facts.not_before);
}

#[test]
fn what_is_wrong_is_named() {
    let (chain, key) = pair(&["shop.example"]);
    let other = pair(&["other.example"]).1;
    assert!(error(&certificate(&chain, &other)).starts_with("key: it is not the key of"));
    assert!(error(&certificate(&chain, "nonsense")).starts_with("key: no private key"));
    assert!(error(&certificate("", &key)).starts_with("chain: no PEM block"));
    assert!(error(&certificate(&key, &key)).starts_with("chain: a private key stands here"));
    let broken = chain.replacen("MII", "AAA", 1);
    assert!(error(&certificate(&broken, &key)).starts_with("chain: certificate 1"));
    let mut wrong = certificate(&chain, &key);
    wrong.hosts = vec!["other.example".parse().unwrap()];
    assert!(error(&wrong).starts_with("hosts[0]: the certificate is not for `other.example`"));
    wrong.hosts = vec![HostPattern::Any];
    assert!(error(&wrong).starts_with("hosts[0]"));
}

#[test]
fn a_wildcard_is_one_label() {
    let (chain, key) = pair(&["*.shop.example"]);
    let mut certificate = certificate(&chain, &key);
    certificate.hosts = vec!["a.shop.example".parse().unwrap()];
    certificate.check().unwrap();
    for deeper in ["a.b.shop.example", "shop.example"] {
        certificate.hosts = vec![deeper.parse().unwrap()];
        assert!(error(&certificate).starts_with("hosts[0]"));
    }
}

#[test]
fn a_chain_must_be_in_order() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the CA");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let right = format!("{}{}", leaf.pem(), ca.pem());
    certificate(&right, &key.serialize_pem()).check().unwrap();
    let (unrelated, _) = pair(&["x.example"]);
    let wrong = format!("{}{unrelated}", leaf.pem());
    let text = error(&certificate(&wrong, &key.serialize_pem()));
    assert!(text.contains("is signed by `CN=the CA`"), "{text}");
}

#[test]
fn a_key_is_not_printed() {
    let (chain, key) = pair(&["shop.example"]);
    let text = format!("{:?}", certificate(&chain, &key));
    assert!(text.contains("key: ***"), "{text}");
    assert!(!text.contains("PRIVATE"), "{text}");
}
