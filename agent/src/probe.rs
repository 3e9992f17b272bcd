//! Asking a service whether it is ready and warm.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use cardea_registry_api::Address;
use nix::sys::signal::Signal;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    children::Children,
    config::{ProbeConfig, WarmUpConfig},
};

/// One question to a service.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    what: What,
    limit: Duration,
}

#[derive(Debug, Clone)]
enum What {
    Tcp(Address),
    Http { url: String, statuses: Vec<u16> },
    Exec(Vec<String>),
}

/// What probes need.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) http: reqwest::Client,
    pub(crate) children: Children,
}

impl Tools {
    /// Needs rustls's provider to be installed: making a registry client does that.
    pub(crate) fn new(children: Children) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("cardea-agent/", env!("CARGO_PKG_VERSION")))
            // A probe asks whether connections can be made now.
            .pool_max_idle_per_host(0)
            .http1_only()
            // What is asked is the service next door, and only whether it answers; its certificate
            // is for its callers.
            .tls_danger_accept_invalid_certs(true)
            .build()?;
        Ok(Self { http, children })
    }
}

impl Probe {
    /// The readiness probe of a service at an address.
    pub(crate) fn readiness(config: &ProbeConfig, address: &Address) -> Self {
        let what = if let Some(path) = &config.http {
            What::Http {
                url: url(path, address),
                statuses: config.statuses.clone(),
            }
        } else if config.exec.is_empty() {
            What::Tcp(config.tcp.as_ref().unwrap_or(address).clone())
        } else {
            What::Exec(config.exec.clone())
        };
        let limit = config.timeout.duration();
        Self { what, limit }
    }

    /// The warm-up of a service at an address, if it has a URL.
    pub(crate) fn warm_up(config: &WarmUpConfig, address: &Address) -> Option<Self> {
        let url = url(config.url.as_deref()?, address);
        Some(Self {
            what: What::Http {
                url,
                statuses: (200..300).collect(),
            },
            limit: config.timeout.duration(),
        })
    }

    /// Asks; an error says why it does not pass.
    pub(crate) async fn ask(&self, tools: &Tools) -> Result<(), String> {
        let late = || format!("no answer within {:?}", self.limit);
        match &self.what {
            What::Tcp(address) => {
                let connected = TcpStream::connect((address.host(), address.port()));
                match timeout(self.limit, connected).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(format!("{address}: {error}")),
                    Err(_) => Err(format!("{address}: {}", late())),
                }
            }
            What::Http { url, statuses } => {
                match timeout(self.limit, tools.http.get(url).send()).await {
                    Ok(Ok(answer)) => judge(url, statuses, answer.status().as_u16()),
                    Ok(Err(error)) => Err(format!("{url}: {}", root_cause(&error))),
                    Err(_) => Err(format!("{url}: {}", late())),
                }
            }
            What::Exec(command) => self.execute(command, &tools.children).await,
        }
    }

    async fn execute(&self, words: &[String], children: &Children) -> Result<(), String> {
        let (program, arguments) = words.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = children
            .start(&mut command)
            .map_err(|e| format!("{program}: {e}"))?;
        let kill = KillOnDrop {
            children,
            pid: started.pid,
        };
        let ended = timeout(self.limit, started.ended).await;
        drop(kill);
        match ended {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(status)) => Err(format!("{program}: exit status {status}")),
            Ok(Err(_)) => Err(format!("{program}: its exit status is lost")),
            Err(_) => Err(format!("{program}: not done within {:?}", self.limit)),
        }
    }
}

/// Ends a probe's command and what it started, when the probe is over one way or another. A command
/// that has ended is no longer known and left alone.
struct KillOnDrop<'a> {
    children: &'a Children,
    pid: nix::unistd::Pid,
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        self.children.signal(self.pid, Signal::SIGKILL, true);
    }
}

fn judge(url: &str, statuses: &[u16], status: u16) -> Result<(), String> {
    let passes = if statuses.is_empty() {
        (200..400).contains(&status)
    } else {
        statuses.contains(&status)
    };
    if passes {
        Ok(())
    } else {
        Err(format!("{url}: status {status}"))
    }
}

/// A path is asked at the service's own address.
fn url(text: &str, address: &Address) -> String {
    if text.starts_with('/') {
        format!("http://{address}{text}")
    } else {
        text.to_owned()
    }
}

/// The innermost cause: what the operating system or the service said.
fn root_cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
