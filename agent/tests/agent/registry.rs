//! A registry that keeps what it is told in memory, writes down every call, and can be made to
//! hang, to refuse and to die.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Takes calls and never answers.
    Hanging,
    /// Answers every call with this status.
    Refusing(u16),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) calls: Vec<Call>,
    /// What is registered, by path.
    pub(crate) instances: BTreeMap<String, Value>,
    pub(crate) mood: Mood,
    /// A service that the agent's token does not cover.
    pub(crate) forbidden: Option<&'static str>,
    /// How long the routers take to let go.
    pub(crate) routers_take: Duration,
    /// When the last deregistration was answered.
    pub(crate) answered: Option<SystemTime>,
    connections: Vec<TcpStream>,
    open: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The registry; dies when it is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                calls: Vec::new(),
                instances: BTreeMap::new(),
                mood: Mood::Well,
                forbidden: None,
                routers_take: Duration::ZERO,
                answered: None,
                connections: Vec::new(),
                open: true,
            }),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut state = accepting.state.lock().unwrap();
                if !state.open {
                    return;
                }
                state.connections.push(stream.try_clone().unwrap());
                let shared = Arc::clone(&accepting);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }

    pub(crate) fn get<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.shared.state.lock().unwrap())
    }

    /// Waits until the state is as wanted.
    pub(crate) fn until<T>(&self, what: &str, wanted: impl Fn(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock().unwrap();
        loop {
            if let Some(found) = wanted(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never happened: {what}; {state:#?}");
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits for the first call of a method from the `after`th call on.
    pub(crate) fn call(&self, method: &str, after: usize) -> Call {
        self.until(method, |state| {
            let mut later = state.calls.iter().skip(after);
            later.find(|call| call.method == method).cloned()
        })
    }

    /// Waits until one instance is registered in this state.
    pub(crate) fn registered(&self, wanted: &str) {
        self.until(wanted, |state| {
            let mut states = state.instances.values().map(|i| i["state"].as_str());
            states.any(|state| state == Some(wanted)).then_some(())
        });
    }

    pub(crate) fn calls(&self, method: &str) -> usize {
        self.get(|state| state.calls.iter().filter(|c| c.method == method).count())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        state.open = false;
        for connection in &state.connections {
            drop(connection.shutdown(Shutdown::Both));
        }
        drop(state);
        self.shared.changed.notify_all();
        // So that the listener wakes up and closes.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(call) = read_call(&mut reader) {
        let mut state = shared.state.lock().unwrap();
        state.calls.push(call.clone());
        let mood = state.mood;
        let (status, body) = match mood {
            Mood::Well if concerns(&call, state.forbidden) => (403, json!({})),
            Mood::Well => apply(&mut state, &call),
            Mood::Refusing(status) => (status, json!({})),
            Mood::Hanging => (0, Value::Null),
        };
        let routers_take = state.routers_take;
        shared.changed.notify_all();
        drop(state);
        if mood == Mood::Hanging {
            continue;
        }
        if call.method == "DELETE" {
            thread::sleep(routers_take.min(wait_of(&call.path)));
            shared.state.lock().unwrap().answered = Some(SystemTime::now());
            shared.changed.notify_all();
        }
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn concerns(call: &Call, service: Option<&str>) -> bool {
    service.is_some_and(|service| {
        let many = call.body["instances"].as_array();
        call.path.contains(&format!("/services/{service}/"))
            || many.is_some_and(|keys| keys.iter().any(|key| key["service"] == service))
    })
}

fn apply(state: &mut State, call: &Call) -> (u16, Value) {
    let path = call.path.split('?').next().unwrap().to_owned();
    let written = json!({"epoch": "e", "revision": state.calls.len(), "durable": true});
    match call.method.as_str() {
        "PUT" => {
            state.instances.insert(path, call.body.clone());
            (200, written)
        }
        "DELETE" => {
            let mut answer = written;
            answer["found"] = state.instances.remove(&path).is_some().into();
            let late = state.routers_take > wait_of(&call.path);
            answer["acknowledged"] = if late { json!([]) } else { json!(["r1"]) };
            answer["pending"] = if late { json!(["r1"]) } else { json!([]) };
            (200, answer)
        }
        "POST" if path == "/v1/renewals" => {
            let keys = call.body["instances"].as_array().unwrap();
            let unknown: Vec<&Value> = keys
                .iter()
                .filter(|key| !state.instances.contains_key(&path_of(key)))
                .collect();
            (
                200,
                json!({"renewed": keys.len() - unknown.len(), "unknown": unknown}),
            )
        }
        _ => (404, json!({})),
    }
}

/// How long a deregistration asks to wait.
fn wait_of(path: &str) -> Duration {
    let wait = path.split_once("?wait=");
    wait.map_or(Duration::ZERO, |(_, span)| {
        span.parse::<cardea_registry_api::Span>()
            .unwrap()
            .duration()
    })
}

fn path_of(key: &Value) -> String {
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    let (cluster, service, id) = (text("cluster"), text("service"), text("id"));
    format!("/v1/clusters/{cluster}/services/{service}/instances/{id}")
}

fn read_call(reader: &mut BufReader<TcpStream>) -> Option<Call> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Call {
        at: Instant::now(),
        method,
        path,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}
