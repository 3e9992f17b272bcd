use proptest::prelude::*;

use super::*;

/// Feeds `text` in pieces that end at `cuts`; gives the data, the end, and what was left over.
fn decode(text: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>, usize, bool), BadChunk> {
    let mut decoder = Decoder::default();
    let (mut data, mut trailers, mut used) = (Vec::new(), Vec::new(), 0);
    let mut ends: Vec<_> = cuts.iter().map(|c| c % (text.len() + 1)).collect();
    ends.push(text.len());
    ends.sort_unstable();
    let mut from = 0;
    for end in ends {
        let mut piece = text[from..end].to_vec();
        let took = decoder.decode(&mut piece, &mut trailers)?;
        data.extend_from_slice(&piece[took.data]);
        used += took.used;
        from = end;
    }
    Ok((data, trailers, used, decoder.done()))
}

#[test]
fn several_chunks_become_one_piece() {
    let mut input = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nnext".to_vec();
    let mut trailers = Vec::new();
    let mut decoder = Decoder::default();
    let piece = decoder.decode(&mut input, &mut trailers).unwrap();
    assert_eq!(&input[piece.data], b"abcde");
    assert_eq!(&input[piece.used..], b"next");
    assert_eq!(trailers, b"0\r\n\r\n");
    assert!(decoder.done());
}

#[test]
fn trailers_pass_but_not_those_that_frame() {
    let text = b"0\r\nX-Sum: 1\r\nContent-Length: 5\r\nHost: x\r\nB: 2\r\n\r\n";
    let (_, trailers, _, done) = decode(text, &[]).unwrap();
    assert!(done);
    assert_eq!(trailers, b"0\r\nX-Sum: 1\r\nB: 2\r\n\r\n");
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for text in [
        "\r\n",
        "x\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "0x1\r\na\r\n",
        "-1\r\n",
        "1\na\r\n",
        "1\r\nab\r\n",
        "1\r\na\n",
        "1\r\na\r\r",
        ";x\r\n",
        "1;\n\r\n",
        "1;a\u{0}\r\n",
        "1000000000000000\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\n: b\r\n\r\n",
        "0\r\nA b: c\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: \u{1}\r\n\r\n",
        "0\r\n\n",
    ] {
        assert!(decode(text.as_bytes(), &[]).is_err(), "{text:?}");
    }
    let long = format!("1;{}\r\na\r\n", "x".repeat(257));
    assert!(decode(long.as_bytes(), &[]).is_err());
    let long = format!("0\r\nA: {}\r\n\r\n", "x".repeat(9000));
    assert!(decode(long.as_bytes(), &[]).is_err());
}

#[test]
fn data_becomes_a_chunk_where_it_lies() {
    let mut raw = vec![b'_'; 18 + 300 + 2];
    let chunk = wrap(&mut raw, 18..318);
    assert!(raw[chunk.clone()].starts_with(b"12c\r\n_"));
    assert!(raw[chunk].ends_with(b"_\r\n"));
    let mut out = Vec::new();
    append(&mut out, b"abc");
    append(&mut out, b"");
    assert_eq!(out, b"3\r\nabc\r\n");
}

proptest! {
    /// Any chunks in any fragmentation give the same data, and nothing behind the end is touched.
    #[test]
    fn fragmentation_makes_no_difference(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        rest in proptest::collection::vec(any::<u8>(), 0..10),
    ) {
        let mut text = Vec::new();
        for chunk in &chunks {
            append(&mut text, chunk);
        }
        text.extend_from_slice(b"0\r\nA: b\r\n\r\n");
        let end = text.len();
        text.extend_from_slice(&rest);
        let (data, trailers, used, done) = decode(&text, &cuts).unwrap();
        prop_assert!(done);
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(used, end);
        prop_assert_eq!(trailers, b"0\r\nA: b\r\n\r\n");
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&noise, &[]);
    }
}
