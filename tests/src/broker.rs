//! mosquitto, and the wire to it that can be cut, stalled or slowed.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, tcp};
use tokio::sync::watch;

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
        let place = folder.display();
        let lines = format!("persistence {persistent}\npersistence_location {place}/\n");
        Self::with(folder, port, &lines)
    }

    /// Starts mosquitto with the rules of an ACL file. Users need no password.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn with_rules(folder: &Path, port: u16, rules: &str) -> Result<Self> {
        let file = folder.join("acl");
        std::fs::write(&file, rules)?;
        Self::with(folder, port, &format!("acl_file {}\n", file.display()))
    }

    fn with(folder: &Path, port: u16, lines: &str) -> Result<Self> {
        let config = "mosquitto.conf";
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n\
             max_queued_messages 0\n{lines}user root\n"
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
    /// A few bytes at a time come through.
    Slow,
}

/// A wire to a broker.
#[derive(Debug)]
pub struct Proxy {
    /// Where the daemon connects.
    pub address: SocketAddr,
    wire: watch::Sender<Wire>,
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
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() != Wire::Cut {
                    spawn(carry(client, brokers.clone(), watched.clone()));
                }
            }
        });
        Ok(Self { address, wire })
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
        () = pass(from_client, to_server, wire.clone()) => {}
        () = pass(from_server, to_client, wire.clone()) => {}
        _ = wire.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

async fn pass(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 1 << 14];
    loop {
        if wire.wait_for(|wire| *wire != Wire::Stalled).await.is_err() {
            return;
        }
        let slow = *wire.borrow() == Wire::Slow;
        let room = if slow { 64 } else { buffer.len() };
        let Ok(length @ 1..) = from.read(&mut buffer[..room]).await else { return };
        if slow {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What was read before the wire stalled waits too.
        if wire.wait_for(|wire| *wire != Wire::Stalled).await.is_err()
            || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}
