use std::{net::SocketAddr, sync::atomic::AtomicU64, time::Duration};

use super::*;

fn entry<'a>(client: &'a SocketAddr, path: &'a [u8]) -> Entry<'a> {
    Entry {
        at: 1_767_323_045_007,
        request_id: b"id-1",
        traceparent: Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        client: Logged::Socket(client),
        via: None,
        method: b"GET",
        host: b"h.example",
        path,
        protocol: "HTTP/1.1",
        tls: None,
        route: b"r",
        service: "s",
        peer: Some("10.0.0.1:80"),
        cluster: None,
        plugins: None,
        status: 200,
        upstream_status: 200,
        took: Duration::from_micros(1234),
        upstream_took: Some(Duration::from_micros(900)),
        retries: 0,
        bytes_in: 0,
        bytes_out: 1024,
        error: None,
        hidden: None,
    }
}

#[test]
fn a_line_is_one_json_object() {
    let client = "10.1.2.3:4567".parse().unwrap();
    let mut line = Vec::new();
    entry(&client, b"/a\"b\\c\xffd\n").append(&mut line, &mut TimeText::default());
    assert!(line.ends_with(b"}\n") && !line[..line.len() - 1].contains(&b'\n'));
    let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(value["time"], "2026-01-02T03:04:05.007Z");
    assert_eq!(value["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(value["path"], "/a\"b\\c\u{ff}d\n");
    assert_eq!(value["client"], "10.1.2.3:4567");
    assert_eq!(value["duration_ms"], 1.234);
    assert_eq!(value["upstream_duration_ms"], 0.9);
    assert_eq!(value["bytes_out"], 1024);
    assert_eq!(value.get("error"), None);
}

#[test]
fn a_moved_file_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let target = Target::file(path.clone()).unwrap();
    let queue = queue();
    let (back, emptied) = sync_channel(1);
    let send = |text: &[u8]| {
        let lines = Message::Lines(text.to_vec(), back.clone());
        queue.lines.send(lines).unwrap();
    };
    send(b"one\n");
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    queue.lines.send(Message::Reopen).unwrap();
    send(b"two\n");
    drop(queue.lines);
    run(target, &queue.to_write, &AtomicU64::new(0));
    assert!(emptied.recv().unwrap().is_empty());
    assert_eq!(std::fs::read(dir.path().join("old")).unwrap(), b"one\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
}

#[test]
fn a_writer_that_does_not_keep_up_costs_lines_not_time() {
    let queue = queue();
    let log = AccessLog::new(Some(queue.lines.clone()));
    let client = "10.1.2.3:4567".parse().unwrap();
    for _ in 0..QUEUE {
        assert_eq!(log.write(&entry(&client, b"/")), 0);
        assert_eq!(log.flush(), 0);
    }
    assert_eq!(log.write(&entry(&client, b"/")), 0);
    assert_eq!(log.write(&entry(&client, b"/")), 0);
    assert_eq!(log.flush(), 2);
    assert_eq!(log.flush(), 0);
}

#[test]
fn a_file_that_cannot_be_written_counts_lines() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let queue = queue();
    let lines = Message::Lines(b"a\nb\n".to_vec(), sync_channel(1).0);
    queue.lines.send(lines).unwrap();
    drop(queue.lines);
    let failed = AtomicU64::new(0);
    run(
        Target::File("/dev/full".into(), full),
        &queue.to_write,
        &failed,
    );
    assert_eq!(failed.into_inner(), 2);
}
