use proptest::prelude::*;

use super::*;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes(word);
        for at in 0..=three.len() {
            let digit = bits >> (18 - 6 * at) & 63;
            text.push(char::from(DIGITS[digit as usize]));
        }
    }
    text
}

fn bearer(payload: &str) -> String {
    format!(
        "Bearer {}.{}.c2ln",
        encode(b"{\"alg\":\"RS256\"}"),
        encode(payload.as_bytes())
    )
}

fn sub(authorization: &str) -> Option<String> {
    let token = Token::default();
    let claim = token.claim(Some(authorization.as_bytes()), "sub");
    claim.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn reads_claims_that_a_key_could_be() {
    for (payload, wanted) in [
        (r#"{"sub":"u1"}"#, Some("u1")),
        (
            r#" { "iat" : 5 , "sub" : "u1" , "aud" : ["a", "b"] } "#,
            Some("u1"),
        ),
        (r#"{"sub":42}"#, Some("42")),
        (r#"{"sub":-1.5e3,"x":null}"#, Some("-1.5e3")),
        (r#"{"sub":true}"#, Some("true")),
        (r#"{"x":{"sub":"inner"},"sub":"outer"}"#, Some("outer")),
        (r#"{"x":"\"sub\":\"trick\"","sub":"u1"}"#, Some("u1")),
        (r#"{"x":"}]{[","sub":"u1"}"#, Some("u1")),
        (r#"{"a\/b":1,"sub":"u1"}"#, Some("u1")),
        (r#"{"sub":null}"#, None),
        (r#"{"sub":""}"#, None),
        (r#"{"sub":["u1"]}"#, None),
        (r#"{"sub":{"a":1}}"#, None),
        (r#"{"sub":"a\u0062"}"#, None),
        (r#"{"x":{"sub":"inner"}}"#, None),
        // Who reads the last one would see another user than who reads the first.
        (r#"{"sub":"u1","sub":"u2"}"#, None),
        (r#"{"sub":"u1","s\u0075b":"u2"}"#, None),
        (r#"{"sub":"u1""#, None),
        (r#"{"sub":"u1"} {}"#, None),
        (r#"{"sub":"u1",}"#, None),
        (r#"{"sub":nonsense}"#, None),
        (r#"["sub","u1"]"#, None),
        ("{}", None),
        ("", None),
    ] {
        assert_eq!(sub(&bearer(payload)).as_deref(), wanted, "{payload}");
    }
}

#[test]
fn only_bearer_tokens_of_three_parts_that_are_not_too_long() {
    let good = bearer(r#"{"sub":"u1"}"#);
    assert_eq!(sub(&good).as_deref(), Some("u1"));
    assert_eq!(
        sub(&good.replace("Bearer", "bEARER")).as_deref(),
        Some("u1")
    );
    for bad in [
        good.replace("Bearer", "Basic"),
        good.replace("Bearer ", ""),
        good.rsplit_once('.').unwrap().0.to_owned(),
        format!("{good}.x"),
        good.replace('.', ".."),
        good.replace(".c2ln", "."),
        good.replace("IiOi", "I=Oi").replace('J', "+"),
        "Bearer".to_owned(),
        String::new(),
        bearer(&format!(r#"{{"x":"{}","sub":"u1"}}"#, "a".repeat(LONGEST))),
        bearer(&format!(
            r#"{{"x":{}1{},"sub":"u1"}}"#,
            "[".repeat(40),
            "]".repeat(40)
        )),
    ] {
        assert_eq!(sub(&bad), None, "{bad}");
    }
    let token = Token::default();
    assert_eq!(token.claim(None, "sub"), None);
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let payload = decode(encode(&bytes).as_bytes()).unwrap();
        prop_assert_eq!(&payload.bytes[..payload.len], &bytes[..]);
    }

    #[test]
    fn nothing_makes_it_stumble(text in "[ -~]{0,200}", json in "[]{}\":,sub\\\\ 0-9a-z]{0,200}") {
        sub(&text);
        sub(&format!("Bearer {text}"));
        sub(&bearer(&json));
    }

    /// In whatever object: what a full parser reads, unless it is none of the claims that a key could be.
    #[test]
    fn reads_what_serde_reads(
        members in prop::collection::btree_map("[a-z]{1,3}|sub", "[a-z0-9 ,:{}\\[\\]]{1,9}", 0..6),
        pretty in any::<bool>(),
    ) {
        let json = if pretty {
            serde_json::to_string_pretty(&members).unwrap()
        } else {
            serde_json::to_string(&members).unwrap()
        };
        prop_assert_eq!(sub(&bearer(&json)), members.get("sub").cloned());
    }
}
