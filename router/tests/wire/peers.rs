//! Peers that others wrote: grpcio and `websockets` (Python), h2load and curl. `tests/setup` installs
//! them from Debian; `CARDEA_PYTHON` names another Python, with other versions of the packages.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::harness::{OK, Running, Setup, Upstream, refusing};

/// A script that serves on one side of a router and asks on the other.
struct Script {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    address: SocketAddr,
}

fn python() -> PathBuf {
    if let Some(named) = std::env::var_os("CARDEA_PYTHON") {
        return named.into();
    }
    let debian = Path::new("/usr/bin/python3");
    if debian.is_file() {
        debian.into()
    } else {
        "python3".into()
    }
}

impl Script {
    fn start(name: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/wire/peers")
            .join(name);
        let mut process = Command::new(python())
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("python3 (tests/setup installs it): {error}"));
        let to = process.stdin.take().unwrap();
        let mut from = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening ");
        let port = port.unwrap_or_else(|| panic!("{name} (tests/setup installs what it needs)"));
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())),
            process,
            to,
            from,
        }
    }

    /// Tells it these routers; what it says, once it is through with all of them.
    fn run(mut self, routers: &[(&str, &Running)]) -> Vec<String> {
        for (name, router) in routers {
            writeln!(self.to, "{name} {}", router.address).unwrap();
        }
        writeln!(self.to).unwrap();
        let mut said: Vec<String> = Vec::new();
        let mut line = String::new();
        while self.from.read_line(&mut line).unwrap() > 0 {
            said.push(std::mem::take(&mut line).trim().to_owned());
        }
        let last = said.last().map(String::as_str).unwrap_or_default();
        assert!(last.starts_with("done"), "{}", said.join("\n"));
        assert!(self.process.wait().unwrap().success());
        said
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn grpcio_calls_grpcio() {
    let script = Script::start("grpc_calls.py");
    let service = |lines: &str| Setup::new(&[]).service(&format!("protocol = \"h2c\"\n{lines}"));
    let main = service("").peer(script.address).start();
    let nobody = service("").start();
    let dead = service("").peer(refusing()).start();
    let impatient = service("timeouts = { first_byte = \"100ms\" }")
        .peer(script.address)
        .start();
    let elsewhere = service("").path("/other.Test").peer(script.address).start();
    let small = service("")
        .config(|c| c.limits.body = Some(1000))
        .peer(script.address)
        .start();
    let forbidding = service("")
        .tables("[[plugin]]\nname = \"no\"\n[plugin.restrict]\ndeny = [\"127.0.0.0/8\"]")
        .peer(script.address)
        .start();
    let odd = service("").peer(script.address).start();
    let said = script.run(&[
        ("main", &main),
        ("nobody", &nobody),
        ("dead", &dead),
        ("impatient", &impatient),
        ("elsewhere", &elsewhere),
        ("small", &small),
        ("forbidding", &forbidding),
        ("odd", &odd),
    ]);
    assert!(said.len() > 40, "{}", said.join("\n"));
    // Whatever its statuses were, nothing of it was the service's fault.
    assert_eq!(main.metric("cardea_router_upstream_errors_total{"), None);
}

#[test]
fn the_autobahn_classes_pass_as_if_no_router_were_there() {
    let script = Script::start("websocket_cases.py");
    let router = Setup::new(&[]).peer(script.address).start();
    let said = script.run(&[("router", &router)]);
    let cases: usize = said.last().unwrap()["done ".len()..].parse().unwrap();
    assert!(cases > 200, "{}", said.join("\n"));
}

/// What a program prints when it ends well.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} (tests/setup installs it): {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

#[test]
fn h2load_opens_thousands_of_streams() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let url = format!("http://{}/", router.address);
    let body = dir.path().join("body");
    std::fs::write(&body, vec![b'x'; 100_000]).unwrap();
    let body = body.to_str().unwrap();
    for (n, more) in [
        ("3000", &["-c", "3", "-m", "100"][..]),
        // Windows of 1 KiB, and larger bodies than they are.
        (
            "200",
            &["-c", "4", "-m", "20", "-w", "10", "-W", "10", "-d", body],
        ),
    ] {
        let said = output("h2load", &[&["-n", n][..], more, &[&url]].concat());
        let all = format!(
            "{n} total, {n} started, {n} done, {n} succeeded, 0 failed, 0 errored, 0 timeout"
        );
        assert!(said.contains(&all), "{said}");
        assert!(said.contains(&format!("{n} 2xx")), "{said}");
    }
    router.comes_to("cardea_router_http2_refused_total{reason=\"flood\"}", 0.0);
}

#[test]
fn curl_speaks_http2_and_http1() {
    let dir = tempfile::tempdir().unwrap();
    let body: Vec<u8> = (0..750_000_u32).flat_map(u32::to_be_bytes).collect();
    let (sent, got) = (dir.path().join("sent"), dir.path().join("got"));
    std::fs::write(&sent, &body).unwrap();
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let head = wire.head();
            if head.to_ascii_lowercase().contains("expect: 100-continue") {
                wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let bodiless = head.starts_with("HEAD");
            let body = wire.body(head, false).body;
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ));
            if !bodiless {
                wire.send(body);
            }
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let url = format!("http://{}/a", router.address);
    let (sent, got) = (format!("@{}", sent.display()), got.to_str().unwrap());
    for (version, say) in [
        ("--http2-prior-knowledge", "2"),
        ("--http2", "1.1"),
        ("--http1.1", "1.1"),
    ] {
        let ask = |more: &[&str]| {
            let always = [
                "-sS",
                version,
                "-w",
                "%{http_version} %{http_code}",
                "-o",
                got,
                &url,
            ];
            output("curl", &[&always[..], more].concat())
        };
        assert_eq!(ask(&[]), format!("{say} 200"));
        assert_eq!(ask(&["--head"]), format!("{say} 200"));
        for more in [
            &["--data-binary", &sent][..],
            &["--data-binary", &sent, "-H", "Expect: 100-continue"],
            &["--data-binary", &sent, "-H", "Transfer-Encoding: chunked"],
        ] {
            if say == "2" && more.len() == 4 && more[3].starts_with("Transfer") {
                continue;
            }
            assert_eq!(ask(more), format!("{say} 200"), "{more:?}");
            assert!(std::fs::read(got).unwrap() == body, "{version} {more:?}");
        }
    }
}
