//! A client's certificate, as services are told about it: Envoy's `X-Forwarded-Client-Cert`.

use std::fmt::Write as _;

use cardea_registry_api::certificate::Facts;

/// Names beyond these are left out: a header has a limit.
const MOST_NAMES: usize = 10;

/// `Hash=…;Subject="…";URI=…;DNS=…`; none: the certificate cannot be read.
pub(super) fn describe(der: &[u8]) -> Option<String> {
    let facts = Facts::of_der(der).ok()?;
    let mut text = format!("Hash={};Subject=", facts.fingerprint);
    quoted(&mut text, &facts.subject);
    for uri in facts.uris.iter().take(MOST_NAMES) {
        text.push_str(";URI=");
        quoted(&mut text, uri);
    }
    for host in facts.hosts.iter().take(MOST_NAMES) {
        let _ = write!(text, ";DNS={host}");
    }
    Some(text)
}

/// Within quotes, whatever it is: a client writes it.
fn quoted(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars().take(1024) {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            _ => text.push('?'),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn nothing_that_a_client_writes_gets_out_of_its_quotes() {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let name = "x\";DNS=evil,\r\nX-Evil: é";
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = "spiffe://test/a".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let text = describe(cert.der()).unwrap();
        let rest = text.split_once(";Subject=").unwrap().1;
        assert_eq!(
            rest,
            "\"CN=x\\\";DNS=evil,??X-Evil: ?\";URI=\"spiffe://test/a\";DNS=a.test"
        );
    }
}
