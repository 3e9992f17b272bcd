use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
    let size = u32::try_from(len).unwrap().to_be_bytes();
    let mut frame = size[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, 1]);
    frame.resize(9 + len, 0);
    frame
}

const MOST: u32 = 4000;

fn fresh() -> Meter {
    let meter = Meter::new(MOST, 0);
    meter.read(super::super::PREFACE, 0);
    meter.read(&frame(SETTINGS, END_STREAM_OR_ACK, 0), 0);
    meter
}

#[test]
fn pings_and_settings_run_out_and_come_back_with_time() {
    for kind in [PING, SETTINGS] {
        let meter = fresh();
        for _ in 0..MOST / ANSWERED_FRAME {
            meter.read(&frame(kind, 0, 6), 0);
        }
        assert!(!meter.spent());
        meter.read(&frame(kind, END_STREAM_OR_ACK, 6), 0);
        assert!(!meter.spent(), "what is acknowledged costs nothing");
        meter.read(&frame(kind, 0, 6), 1000);
        assert!(!meter.spent(), "a second gives some back");
        for _ in 0..A_SECOND {
            meter.read(&frame(kind, 0, 6), 1000);
        }
        assert!(meter.spent());
    }
}

#[test]
fn answers_pay_for_pings_and_for_as_many_resets() {
    let meter = fresh();
    for _ in 0..10_000 {
        meter.read(&frame(PING, 0, 8), 0);
        meter.answered();
    }
    for _ in 0..10_000 {
        meter.read(&frame(RST_STREAM, 0, 4), 0);
        meter.reset(5);
        meter.answered();
        meter.answered();
    }
    assert!(!meter.spent());
}

#[test]
fn the_first_frame_is_waited_for_as_a_header_block_is() {
    let meter = Meter::new(MOST, 3);
    meter.read(super::super::PREFACE, 4);
    assert_eq!(meter.head_since(), Some(3));
    let settings = frame(SETTINGS, 0, 6);
    meter.read(&settings[..12], 5);
    assert_eq!(meter.head_since(), Some(3));
    meter.read(&settings[12..], 6);
    assert_eq!(meter.head_since(), None);
}

#[test]
fn only_hasty_resets_cost() {
    let (unseen, hasty, patient) = (fresh(), fresh(), fresh());
    for _ in 0..=MOST / HASTY_RESET {
        for meter in [&unseen, &hasty, &patient] {
            assert!(!meter.spent());
            meter.read(&frame(RST_STREAM, 0, 4), 0);
        }
        hasty.reset(HASTE - 1);
        patient.reset(HASTE);
    }
    assert!(unseen.spent() && hasty.spent());
    assert!(!patient.spent());
}

#[test]
fn a_header_block_is_open_until_its_last_frame_is_complete() {
    let meter = fresh();
    assert_eq!(meter.head_since(), None);
    meter.read(&frame(HEADERS, 0, 10), 7);
    meter.read(&frame(CONTINUATION, 0, 10), 8);
    assert_eq!(meter.head_since(), Some(7));
    let last = frame(CONTINUATION, END_HEADERS, 10);
    meter.read(&last[..12], 9);
    assert_eq!(meter.head_since(), Some(7));
    meter.read(&last[12..], 10);
    assert_eq!(meter.head_since(), None);
    meter.read(&frame(DATA, 0, 100)[..50], 11);
    assert_eq!(meter.head_since(), None);
}

proptest! {
    #[test]
    fn frames_are_found_however_they_are_cut(
        frames in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..40), 1..40),
        cuts in prop::collection::vec(1_usize..30, 1..200),
    ) {
        let mut bytes = super::super::PREFACE.to_vec();
        for (kind, flags, len) in &frames {
            bytes.extend(frame(*kind, *flags, *len));
        }
        let mut found = Vec::new();
        let mut parser = Frames::new(0);
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            parser.read(piece, 0, |f| found.push((f.kind, f.flags, f.len as usize)));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, frames);
    }
}
