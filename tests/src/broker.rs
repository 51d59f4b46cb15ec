//! mosquitto, and the wire to it that can be cut, stalled or slowed.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, tcp};
use tokio::sync::watch;

/// A port of this machine that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A server of the system's packages with a configuration file; killed on drop.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts `program -c FOLDER/CONFIG`; what it says on standard error goes to `log` in the folder.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn start(program: &str, folder: &Path, config: &str) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
        let start = |program: &str| {
            Command::new(program)
                .arg("-c")
                .arg(folder.join(config))
                .stderr(log.try_clone()?)
                .spawn()
        };
        // Debian has servers where only root looks.
        let child = start(program).or_else(|_| start(&format!("/usr/sbin/{program}")));
        Ok(Self(child.with_context(|| format!("{program}, of the Debian package of that name"))?))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it: politely, so that it saves what it has, or with SIGKILL.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn end(mut self, politely: bool) -> Result<()> {
        if politely {
            Command::new("kill").arg(self.pid().to_string()).status().context("kill")?;
        } else {
            self.0.kill()?;
        }
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A running mosquitto; killed on drop.
#[derive(Debug)]
pub struct Broker {
    server: Server,
    folder: PathBuf,
    address: SocketAddr,
}

impl Broker {
    /// Starts mosquitto with no bound on what waits; with `persistent` it has what it held before.
    ///
    /// # Errors
    /// When it is not installed, or does not listen within 20 s.
    pub fn start(folder: &Path, port: u16, persistent: bool) -> Result<Self> {
        Self::ruled(folder, port, persistent, "")
    }

    /// As [`Broker::start`], with further lines of configuration.
    ///
    /// # Errors
    /// As there.
    pub fn ruled(folder: &Path, port: u16, persistent: bool, lines: &str) -> Result<Self> {
        let config = "mosquitto.conf";
        let place = folder.display();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n\
             max_queued_messages 0\npersistence {persistent}\npersistence_location {place}/\nuser root\n{lines}\n"
        );
        std::fs::write(folder.join(config), text)?;
        let server = Server::start("mosquitto", folder, config)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let broker = Self { server, folder: folder.to_owned(), address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(started.elapsed() < Duration::from_secs(20), "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(broker)
    }

    /// As [`Broker::start`], with the rules of an ACL file, and nothing kept. Users need no password.
    ///
    /// # Errors
    /// As there.
    pub fn with_rules(folder: &Path, port: u16, rules: &str) -> Result<Self> {
        let file = folder.join("acl");
        std::fs::write(&file, rules)?;
        Self::ruled(folder, port, false, &format!("acl_file {}", file.display()))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As [`Server::end`]. Gives its folder and port.
    ///
    /// # Errors
    /// As there.
    pub fn end(self, politely: bool) -> Result<(PathBuf, u16)> {
        let Self { server, folder, address } = self;
        server.end(politely)?;
        Ok((folder, address.port()))
    }
}

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// As a wire should be.
    Whole,
    /// There is none: connections end, and none is taken.
    Cut,
    /// Nothing comes through, though connections stand: as of a peer that vanished.
    Stalled,
    /// Half open: what is sent to the broker comes through, and nothing comes back.
    HalfOpen,
    /// A few bytes at a time come through.
    Slow,
}

/// A wire to a broker.
#[derive(Debug)]
pub struct Proxy {
    /// Where the daemon connects.
    pub address: SocketAddr,
    wire: watch::Sender<Wire>,
    /// Connections that ended.
    ended: Arc<AtomicU64>,
    /// Connections so far.
    begun: Arc<AtomicU64>,
}

impl Proxy {
    /// Lays a wire.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn to(broker: SocketAddr) -> Result<Self> {
        Self::to_first_of(vec![broker]).await
    }

    /// Lays a wire to the first of several brokers that takes a connection, as a load balancer does.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn to_first_of(brokers: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (wire, watched) = watch::channel(Wire::Whole);
        let (begun, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counts = (Arc::clone(&begun), Arc::clone(&ended));
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() != Wire::Cut {
                    counts.0.fetch_add(1, Ordering::Relaxed);
                    let (ended, carried) =
                        (Arc::clone(&counts.1), carry(client, brokers.clone(), watched.clone()));
                    spawn(async move {
                        carried.await;
                        ended.fetch_add(1, Ordering::Relaxed);
                    });
                }
            }
        });
        Ok(Self { address, wire, ended, begun })
    }

    /// Connections that ended so far.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether there is a connection.
    pub fn is_used(&self) -> bool {
        self.ended() < self.begun.load(Ordering::Relaxed)
    }

    /// Makes the wire like that.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

#[expect(clippy::disallowed_methods, reason = "the wire ends with the process")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn carry(
    client: tokio::net::TcpStream,
    brokers: Vec<SocketAddr>,
    mut wire: watch::Receiver<Wire>,
) {
    let Ok(server) = tokio::net::TcpStream::connect(&*brokers).await else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, wire.clone(), &[Wire::Stalled]) => {}
        () = pass(from_server, to_client, wire.clone(), &[Wire::Stalled, Wire::HalfOpen]) => {}
        _ = wire.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

async fn pass(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
    blocked: &[Wire],
) {
    let mut buffer = vec![0; 1 << 14];
    loop {
        if wire.wait_for(|wire| !blocked.contains(wire)).await.is_err() {
            return;
        }
        let slow = *wire.borrow() == Wire::Slow;
        let room = if slow { 64 } else { buffer.len() };
        let Ok(length @ 1..) = from.read(&mut buffer[..room]).await else { return };
        if slow {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What was read before the wire stalled waits too.
        if wire.wait_for(|wire| !blocked.contains(wire)).await.is_err()
            || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}
