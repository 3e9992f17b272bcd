use proptest::prelude::*;

use super::*;

fn head() -> Head {
    Head {
        format: FORMAT,
        cluster: "dc-a".to_owned(),
        epoch: "e1".to_owned(),
        revision: 7,
        after: Some(5),
        checksum: SetChecksum::default(),
        objects: 2,
        accepted: false,
        degraded: false,
    }
}

fn sample() -> Vec<u8> {
    let mut encoder = Encoder::new(&head()).unwrap();
    encoder.set(
        &set_line(
            kind::SERVICE,
            "search",
            &serde_json::json!({"name": "search"}),
        )
        .unwrap(),
    );
    encoder.drop(kind::INSTANCE, "dc-a/search/x").unwrap();
    encoder.finish()
}

#[test]
fn golden() {
    insta::assert_snapshot!(String::from_utf8(sample()).unwrap());
}

#[test]
fn comes_back_whole() {
    for coding in [Coding::Zstd, Coding::Gzip, Coding::Identity] {
        let bytes = coding.decode(&coding.encode(&sample()).unwrap()).unwrap();
        let update = Update::decode(&bytes).unwrap();
        assert_eq!(update.head, head());
        assert_eq!(update.entries.len(), 2);
        assert!(matches!(&update.entries[1], Entry::Drop { key, .. } if key == "dc-a/search/x"));
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let text = String::from_utf8(sample())
        .unwrap()
        .replace("\"format\":1", "\"format\":2");
    let body = &text[..=text.trim_end().rfind('\n').unwrap()];
    let digest = xxh3_128(body.as_bytes());
    let text = format!("{body}{{\"end\":2,\"digest\":\"{digest:032x}\"}}\n");
    assert_eq!(
        Update::decode(text.as_bytes()).unwrap_err(),
        FeedError::Format(2)
    );
}

proptest! {
    #[test]
    fn any_cut_or_flip_is_noticed(cut in 0..sample().len(), flip in 0..sample().len(), bit in 0..8u32) {
        prop_assert!(Update::decode(&sample()[..cut]).is_err());
        let mut bytes = sample();
        bytes[flip] ^= 1 << bit;
        prop_assert!(Update::decode(&bytes).is_err());
    }

    #[test]
    fn the_checksum_knows_no_order(mut hashes in prop::collection::vec(any::<u128>(), 0..20), gone in any::<u128>()) {
        let mut one = SetChecksum::default();
        one.add(gone);
        hashes.iter().for_each(|h| one.add(*h));
        one.remove(gone);
        hashes.reverse();
        let mut two = SetChecksum::default();
        hashes.iter().for_each(|h| two.add(*h));
        prop_assert_eq!(one, two);
    }
}
