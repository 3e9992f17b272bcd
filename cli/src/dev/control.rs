//! Orders to a running `cardea dev`: over a socket in its data directory (`cardea ctl dev …`), and
//! typed where it runs.

use std::{
    fs,
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

/// The longest order or answer, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// How long an order may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What `cardea dev` can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Stop the registry.
    StopRegistry,
    /// Start it again.
    StartRegistry,
    /// Whichever of the two.
    ToggleRegistry,
    /// Tell what runs.
    Status,
    /// Stop everything.
    Quit,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Whether it was done.
    pub(crate) ok: bool,
    /// In words.
    pub(crate) text: String,
}

/// An order, and where the answer goes; none: to the terminal.
#[derive(Debug)]
pub(super) struct Ordered {
    /// What.
    pub(super) order: Order,
    /// To whom.
    pub(super) answer: Option<oneshot::Sender<Answer>>,
}

/// Where the socket is.
fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("dev.sock")
}

/// Hands an order to the `cardea dev` of a data directory.
pub(crate) async fn ask(data_dir: &Path, order: Order) -> Result<Answer, String> {
    let path = socket(data_dir);
    let mut stream = UnixStream::connect(&path).await.map_err(|error| {
        format!(
            "no `cardea dev` runs in {} ({error}); --data-dir names its data directory",
            data_dir.display()
        )
    })?;
    let exchange = async {
        write_line(&mut stream, &order).await?;
        read_line(&mut stream).await
    };
    match timeout(LIMIT, exchange).await {
        Ok(answer) => answer.map_err(|e| format!("{}: {e}", path.display())),
        Err(_) => Err(format!("{}: no answer within {LIMIT:?}", path.display())),
    }
}

/// The socket's listening end.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens; the data directory is locked, so a socket that is there is a dead one's.
    pub(super) fn listen(data_dir: &Path) -> io::Result<Self> {
        let path = socket(data_dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        Ok(Self { listener, path })
    }

    /// Takes orders, one after the other, for ever.
    pub(super) async fn serve(&self, orders: &mpsc::Sender<Ordered>) {
        loop {
            match self.listener.accept().await {
                Ok((mut stream, _)) => {
                    let served = timeout(LIMIT, exchange(&mut stream, orders)).await;
                    if let Ok(Err(error)) = served {
                        tracing::debug!(%error, "an order was not understood");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

async fn exchange(stream: &mut UnixStream, orders: &mpsc::Sender<Ordered>) -> io::Result<()> {
    let order = read_line(stream).await?;
    let (sender, answer) = oneshot::channel();
    let ordered = Ordered {
        order,
        answer: Some(sender),
    };
    orders.send(ordered).await.map_err(io::Error::other)?;
    let answer = answer.await.map_err(io::Error::other)?;
    write_line(stream, &answer).await
}

async fn write_line<T: Serialize>(stream: &mut UnixStream, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn read_line<T: for<'de> Deserialize<'de>>(stream: &mut UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(MAX_LINE));
    reader.read_until(b'\n', &mut line).await?;
    serde_json::from_slice(&line).map_err(io::Error::other)
}

/// Reads orders that are typed, if there is a terminal. The thread ends with the process.
pub(super) fn read_terminal(orders: mpsc::Sender<Ordered>) {
    if !io::stdin().is_terminal() {
        return;
    }
    let reader = move || {
        // In the background, reading would stop the whole process: with the signal blocked, it only
        // fails, and nothing is read.
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTTIN);
        if signals.thread_block().is_err() {
            return;
        }
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let order = match line.trim() {
                "r" => Order::ToggleRegistry,
                "q" => Order::Quit,
                "" => continue,
                _ => Order::Status,
            };
            let ordered = Ordered {
                order,
                answer: None,
            };
            if orders.blocking_send(ordered).is_err() {
                return;
            }
        }
    };
    let started = std::thread::Builder::new()
        .name("cardea-terminal".to_owned())
        .spawn(reader);
    if let Err(error) = started {
        tracing::warn!(%error, "the terminal is not read");
    }
}
