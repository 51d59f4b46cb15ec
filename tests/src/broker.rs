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

/// A running broker; killed on drop.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Broker {
    /// Starts mosquitto with no bound on what waits; with `persistent` it has what it held before.
    ///
    /// # Errors
    /// When it is not installed, or does not listen within 20 s.
    pub fn start(folder: &Path, port: u16, persistent: bool) -> Result<Self> {
        let config = folder.join("mosquitto.conf");
        let place = folder.display();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n\
             max_queued_messages 0\n             persistence {persistent}\npersistence_location {place}/\nuser root\n"
        );
        std::fs::write(&config, text)?;
        let log = OpenOptions::new().create(true).append(true).open(folder.join("broker.log"))?;
        let start = |program: &str| {
            Command::new(program).arg("-c").arg(&config).stderr(log.try_clone()?).spawn()
        };
        let child = start("mosquitto").or_else(|_| start("/usr/sbin/mosquitto"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let broker = Self { child, folder: folder.to_owned(), address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(started.elapsed() < Duration::from_secs(20), "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(broker)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: politely, so that it saves what it has, or with SIGKILL. Gives its folder and port.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn end(mut self, politely: bool) -> Result<(PathBuf, u16)> {
        if politely {
            let pid = self.child.id().to_string();
            Command::new("kill").arg(&pid).status().context("kill")?;
        } else {
            self.child.kill()?;
        }
        self.child.wait()?;
        Ok((self.folder.clone(), self.address.port()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
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
