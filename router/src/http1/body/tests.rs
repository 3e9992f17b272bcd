use super::*;

/// What a tap of this limit has of a body that comes in these pieces.
fn tapped(framing: Framing, pieces: &[&str], limit: usize) -> Result<Vec<u8>, Untapped> {
    let mut body = Body::default();
    body.begin(framing, false, None);
    body.tap(limit);
    let (mut input, mut out) = (Buffer::new(64), Vec::new());
    for piece in pieces {
        input.compact();
        input.space()[..piece.len()].copy_from_slice(piece.as_bytes());
        input.filled(piece.len());
        let mut before = usize::MAX;
        while input.len() < before {
            before = input.len();
            body.take_buffered(&mut input, &mut out).unwrap();
        }
        // It is bounded while it grows, and not only at its end.
        assert!(body.tap.as_ref().unwrap().capacity() <= 2 * limit.max(8));
    }
    body.take_tapped()
}

#[test]
fn a_tap_has_the_content_whole_or_not_at_all() {
    let length = Framing::Length(6);
    let whole = Ok(b"abcdef".to_vec());
    assert_eq!(tapped(length, &["abc", "def"], 6), whole);
    assert_eq!(tapped(length, &["abc", "def"], 5), Err(Untapped::TooLarge));
    assert_eq!(tapped(length, &["abcde"], 6), Err(Untapped::Incomplete));
    let chunks = ["3\r\nabc\r\n", "3\r\nde", "f\r\n0\r\n\r\n"];
    assert_eq!(tapped(Framing::Chunked, &chunks, 6), whole);
    assert_eq!(
        tapped(Framing::Chunked, &chunks[..2], 6),
        Err(Untapped::Incomplete)
    );
    assert_eq!(
        tapped(Framing::Chunked, &chunks, 5),
        Err(Untapped::TooLarge)
    );
    let many = [
        "a0\r\n",
        "xxxxxxxxxxxxxxxxxxxx",
        "xxxxxxxxxxxxxxxxxxxx",
        "xxxxxxxxxxxxxxxxxxxx",
    ];
    assert_eq!(tapped(Framing::Chunked, &many, 16), Err(Untapped::TooLarge));
    assert_eq!(Body::default().take_tapped(), Err(Untapped::Incomplete));
}
